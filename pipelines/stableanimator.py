"""StableAnimator from pictures to frames: one picture, one pose picture a frame, a face (arXiv 2411.17697)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import torch

from ..conditioning.picture import check_picture, check_size
from ..conditioning.stableanimator import condition
from ..conditioning.svd import Noise
from ..networks.id_attention import identity_strength
from ..samplers.decode import decode_frames, to_uint8
from ..samplers.svd import Refine, seeded_noise
from ..samplers.windows import check_window
from . import mimicmotion
from .mimicmotion import sample, size_multiple


@dataclass(frozen=True)
class Settings(mimicmotion.Settings):
    """How to animate; the defaults are the published ones. Raises ValueError for values that cannot work."""

    guidance_first: float = 3.0
    """Guidance of the first frame; up to 1 for both halves the work."""
    guidance_last: float = 3.0
    """Guidance of the last frame."""
    window: int | None = None
    """Frames predicted at once, the first frame of the clip counted; None is what the weights were trained for."""
    overlap: int = 4
    """Frames that neighbouring windows share."""
    noise_aug_strength: float = 0.02
    """Noise added to the reference picture."""
    decode_chunk: int = 4
    """Frames decoded together; part of the result."""
    identity_strength: float = 1.0
    """Strength of the face; 0 leaves the identity adapter out."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (np.isfinite(self.identity_strength) and self.identity_strength >= 0):
            raise ValueError(f"identity_strength must be a number that is not negative, got {self.identity_strength}.")


def animate(
    networks: Any,
    parts: Any,
    picture: np.ndarray,
    pose_pictures: Iterable[np.ndarray],
    settings: Settings = Settings(),
    *,
    identity: np.ndarray | torch.Tensor | None = None,
    size: tuple[int, int] | None = None,
    noise: Noise | None = None,
    refine: Refine | None = None,
    on_step: Callable[[int, torch.Tensor], None] | None = None,
) -> Iterator[np.ndarray]:
    """Animate the person in a picture: one uint8 (H, W, 3) RGB frame per pose picture, streamed as decoded.

    :func:`generate` and then :func:`.samplers.decode.decode_frames`; the arguments are those of :func:`generate`.
    """
    latents = generate(
        networks,
        parts,
        picture,
        pose_pictures,
        settings,
        identity=identity,
        size=size,
        noise=noise,
        refine=refine,
        on_step=on_step,
    )
    frames = decode_frames(parts.vae, latents, settings.decode_chunk)
    return (to_uint8(frame, settings.quirks) for frame in frames)


def generate(
    networks: Any,
    parts: Any,
    picture: np.ndarray,
    pose_pictures: Iterable[np.ndarray],
    settings: Settings = Settings(),
    *,
    identity: np.ndarray | torch.Tensor | None = None,
    size: tuple[int, int] | None = None,
    noise: Noise | None = None,
    refine: Refine | None = None,
    on_step: Callable[[int, torch.Tensor], None] | None = None,
    resume: tuple[int, torch.Tensor] | None = None,
) -> torch.Tensor:
    """Latents (pose pictures, 4, h, w) float32 of the animated picture, scaled.

    networks: StableAnimator's `unet`, `pose_net`, `face_encoder` and `window`; parts: SVD's `vae` and `image_encoder`,
        all on the CPU.
    picture: uint8 (H, W, 3) RGB, of any size. It is cropped to the ratio of the video and resized by Lanczos; poses
        have to be aligned to that part of it.
    pose_pictures: uint8 (H, W, 3) RGB drawings, one per frame; read once and a few at a time.
    identity: raw ArcFace embedding of the face, (512,), as :mod:`..pose.face` makes it; None is no identity.
    size: (height, width) of the video; None is that of the first pose picture.
    noise: in place of the seed: noise(*shape) gives unit Gaussian values, in the order picture (1, 3, H, W), latents
        (1, window, 4, h, w), steps.
    refine: see :func:`..samplers.svd.sample_svd`.
    on_step: called with the number of each step and the latents (frames, 4, h, w) after it.
    resume: go on behind so many steps, from the latents after the last of them, of a run with the same arguments.
    Raises ValueError for what cannot work, before any network runs.
    """
    window = settings.window or networks.window
    check_window(window, settings.overlap)
    check_picture(picture)
    poses = iter(pose_pictures)
    first = next(poses, None)
    if first is None:
        raise ValueError("There are no pose pictures; at least one is needed.")
    check_picture(first, "Pose picture 0")
    size = first.shape[:2] if size is None else size
    check_size(*size, size_multiple(networks, parts))
    noise = noise or seeded_noise(settings.seed)
    conditioning = condition(
        networks,
        parts,
        picture,
        chain([first], poses),
        noise,
        size=size,
        identity=identity,
        fps=settings.fps_id,
        motion_bucket_id=settings.motion_bucket_id,
        noise_aug_strength=settings.noise_aug_strength,
        image_embed_strength=settings.image_embed_strength,
        clip_method=settings.clip_method,
        quirks=settings.quirks,
    )
    with identity_strength(networks.unet, settings.identity_strength):
        return sample(
            networks.unet, conditioning, settings, window, noise, refine=refine, on_step=on_step, resume=resume
        )
