"""What a clip is to the rest of the package, and the clips that are made of pictures: folders, GIF, WebP, APNG."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from functools import partial
from itertools import pairwise
from pathlib import Path
from statistics import median

import numpy as np
from PIL import Image

from .frame_sampling import Cut, Sampling, exact_rate
from .pictures import PICTURE_SUFFIXES, Colour, load_picture, open_picture, picture_size, to_rgb

_ANIMATED_FORMATS = {"GIF", "WEBP", "PNG", "AVIF"}
_PICTURE_FORMATS = _ANIMATED_FORMATS | {"JPEG", "MPO", "BMP", "TIFF", "TGA"}


@dataclass(frozen=True)
class FrameSource:
    """A clip that can be iterated any number of times: uint8 (H, W, 3) RGB frames of one size.

    kind:        "video", "animation", "pictures" (a folder) or "picture".
    size:        (H, W).
    fps:         of the frames that come out (source rate / stride), None where pictures have no rate.
    num_frames:  how many come out; an estimate for videos.
    audio_path:  the file whose sound belongs to the clip, or None.
    audio_start: where in that file the clip begins, in seconds.
    """

    path: Path
    kind: str
    size: tuple[int, int]
    fps: Fraction | None
    num_frames: int
    audio_path: Path | None = None
    audio_start: float = 0.0
    frames: Callable[[], Iterator[np.ndarray]] = field(repr=False, default=lambda: iter(()))

    def __iter__(self) -> Iterator[np.ndarray]:
        return self.frames()


def natural_order(path: Path) -> list[tuple[int, int, str]]:
    """Sort key: frame_2 before frame_10."""
    parts = re.split(r"([0-9]+)", path.name.lower())
    return [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in parts]


def pictures_in(folder: Path) -> list[Path]:
    """The pictures of a folder in natural order; ValueError when there are none."""
    files = [p for p in folder.iterdir() if p.suffix.lower() in PICTURE_SUFFIXES and not p.name.startswith(".")]
    if not files:
        raise ValueError(f"The folder {folder} holds no pictures: expected PNG, JPEG or WebP files, one a frame.")
    return sorted(files, key=natural_order)


def is_animation(path: Path) -> bool | None:
    """Whether a file is an animated picture, by its content; None when it is no picture at all (maybe a video)."""
    if not path.exists():
        raise FileNotFoundError(f"The video or picture {path} does not exist.")
    try:
        with open_picture(path) as image:
            if image.format not in _PICTURE_FORMATS:
                return None
            return image.format in _ANIMATED_FORMATS and getattr(image, "n_frames", 1) > 1
    except ValueError:
        return None


def open_pictures(path: Path, kind: str, files: list[Path], cut: Cut, background: Colour) -> FrameSource:
    """A clip of picture files; all sizes are checked before the first is decoded."""
    if cut.fps is None and (cut.start or cut.duration is not None):
        raise ValueError(f"{path} has no frame rate: give fps when you choose a start or a duration in seconds.")
    height, width = picture_size(files[0])
    for file in files:
        h, w = picture_size(file)
        if (h, w) != (height, width):
            raise ValueError(f"{file} is {w}x{h}, but {files[0].name} is {width}x{height}: all must have one size.")
    fps = Fraction(1) if cut.fps is None else exact_rate(cut.fps)
    sampling = cut.of(fps, len(files) / fps, path)
    chosen = list(sampling([*((i / fps, file) for i, file in enumerate(files)), (len(files) / fps, None)]))
    return FrameSource(
        path,
        kind,
        (height, width),
        None if cut.fps is None else sampling.fps,
        len(chosen),
        frames=lambda: (load_picture(file, background) for file in chosen),
    )


def open_animation(path: Path, cut: Cut, background: Colour) -> FrameSource:
    """An animated picture by its frames' own times."""
    with open_picture(path) as image:
        times = [time for time, _ in _timed(image, lambda _: None)]
    fps = exact_rate(1 / Fraction(median(b - a for a, b in pairwise(times))))
    sampling = cut.of(fps, times[-1], path)
    frames = partial(_animate, path, sampling, background)
    return FrameSource(path, "animation", picture_size(path), sampling.fps, sampling.num_frames, frames=frames)


def _animate(path: Path, sampling: Sampling, background: Colour) -> Iterator[np.ndarray]:
    with open_picture(path) as image:
        for picture in sampling(_timed(image, partial(to_rgb, background=background))):
            yield picture.copy()  # a frame that is held is handed out more than once


def _timed(image: Image.Image, read: Callable) -> Iterator[tuple[Fraction, np.ndarray | None]]:
    """(seconds, frame) of an animation, and (its end, None); delays under 20 ms are 100 ms, as in browsers."""
    time = Fraction(0)
    for index in range(image.n_frames):
        image.seek(index)
        image.load()  # WebP knows the delay only then
        yield time, read(image)
        delay = Fraction(image.info.get("duration", 0) or 0) / 1000
        time += delay if delay >= Fraction(1, 50) else Fraction(1, 10)
    yield time, None
