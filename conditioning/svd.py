"""What systems on SVD are conditioned on: picture embedding, picture latents, time ids and pose features."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch
from torch import nn

from ..networks.finite import check_finite
from ..quirks import CLEAN, Quirks
from ..runtime import current, with_smaller_batches
from .clip_image import ClipMethod, clip_pixels, embed_picture
from .picture import check_picture, to_signed

POSE_BATCH = 16
Noise = Callable[..., torch.Tensor]  # noise(*shape) -> unit Gaussian values, float32 on the CPU


@dataclass(frozen=True)
class SVDConditioning:
    """Everything the sampling loop needs besides noise; all on the CPU.

    image_embeds:  (1, tokens, D) float32, CLIP embedding of the picture, times its strength; then face tokens.
    image_latents: (1, 4, h, w) float32, the mode of the VAE's posterior, not multiplied by its scaling factor.
    time_ids:      (1, 3) float32: fps - 1, motion bucket, noise augmentation.
    pose_features: one (C, h, w) tensor a frame in the network's dtype; MimicMotion's frame 0 is the reference.
    """

    image_embeds: torch.Tensor
    image_latents: torch.Tensor
    time_ids: torch.Tensor
    pose_features: Sequence[torch.Tensor]

    @property
    def num_frames(self) -> int:
        """Frames of the clip, the reference frame counted where there is one."""
        return len(self.pose_features)


def added_time_ids(fps: int, motion_bucket_id: float, noise_aug_strength: float) -> torch.Tensor:
    """(1, 3) float32: SVD's micro-conditioning (fps - 1, motion bucket, noise augmentation)."""
    return torch.tensor([[fps - 1, motion_bucket_id, noise_aug_strength]], dtype=torch.float32)


def clip_embedding(image_encoder: nn.Module, picture: np.ndarray, method: ClipMethod = "squash") -> torch.Tensor:
    """CLIP embedding (1, 1, D) of a picture, uint8 (H, W, 3) of any size; float32 on the CPU."""
    current().check_cancelled()
    with torch.no_grad(), current().on_device(image_encoder):
        embeds = embed_picture(image_encoder, clip_pixels(picture, method, image_encoder.config.image_size))
    return check_finite(embeds.float().cpu(), "the CLIP embedding of the picture")


def encode_picture(vae: nn.Module, pixels: torch.Tensor, dtype: torch.dtype | None = None) -> torch.Tensor:
    """Mode of the VAE's posterior, float32 on the CPU and not scaled; pixels (1, 3, H, W) in [-1, 1].

    dtype: the VAE encodes in it; None is the runtime's.
    """
    runtime = current()
    runtime.check_cancelled()

    def encode(_batch: int) -> torch.Tensor:
        weight = next(vae.parameters())
        return vae.encode(pixels.to(weight.device, weight.dtype)).latent_dist.mode().float().cpu()

    with torch.no_grad(), runtime.on_device(vae, dtype=dtype):
        latents = with_smaller_batches(encode, [1], "encoding the picture")
    return check_finite(latents, "the VAE latents of the picture")


def encode_poses(
    pose_net: nn.Module, pose_pictures: Iterable[np.ndarray], size: tuple[int, int], quirks: Quirks = CLEAN
) -> list[torch.Tensor]:
    """PoseNet's features of every frame, once per clip: (C, H/8, W/8) each, on the CPU in the network's dtype.

    pose_pictures: uint8 (H, W, 3) RGB, read in small groups. Raises ValueError for another size, or none.
    """
    runtime = current()
    features: list[torch.Tensor] = []
    total = len(pose_pictures) if isinstance(pose_pictures, Sequence | np.ndarray) else 0
    with torch.no_grad(), runtime.on_device(pose_net):
        for group in pose_groups(pose_pictures, size):
            runtime.check_cancelled()
            features.extend(_encode_group(pose_net, group, quirks))
            runtime.progress("pose features", len(features), max(total, len(features)))
    if not features:
        raise ValueError("There are no pose pictures; at least one is needed.")
    return features


def pose_groups(pose_pictures: Iterable[np.ndarray], size: tuple[int, int]) -> Iterator[torch.Tensor]:
    """uint8 (n, 3, H, W) of up to POSE_BATCH pictures at a time."""
    pictures = iter(pose_pictures)
    first = 0
    while group := list(islice(pictures, POSE_BATCH)):
        for number, pose in enumerate(group, first):
            _check_pose(pose, number, size)
        first += len(group)
        yield torch.from_numpy(np.stack(group)).permute(0, 3, 1, 2)


def _check_pose(pose: np.ndarray, number: int, size: tuple[int, int]) -> None:
    check_picture(pose, f"Pose picture {number}")
    if pose.shape[:2] != tuple(size):
        raise ValueError(
            f"Pose picture {number} is {pose.shape[1]}x{pose.shape[0]} pixels, but the reference picture is "
            f"{size[1]}x{size[0]}; draw the poses at the size of the picture."
        )


def _encode_group(pose_net: nn.Module, group: torch.Tensor, quirks: Quirks) -> Iterator[torch.Tensor]:
    weight = next(pose_net.parameters())

    def encode(batch_size: int) -> list[torch.Tensor]:
        return [
            pose_net(_pose_values(part.to(weight.device), weight.dtype, quirks)).cpu()
            for part in group.split(batch_size)
        ]

    for part in with_smaller_batches(encode, [POSE_BATCH, 4, 1], "computing pose features"):
        yield from check_finite(part, "the pose features")


def _pose_values(pixels: torch.Tensor, dtype: torch.dtype, quirks: Quirks) -> torch.Tensor:
    return to_signed(pixels, dtype) if quirks.network_precision else to_signed(pixels).to(dtype)
