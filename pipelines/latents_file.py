"""Sampled latents on disk until their video is complete, so that sampling survives a full disk or a failing decoder."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from ..media.write import VideoWriter
from ..model_loaders.svd import SVDParts
from ..samplers.decode import decode_frames, to_uint8

SUFFIX = ".latents.safetensors"
VIDEO_KEY = "choreo.video"


@dataclass(frozen=True)
class VideoFacts:
    """What a video needs besides its latents; decode_chunk is part of the picture, see `samplers.decode`."""

    fps: float
    decode_chunk: int
    skip: int = 1
    audio_path: str | None = None
    audio_start: float = 0.0


def latents_path(video: Path) -> Path:
    """Where the latents of a video are kept."""
    return video.with_name(video.stem + SUFFIX)


def save_latents(path: Path, latents: torch.Tensor, facts: VideoFacts) -> None:
    """Write latents (frames, 4, h, w), scaled as the sampler leaves them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({"latents": latents.contiguous()}, path, metadata={VIDEO_KEY: json.dumps(asdict(facts))})


def load_latents(path: Path) -> tuple[torch.Tensor, VideoFacts]:
    """Read what :func:`save_latents` wrote; FileNotFoundError or ValueError when it is something else."""
    if not path.is_file():
        raise FileNotFoundError(f"There are no latents at {path}; a job that cannot write its video names the file.")
    try:
        with safe_open(path, framework="pt") as file:
            facts = json.loads((file.metadata() or {})[VIDEO_KEY])
            return file.get_tensor("latents"), VideoFacts(**facts)
    except (SafetensorError, KeyError, TypeError, json.JSONDecodeError) as error:
        raise ValueError(f"{path} does not hold latents that a job of Choreo kept ({error}).") from error


def write_video(path: Path, frames: Iterable[np.ndarray], size: tuple[int, int], facts: VideoFacts) -> None:
    """Write uint8 (H, W, 3) frames of one size as a video with its sound."""
    sound = {} if facts.audio_path is None else {"audio_from": facts.audio_path, "audio_start": facts.audio_start}
    with VideoWriter(path, size, facts.fps, **sound) as writer:
        for frame in frames:
            writer.write(frame)


def decode_to_video(parts: SVDParts, latents: torch.Tensor, facts: VideoFacts, video: Path) -> None:
    """Decode latents and write the video, one chunk of frames in memory at a time."""
    factor = 2 ** (len(parts.vae.config.block_out_channels) - 1)
    size = (latents.shape[-2] * factor, latents.shape[-1] * factor)
    frames = decode_frames(parts.vae, latents, facts.decode_chunk, skip=facts.skip)
    write_video(video, map(to_uint8, frames), size, facts)
