"""What MagicPose is conditioned on: latents of the reference picture, texts, and features of the pose pictures."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import nn

from ..networks.finite import check_finite
from ..networks.sd15_unet import encode_hint
from ..runtime import current, with_smaller_batches
from .picture import as_rgb, centre_fit, check_picture, to_signed
from .svd import Noise
from .text import encode_texts

HINT_BATCH = 8


@dataclass(frozen=True)
class MagicPoseConditioning:
    """What all frames of a clip share; on the CPU, float32.

    reference: (1, 4, h, w), latents of the picture, multiplied by the VAE's scaling factor.
    text, unconditional_text: (1, tokens, D); one tensor when the texts are equal.
    """

    reference: torch.Tensor
    text: torch.Tensor
    unconditional_text: torch.Tensor


def condition(
    parts: Any,
    picture: np.ndarray,
    size: tuple[int, int],
    noise: Noise,
    *,
    text: str = "",
    unconditional_text: str = "",
    sample_posterior: bool = True,
) -> MagicPoseConditioning:
    """Condition MagicPose on a picture and texts (docs/magicpose.md, from pictures to tensors).

    parts: has `vae`, `text_encoder` and `tokenizer`. picture: uint8, RGB, RGBA or grey, of any size; size: (height,
    width) of the video. noise: called once with (1, 4, h, w), also where the posterior's mode is taken.
    """
    texts = encode_texts(parts.text_encoder, [text, unconditional_text], parts.tokenizer)
    fitted = fit_picture(picture, size, "The reference picture")
    factor = 2 ** (len(parts.vae.config.block_out_channels) - 1)
    fresh = noise(1, parts.vae.config.latent_channels, size[0] // factor, size[1] // factor)
    return MagicPoseConditioning(encode_reference(parts.vae, fitted, fresh if sample_posterior else None), *texts)


def fit_picture(picture: np.ndarray, size: tuple[int, int], what: str) -> np.ndarray:
    """A picture or pose picture as RGB, its largest central part resized to (height, width); uint8 (height, width, 3).

    what: names it in the ValueError for pictures that cannot be used.
    """
    picture = as_rgb(picture) if isinstance(picture, np.ndarray) else picture
    check_picture(picture, what)
    return centre_fit(picture, size)


def encode_reference(vae: nn.Module, picture: np.ndarray, noise: torch.Tensor | None) -> torch.Tensor:
    """Latents (1, 4, h, w), scaled, float32 on the CPU: a sample of the VAE's posterior, or its mode without noise.

    picture: uint8 (H, W, 3). The VAE is on the device meanwhile.
    """
    runtime = current()
    runtime.check_cancelled()
    pixels = to_signed(torch.from_numpy(np.ascontiguousarray(picture)).permute(2, 0, 1)[None])

    def encode(_batch: int) -> torch.Tensor:
        weight = next(vae.parameters())
        posterior = vae.encode(pixels.to(weight.device, weight.dtype)).latent_dist
        latents = posterior.mean.float().cpu()
        return latents if noise is None else latents + posterior.std.float().cpu() * noise

    with torch.no_grad(), runtime.on_device(vae):
        latents = with_smaller_batches(encode, [1], "encoding the picture")
    return check_finite(latents, "the VAE latents of the picture") * vae.config.scaling_factor


def to_hint(pictures: Iterable[np.ndarray]) -> torch.Tensor:
    """Pose pictures uint8 (H, W, 3) RGB of one size -> (n, 3, H, W) float32 in [0, 1]."""
    return torch.from_numpy(np.stack(list(pictures))).permute(0, 3, 1, 2).float() / 255


def encode_poses(controlnet: nn.Module, pictures: list[np.ndarray]) -> torch.Tensor:
    """The ControlNet's features of pose pictures (uint8, of the video's size), once for all steps.

    (n, C, H/8, W/8) on the CPU in the network's dtype; the network is where it is.
    """
    weight = next(controlnet.parameters())

    def encode(batch_size: int) -> torch.Tensor:
        parts = (pictures[first : first + batch_size] for first in range(0, len(pictures), batch_size))
        return torch.cat([encode_hint(controlnet, to_hint(p).to(weight.device, weight.dtype)).cpu() for p in parts])

    current().check_cancelled()
    with torch.no_grad():
        features = with_smaller_batches(encode, [HINT_BATCH, 1], "computing pose features")
    return check_finite(features, "the pose features")


def pose_groups(
    pose_pictures: Iterable[np.ndarray], size: tuple[int, int], length: int
) -> Iterator[tuple[list[np.ndarray], bool]]:
    """Pose pictures in groups, fitted to (height, width), and whether more follow; a group is read ahead.

    Raises ValueError when there are none.
    """
    pictures, first = iter(pose_pictures), 0
    group = list(islice(pictures, length))
    if not group:
        raise ValueError("MagicPose needs at least one pose picture, got none.")
    while group:
        following = list(islice(pictures, length))
        yield [fit_picture(pose, size, f"Pose picture {first + k}") for k, pose in enumerate(group)], bool(following)
        first += len(group)
        group = following
