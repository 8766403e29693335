"""MimicMotion from pictures to frames: one picture, one pose picture a frame (arXiv 2406.19680)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np
import torch

from ..conditioning.clip_image import CLIP_METHODS, ClipMethod
from ..conditioning.mimicmotion import condition
from ..conditioning.picture import check_picture, check_size
from ..conditioning.svd import Noise, SVDConditioning
from ..networks.speedups import faster
from ..networks.svd_unet import predict
from ..quirks import CLEAN, Quirks
from ..runtime import current
from ..samplers.decode import DECODE_CHUNK, decode_frames, to_uint8
from ..samplers.sigmas import LCM_TRAINING_STEPS, ays_sigmas, given_sigmas, karras_sigmas, lcm_sigmas
from ..samplers.svd import SAMPLERS, PoseUse, Refine, sample_svd, seeded_noise
from ..samplers.windows import check_window

SCHEDULES = ("karras", "ays")


@dataclass(frozen=True)
class Settings:
    """How to animate; the defaults are the published ones. Raises ValueError for values that cannot work."""

    steps: int = 25
    """Sampling steps."""
    sampler: Literal["euler", "animate_lcm"] = "euler"
    """"animate_lcm" is for UNets distilled for it."""
    schedule: Literal["karras", "ays"] = "karras"
    """Noise levels; with "ays" (Align Your Steps) 10 steps are enough."""
    sigmas: tuple[float, ...] | None = None
    """Noise levels of your own, in place of schedule and steps."""
    guidance_first: float = 2.0
    """Guidance of the first frame; up to 1 for both halves the work."""
    guidance_last: float = 2.0
    """Guidance of the last frame."""
    window: int | None = None
    """Frames predicted at once, the reference frame counted; None is what the weights were trained for."""
    overlap: int = 6
    """Frames that neighbouring windows share."""
    fps_id: int = 7
    """SVD's conditioning on speed; not the frame rate of the video."""
    motion_bucket_id: float = 127
    """SVD's conditioning on the amount of motion."""
    noise_aug_strength: float = 0.0
    """Noise added to the reference picture."""
    image_embed_strength: float = 1.0
    """Strength of the picture's CLIP embedding."""
    clip_method: ClipMethod = "squash"
    """How the picture is brought to the square that CLIP sees."""
    pose_strength: float = 1.0
    """Strength of the poses."""
    pose_start: float = 0.0
    """Share of the steps after which the poses act."""
    pose_end: float = 1.0
    """Share of the steps up to which the poses act."""
    decode_chunk: int = DECODE_CHUNK
    """Frames decoded together; part of the result."""
    seed: int = 42
    """The same seed gives the same video."""
    quirks: Quirks = CLEAN
    """Published behaviours to reproduce."""

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
        if not 0 <= self.seed < 2**63:
            raise ValueError(f"seed must be a whole number from 0 to 2^63 - 1, got {self.seed}.")
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

    :func:`generate` and then :func:`.samplers.decode.decode_frames`; the arguments are those of :func:`generate`.
    """
    latents = generate(networks, parts, picture, pose_pictures, settings, noise=noise, on_step=on_step)
    frames = decode_frames(parts.vae, latents, settings.decode_chunk, skip=1)
    return (to_uint8(frame, settings.quirks) for frame in frames)


def generate(
    networks: Any,
    parts: Any,
    picture: np.ndarray,
    pose_pictures: Iterable[np.ndarray],
    settings: Settings = Settings(),
    *,
    noise: Noise | None = None,
    on_step: Callable[[int, torch.Tensor], None] | None = None,
    resume: tuple[int, torch.Tensor] | None = None,
) -> torch.Tensor:
    """Latents (1 + driving poses, 4, h, w) float32 of the animated picture, scaled; frame 0 is the picture itself.

    networks: MimicMotion's `unet`, `pose_net` and `window`; parts: SVD's `vae` and `image_encoder`, all on the CPU.
    picture: uint8 (H, W, 3) RGB; its sides must suit the networks (multiples of 64 at full size).
    pose_pictures: uint8 (H, W, 3) RGB drawings of the picture's size, first that of the picture itself, then one per
        frame; read once and a few at a time.
    noise: in place of the seed: noise(*shape) gives unit Gaussian values, in the order picture (1, 3, H, W), latents
        (1, window, 4, h, w), steps.
    on_step: called with the number of each step and the latents (frames, 4, h, w) after it.
    resume: go on behind so many steps, from the latents after the last of them, of a run with the same arguments.
    Raises ValueError for what cannot work, before any network runs.
    """
    window = settings.window or networks.window
    check_window(window, settings.overlap)
    check_picture(picture)
    check_size(*picture.shape[:2], size_multiple(networks, parts))
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
    return sample(networks.unet, conditioning, settings, window, noise, on_step=on_step, resume=resume)


def size_multiple(networks: Any, parts: Any) -> int:
    """What both sides of the video must be multiples of: VAE and UNet halve them at every level but the last."""
    levels = len(parts.vae.config.block_out_channels) - 1 + len(networks.unet.config.block_out_channels) - 1
    return 2**levels


def sample(
    unet: Any,
    conditioning: SVDConditioning,
    settings: Settings,
    window: int,
    noise: Noise,
    *,
    refine: Refine | None = None,
    on_step: Callable[[int, torch.Tensor], None] | None = None,
    resume: tuple[int, torch.Tensor] | None = None,
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
            refine=refine,
            on_step=on_step,
            resume=resume,
        )
