"""Clips that come in as IMAGE or VIDEO, read one frame at a time."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch
from comfy_api.latest import Input, InputImpl, io

from ..media.frame_sampling import Cut, exact_rate
from .sockets import check_images, to_frame

_SAME_LENGTH = 0.1  # seconds that headers may disagree by


@dataclass(frozen=True)
class Clip:
    """Frames of a clip: call `frames` for uint8 (H, W, 3) RGB pictures; num_frames is an estimate for videos.

    sound: the file whose sound belongs to the clip, if there is one.
    """

    frames: Callable[[], Iterator[np.ndarray]]
    num_frames: int
    size: tuple[int, int]
    fps: float | None
    sound: Path | None = None


def cut_inputs() -> list[io.Input]:
    """Widgets that choose a part of a clip; :func:`chosen_cut` reads them."""
    return [
        io.Int.Input(
            "every_nth",
            default=1,
            min=1,
            max=100,
            tooltip="Use every n-th frame. 2 is usual for MimicMotion with videos of 24 to 30 frames a second.",
        ),
        io.Int.Input("max_frames", default=0, min=0, max=100_000, tooltip="Use at most so many frames; 0: all."),
        start_input("Seconds of the clip to leave out at the beginning."),
        io.Float.Input(
            "frame_rate",
            default=0.0,
            min=0.0,
            max=240.0,
            step=0.5,
            tooltip="0: that of the video (pictures have none). Otherwise a video is brought to this rate, "
            "and pictures are taken to have it; every_nth counts after that.",
        ),
    ]


def start_input(tooltip: str) -> io.Float.Input:
    """The widget for the seconds of a clip that are left out."""
    return io.Float.Input("start", default=0.0, min=0.0, max=100_000.0, step=0.1, tooltip=tooltip)


def clip_input(tooltip: str, name: str = "frames", optional: bool = False) -> io.MultiType.Input:
    """The input for what :func:`open_clip` reads."""
    return io.MultiType.Input(name, [io.Image, io.Video], tooltip=tooltip, optional=optional)


def chosen_cut(every_nth: int, max_frames: int, start: float, frame_rate: float) -> Cut:
    """What the widgets of :func:`cut_inputs` say."""
    return Cut(start, None, every_nth, frame_rate or None, max_frames or None)


@contextmanager
def open_clip(source: torch.Tensor | Input.Video, cut: Cut) -> Iterator[Clip]:
    """The chosen frames of an IMAGE batch or a VIDEO; a VIDEO in a file is decoded as its frames are read.

    An IMAGE batch has the rate `cut.fps`; without it the rate is unknown, and `cut.start` must be 0.
    """
    if isinstance(source, torch.Tensor):
        yield _images(source, cut.fps, cut)
    else:
        with video_file(source) as path:
            yield _components(source, cut) if path is None else _file(path, cut)


@contextmanager
def video_file(video: Input.Video) -> Iterator[Path | None]:
    """The file that a VIDEO is; None for one that is not a whole file, of which only the components tell."""
    if isinstance(video, InputImpl.VideoFromComponents):  # its stream would have to be encoded first
        yield None
        return
    with _on_disk(video.get_stream_source()) as path:
        yield None if _is_trimmed(video, path) else path


def _is_trimmed(video: Input.Video, path: Path) -> bool:
    """Whether a VIDEO is only a part of its file; which part, the host tells by its frames alone."""
    from ..media.video import probe

    whole = probe(path).duration  # first, since it says better what is wrong with a file
    return video.get_duration() < whole - _SAME_LENGTH


def _components(video: Input.Video, cut: Cut) -> Clip:
    parts = video.get_components()
    return _images(parts.images, exact_rate(parts.frame_rate), cut)


def _images(images: torch.Tensor, rate: float | Fraction | None, cut: Cut) -> Clip:
    images = check_images(images)
    if rate is None and cut.start:
        raise ValueError("An IMAGE batch has no frame rate: set frame_rate, or start at 0 and use every_nth.")
    fps = Fraction(1) if rate is None else exact_rate(rate)
    sampling = cut.of(fps, Fraction(len(images)) / fps, "the IMAGE batch")
    timed = [*((i / fps, i) for i in range(len(images))), (len(images) / fps, None)]
    chosen = list(sampling(timed))
    size = int(images.shape[1]), int(images.shape[2])
    known = None if rate is None else float(sampling.fps)
    return Clip(lambda: (to_frame(images[i]) for i in chosen), len(chosen), size, known)


def _file(path: Path, cut: Cut) -> Clip:
    from ..media.video import open_source

    source = open_source(path, cut.start, stride=cut.stride, fps=cut.fps, max_frames=cut.max_frames)
    fps = None if source.fps is None else float(source.fps)
    return Clip(source.__iter__, source.num_frames, source.size, fps, source.audio_path)


@contextmanager
def _on_disk(source: Any) -> Iterator[Path]:
    if isinstance(source, str):
        yield Path(source)
        return
    with tempfile.TemporaryDirectory(prefix="choreo-", ignore_cleanup_errors=True) as folder:
        path = Path(folder) / "video"
        path.write_bytes(source.getbuffer())
        yield path
