"""MagicPose from pictures to frames: one picture, one pose picture a frame (arXiv 2311.12052, docs/magicpose.md)."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np
import torch

from ..conditioning.magicpose import condition, encode_poses, pose_groups
from ..conditioning.picture import check_size
from ..conditioning.svd import Noise
from ..networks.speedups import faster
from ..quirks import CLEAN, Quirks
from ..runtime import current
from ..samplers.ddim import Schedule, schedule
from ..samplers.decode import DECODE_CHUNK, decode_frames, to_uint8
from ..samplers.magicpose import BATCHES, CONTROL_MODES, ClipNoise, MagicPoseSampler
from ..samplers.svd import seeded_noise
from .mimicmotion import size_multiple

log = logging.getLogger(__name__)

GROUP = 64  # frames whose pose features are held at once; the result does not depend on it


@dataclass(frozen=True)
class MagicPoseSettings:
    """How to animate; the defaults are the published ones. Raises ValueError for values that cannot work."""

    steps: int = 50
    """Sampling steps."""
    guidance: float = 7.0
    """How much the reference picture and the poses count; 1 leaves the unconditional prediction out."""
    control_mode: Literal["controlnet_important", "balance"] = "controlnet_important"
    """What guidance leads away from: "controlnet_important" from the same text without picture and poses (image-CFG),
    "balance" from the negative text with them."""
    text: str = ""
    """What the picture shows; empty as published."""
    negative_text: str = ""
    """What it does not show; only control_mode "balance" uses it."""
    eta: float = 0.0
    """Noise added by every step, from 0 (DDIM) to 1 (DDPM)."""
    noisy_reference: bool = False
    """The appearance network sees the reference as noisy as the frame, instead of clean."""
    sample_posterior: bool = True
    """The latents of the reference are a sample of the VAE's posterior, as published; else its mode."""
    batch: int | None = None
    """Frames that go through the networks together, at most; None is 16, and fewer when memory is short."""
    decode_chunk: int = DECODE_CHUNK
    """Frames decoded together."""
    seed: int = 42
    """The same seed gives the same frames."""
    quirks: Quirks = CLEAN
    """Published behaviours to reproduce."""

    def __post_init__(self) -> None:
        if self.control_mode not in CONTROL_MODES:
            raise ValueError(f"Unknown control mode {self.control_mode!r}; choose one of {', '.join(CONTROL_MODES)}.")
        for name in ("guidance", "eta"):
            value = getattr(self, name)
            if not (np.isfinite(value) and value >= 0):
                raise ValueError(f"{name} must be a number that is not negative, got {value}.")
        if self.eta > 1:
            raise ValueError(f"eta must be at most 1, got {self.eta}.")
        for name in ("batch", "decode_chunk"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1 frame, got {value}.")
        if not 0 <= self.seed < 2**63:
            raise ValueError(f"seed must be a whole number from 0 to 2^63 - 1, got {self.seed}.")
        self.schedule()

    def schedule(self) -> Schedule:
        """The DDIM steps of these settings."""
        return schedule(self.steps, self.eta, self.quirks)

    def batches(self) -> tuple[int, ...]:
        """How many frames to try at once, in this order."""
        return BATCHES if self.batch is None else (self.batch, *(size for size in BATCHES if size < self.batch))


def animate(
    networks: Any,
    parts: Any,
    picture: np.ndarray,
    pose_pictures: Iterable[np.ndarray],
    settings: MagicPoseSettings = MagicPoseSettings(),
    *,
    size: tuple[int, int] | None = None,
    noise: Noise | None = None,
) -> Iterator[np.ndarray]:
    """Animate the person in a picture: one uint8 (H, W, 3) RGB frame per pose, streamed as decoded.

    :func:`generate` and then :func:`.samplers.decode.decode_frames`; the arguments are those of :func:`generate`.
    """
    latents = generate(networks, parts, picture, pose_pictures, settings, size=size, noise=noise)
    return (to_uint8(frame, settings.quirks) for frame in decode_frames(parts.vae, latents, settings.decode_chunk))


def generate(
    networks: Any,
    parts: Any,
    picture: np.ndarray,
    pose_pictures: Iterable[np.ndarray],
    settings: MagicPoseSettings = MagicPoseSettings(),
    *,
    size: tuple[int, int] | None = None,
    noise: Noise | None = None,
    num_frames: int | None = None,
    on_step: Callable[[int, torch.Tensor], None] | None = None,
    resume: tuple[int, torch.Tensor] | None = None,
) -> torch.Tensor:
    """Latents (frames, 4, h, w) float32 of the animated picture, scaled; one frame per pose picture.

    networks, parts: as :func:`.model_loaders.magicpose.load_magicpose` gives them, on the CPU.
    picture, pose_pictures: uint8, RGB, RGBA or grey, of any size; of each the largest central part in the shape of
        the video is taken. Poses are read once, GROUP at a time and one group ahead.
    size: (height, width) of the video, None is the picture's; multiples of 64 at full size, trained at 512 x 512.
    noise: in place of the seed: noise(*shape) gives unit Gaussian values, in the order picture (1, 4, h, w), start
        (1, 4, h, w), then (steps, 4, h, w) for a noisy reference, and the same for eta above 0.
    num_frames: how many poses there are, for the progress.
    on_step: called with the number of each step, counted through all groups, and the latents so far.
    resume: go on behind so many steps, from the latents after the last of them, of a run with the same arguments.
    Raises ValueError for what cannot work, before any network runs.
    """
    size = tuple(picture.shape[:2]) if size is None else size
    check_size(*size, size_multiple(networks, parts))
    require_controlnet(networks)
    steps = settings.schedule()
    if steps.note:
        log.info(steps.note)
    noise = noise or seeded_noise(settings.seed)
    conditioning = condition(
        parts,
        picture,
        size,
        noise,
        text=settings.text,
        unconditional_text=settings.negative_text,
        sample_posterior=settings.sample_posterior,
    )
    clip_noise = ClipNoise.draw(noise, conditioning.reference.shape[1:], steps, settings.noisy_reference)
    make_sampler = partial(
        MagicPoseSampler,
        networks,
        conditioning,
        clip_noise,
        steps,
        guidance=settings.guidance,
        control_mode=settings.control_mode,
        batches=settings.batches(),
    )
    counter = _Counter(len(steps), num_frames, on_step)
    with _on_device(networks.unet, networks.appearance, networks.controlnet):
        return _sample_groups(make_sampler, pose_groups(pose_pictures, size, GROUP), counter, resume)


@contextmanager
def _on_device(*networks: Any) -> Iterator[None]:
    """The networks are on the runtime's device, with the exact speed-ups in place."""
    with current().on_device(*networks), ExitStack() as stack:
        for network in networks:
            stack.enter_context(faster(network))
        yield


def require_controlnet(networks: Any) -> None:
    """Raise ValueError for weights of stage 1 that no pose ControlNet was found for."""
    if networks.controlnet is None:
        raise ValueError(
            "These weights of MagicPose hold no pose ControlNet (they are of stage 1): name one, such as "
            "control_v11p_sd15_openpose.pth, or take model_state-110000.th."
        )


class _Counter:
    """Counts the steps of all groups, for the progress and for who keeps the latents."""

    def __init__(self, steps: int, num_frames: int | None, on_step: Callable[[int, torch.Tensor], None] | None) -> None:
        self.steps, self.num_frames, self.on_step = steps, num_frames, on_step
        self.first, self.total = 0, steps
        self.finished = torch.empty(0)

    def begin(self, group: int, several: bool, finished: torch.Tensor) -> None:
        """A group begins; finished: the latents of those before it."""
        self.first, self.finished = group * self.steps, finished
        groups = -(-self.num_frames // GROUP) if self.num_frames else group + 1 + several
        self.total = groups * self.steps

    def __call__(self, step: int, x: torch.Tensor) -> None:
        current().progress("sampling", self.first + step + 1, self.total)
        if self.on_step is not None:
            self.on_step(self.first + step, torch.cat([self.finished, x]))


def _sample_groups(
    make_sampler: Callable[..., MagicPoseSampler],
    groups: Iterator[tuple[list[np.ndarray], bool]],
    counter: _Counter,
    resume: tuple[int, torch.Tensor] | None,
) -> torch.Tensor:
    """Latents of all groups, one after the other, by one sampler."""
    sampler: MagicPoseSampler | None = None
    done, before = resume or (0, torch.empty(0))
    latents = torch.empty(0)
    for number, (poses, more) in enumerate(groups):
        sampler = sampler or make_sampler(several=more)
        counter.begin(number, more, latents)
        own = before[number * GROUP : number * GROUP + len(poses)]
        if done < counter.first + counter.steps:
            partial = (done - counter.first, own) if done > counter.first else None
            features = encode_poses(sampler.networks.controlnet, poses)
            current().progress("sampling", max(counter.first, done), counter.total)
            own = sampler.sample(features, counter, partial)
        latents = torch.cat([latents, own])
    return latents


def num_steps(settings: MagicPoseSettings, num_frames: int) -> int:
    """Steps that :func:`generate` counts for a clip: those of DDIM for each group of frames."""
    return -(-num_frames // GROUP) * len(settings.schedule())
