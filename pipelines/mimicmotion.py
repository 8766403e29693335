"""MimicMotion from pictures to frames: one picture, one pose picture a frame (arXiv 2406.19680)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch

from ..conditioning.clip_image import CLIP_METHODS, ClipMethod
from ..conditioning.mimicmotion import Noise, SVDConditioning, condition
from ..conditioning.picture import check_picture, check_size
from ..networks.speedups import faster
from ..networks.svd_unet import predict
from ..quirks import CLEAN, Quirks
from ..runtime import current
from ..samplers.decode import DECODE_CHUNK, decode_frames, to_uint8
from ..samplers.sigmas import LCM_TRAINING_STEPS, ays_sigmas, given_sigmas, karras_sigmas, lcm_sigmas
from ..samplers.svd import SAMPLERS, PoseUse, sample_svd, seeded_noise
from ..samplers.windows import check_window

SCHEDULES = ("karras", "ays")


@dataclass(frozen=True)
class Settings:
    """How to animate; the defaults are the published ones. Raises ValueError for values that cannot work.

    steps, sampler, schedule: sampling steps; "euler" or "animate_lcm" (for UNets distilled for it); noise levels
        "karras" or "ays" (10 steps are enough).
    sigmas: noise levels of your own in place of `schedule` and `steps`.
    guidance_first, guidance_last: guidance of the first and the last frame; up to 1 halves the work.
    window, overlap: frames predicted at once and shared by neighbours, the reference frame counted;
        window None is what the checkpoint was trained for.
    fps_id, motion_bucket_id, noise_aug_strength: SVD's micro-conditioning; fps_id is not the speed of the video.
    image_embed_strength, clip_method: strength of the picture's CLIP embedding; "squash" or "centre crop".
    pose_strength, pose_start, pose_end: strength of the poses and the share of the steps in which they act.
    decode_chunk: frames decoded together; part of the result.
    seed, quirks: the same seed gives the same video; published behaviours to reproduce.
    """

    steps: int = 25
    sampler: str = "euler"
    schedule: str = "karras"
    sigmas: tuple[float, ...] | None = None
    guidance_first: float = 2.0
    guidance_last: float = 2.0
    window: int | None = None
    overlap: int = 6
    fps_id: int = 7
    motion_bucket_id: float = 127
    noise_aug_strength: float = 0.0
    image_embed_strength: float = 1.0
    clip_method: ClipMethod = "squash"
    pose_strength: float = 1.0
    pose_start: float = 0.0
    pose_end: float = 1.0
    decode_chunk: int = DECODE_CHUNK
    seed: int = 42
    quirks: Quirks = CLEAN

    def __post_init__(self) -> None:
        _one_of("sampler", self.sampler, SAMPLERS)
        _one_of("schedule", self.schedule, SCHEDULES)
        _one_of("CLIP preprocessing", self.clip_method, CLIP_METHODS)
        for name in ("guidance_first", "guidance_last", "noise_aug_strength", "image_embed_strength", "pose_strength"):
            value = getattr(self, name)
            if not (np.isfinite(value) and value >= 0):
                raise ValueError(f"{name} must be a number that is not negative, got {value}.")
        if not 0 <= self.pose_start <= self.pose_end <= 1:
            raise ValueError(
                f"pose_start and pose_end must satisfy 0 <= start <= end <= 1, got {self.pose_start}, {self.pose_end}."
            )
        if self.decode_chunk < 1:
            raise ValueError(f"decode_chunk must be at least 1 frame, got {self.decode_chunk}.")
        if self.window is not None:
            check_window(self.window, self.overlap)
        if self.sampler == "animate_lcm" and (self.schedule != "karras" or self.sigmas is not None):
            raise ValueError(
                f"animate_lcm brings its own noise levels (1 to {LCM_TRAINING_STEPS} steps, 4 to 8 are usual); "
                "leave schedule at karras and sigmas empty."
            )
        self.noise_levels()

    def noise_levels(self) -> torch.Tensor:
        """The sigmas of these settings, steps + 1 values, float32."""
        if self.sigmas is not None:
            return given_sigmas(self.sigmas)
        if self.sampler == "animate_lcm":
            return lcm_sigmas(self.steps)
        if self.schedule == "ays":
            return ays_sigmas(self.steps, self.quirks.ays_above_zero)
        return karras_sigmas(self.steps)


def _one_of(what: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ValueError(f"Unknown {what} {value!r}; choose one of {', '.join(choices)}.")


def animate(
    networks: Any,
    parts: Any,
    picture: np.ndarray,
    pose_pictures: Iterable[np.ndarray],
    settings: Settings = Settings(),
    *,
    noise: Noise | None = None,
    on_step: Callable[[int, torch.Tensor], None] | None = None,
) -> Iterator[np.ndarray]:
    """Animate the person in a picture: one uint8 (H, W, 3) RGB frame per driving pose, streamed as decoded.

    networks: MimicMotion's `unet`, `pose_net` and `window`; parts: SVD's `vae` and `image_encoder`, all on the CPU.
    picture: uint8 (H, W, 3) RGB; its sides must suit the networks (multiples of 64 at full size).
    pose_pictures: uint8 (H, W, 3) RGB drawings of the picture's size, first that of the picture itself, then one per
        frame; read once and a few at a time.
    noise: in place of the seed: noise(*shape) gives unit Gaussian values, in the order picture (1, 3, H, W), latents
        (1, window, 4, h, w), steps.
    on_step: called with the number of each step and the latents (frames, 4, h, w) after it.
    Settings and picture are checked at once; the work starts with the first frame that is asked for.
    """
    window = settings.window or networks.window
    check_window(window, settings.overlap)
    check_picture(picture)
    check_size(*picture.shape[:2], size_multiple(networks, parts))
    return _frames(networks, parts, picture, pose_pictures, settings, window=window, noise=noise, on_step=on_step)


def size_multiple(networks: Any, parts: Any) -> int:
    """What both sides of the video must be multiples of: VAE and UNet halve them at every level but the last."""
    levels = len(parts.vae.config.block_out_channels) - 1 + len(networks.unet.config.block_out_channels) - 1
    return 2**levels


def _frames(
    networks: Any,
    parts: Any,
    picture: np.ndarray,
    pose_pictures: Iterable[np.ndarray],
    settings: Settings,
    *,
    window: int,
    noise: Noise | None,
    on_step: Callable[[int, torch.Tensor], None] | None,
) -> Iterator[np.ndarray]:
    noise = noise or seeded_noise(settings.seed)
    conditioning = condition(
        networks,
        parts,
        picture,
        pose_pictures,
        noise,
        fps=settings.fps_id,
        motion_bucket_id=settings.motion_bucket_id,
        noise_aug_strength=settings.noise_aug_strength,
        image_embed_strength=settings.image_embed_strength,
        clip_method=settings.clip_method,
        quirks=settings.quirks,
    )
    latents = sample(networks.unet, conditioning, settings, window, noise, on_step=on_step)
    del conditioning
    for frame in decode_frames(parts.vae, latents, settings.decode_chunk, skip=1):
        yield to_uint8(frame, settings.quirks)


def sample(
    unet: Any,
    conditioning: SVDConditioning,
    settings: Settings,
    window: int,
    noise: Noise,
    *,
    on_step: Callable[[int, torch.Tensor], None] | None = None,
) -> torch.Tensor:
    """Latents (frames, 4, h, w) of a conditioned clip, with the exact speed-ups in place for the length of the run."""
    strength = 1.0 if settings.quirks.pose_strength_ignored else settings.pose_strength
    with current().on_device(unet), faster(unet):
        return sample_svd(
            partial(predict, unet),
            conditioning,
            noise,
            sigmas=settings.noise_levels(),
            window=window,
            overlap=settings.overlap,
            guidance=(settings.guidance_first, settings.guidance_last),
            sampler=settings.sampler,
            pose_use=PoseUse(strength, settings.pose_start, settings.pose_end),
            dtype=unet.dtype,
            quirks=settings.quirks,
            on_step=on_step,
        )
