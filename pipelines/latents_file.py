"""Sampled latents on disk until their video is complete, so that no step that was sampled is ever lost."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from ..media.files import complete_file
from ..media.write import VideoWriter
from ..model_loaders.svd import SVDParts
from ..quirks import Quirks
from ..samplers.decode import decode_frames, to_uint8

log = logging.getLogger(__name__)

SUFFIX = ".latents.safetensors"
VIDEO_KEY, STEPS_KEY = "choreo.video", "choreo.steps"


@dataclass(frozen=True)
class VideoFacts:
    """What a video needs besides its latents; decode_chunk is part of the picture, see `samplers.decode`."""

    fps: float
    decode_chunk: int
    skip: int = 1
    audio_path: str | None = None
    audio_start: float = 0.0
    truncated_frames: bool = False


@dataclass(frozen=True)
class Kept:
    """Latents (frames, 4, h, w), scaled as the sampler leaves them, after `done` of `steps` steps."""

    latents: torch.Tensor
    facts: VideoFacts
    done: int
    steps: int


def latents_path(video: Path, job: str) -> Path:
    """Where the latents of a video are kept; job tells different jobs that write the same video apart."""
    return video.with_name(f"{video.stem}-{job}{SUFFIX}")


def save_latents(path: Path, kept: Kept) -> None:
    """Write latents; the file is replaced when the new one is complete. OSError when that fails."""
    metadata = {VIDEO_KEY: json.dumps(asdict(kept.facts)), STEPS_KEY: json.dumps([kept.done, kept.steps])}
    try:
        with complete_file(path) as temporary:
            save_file({"latents": kept.latents.contiguous()}, temporary, metadata=metadata)
    except SafetensorError as error:
        raise OSError(f"{path} could not be written: {error}") from error


def load_latents(path: Path) -> Kept:
    """Read what :func:`save_latents` wrote; FileNotFoundError or ValueError when it is something else."""
    if not path.is_file():
        raise FileNotFoundError(f"There are no latents at {path}; a job that was broken off names its file.")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            facts = VideoFacts(**json.loads(metadata[VIDEO_KEY]))
            done, steps = json.loads(metadata[STEPS_KEY])
            return Kept(file.get_tensor("latents"), facts, done, steps)
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is damaged, or does not hold latents that a job of Choreo kept.") from error


class StepKeeper:
    """Keeps the latents after every step of a run; a disk that is full only takes this safety away, with a warning."""

    def __init__(self, path: Path, facts: VideoFacts, steps: int) -> None:
        self.path, self.facts, self.steps = path, facts, steps
        self.failed = False

    def __call__(self, step: int, latents: torch.Tensor) -> None:
        """Keep the latents after step number `step`, from 0."""
        if self.failed:
            return
        try:
            save_latents(self.path, Kept(latents, self.facts, step + 1, self.steps))
        except OSError as error:
            self.failed = True
            log.warning("The latents cannot be kept, so a job that is broken off begins again (%s).", error)

    def run(self, sample: Callable[..., torch.Tensor]) -> Kept:
        """The latents of sample(on_step=..., resume=...), from where the same job was broken off."""
        resume = None
        if self.path.is_file():
            kept = load_latents(self.path)
            log.info("Going on after step %d of %d, which %s holds.", kept.done, kept.steps, self.path)
            if kept.done == kept.steps:
                return kept
            resume = kept.done, kept.latents
        return Kept(sample(on_step=self, resume=resume), self.facts, self.steps, self.steps)

    def drop(self) -> None:
        """Remove the file; the video is there."""
        self.path.unlink(missing_ok=True)


def write_video(
    path: Path, frames: Iterable[np.ndarray], size: tuple[int, int], facts: VideoFacts, keep_partial: bool = False
) -> None:
    """Write uint8 (H, W, 3) frames of one size as a video with its sound.

    keep_partial: when that is broken off, the frames so far stay in a playable file beside it, which is named.
    """
    sound = {} if facts.audio_path is None else {"audio_from": facts.audio_path, "audio_start": facts.audio_start}
    writer = VideoWriter(path, size, facts.fps, keep_partial=keep_partial, **sound)
    try:
        with writer:
            for frame in frames:
                writer.write(frame)
    except BaseException:
        if writer.num_frames and writer.partial_path is not None:
            log.warning("The first %d frames are in %s.", writer.num_frames, writer.partial_path)
        raise


def decode_to_video(parts: SVDParts, kept: Kept, video: Path) -> None:
    """Decode latents and write the video, one chunk of frames in memory at a time."""
    factor = 2 ** (len(parts.vae.config.block_out_channels) - 1)
    size = (kept.latents.shape[-2] * factor, kept.latents.shape[-1] * factor)
    frames = decode_frames(parts.vae, kept.latents, kept.facts.decode_chunk, skip=kept.facts.skip)
    with closing(frames):  # takes the VAE off the device also when writing fails
        quirks = Quirks(truncated_frames=kept.facts.truncated_frames)
        write_video(video, (to_uint8(frame, quirks) for frame in frames), size, kept.facts, keep_partial=True)
