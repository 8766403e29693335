"""What can be chosen when a data set is read, and frames of videos out of their middle."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import groupby
from pathlib import Path
from typing import Literal

import numpy as np

from ..media.frame_sampling import exact_rate
from ..media.video import open_source
from .framing import Framing

VIDEO_SUFFIXES = frozenset(
    {".mp4", ".mov", ".m4v", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".wmv", ".flv", ".ts", ".gif"}
)
_SEEK_OVER = 90  # frames that are not wanted in a row; fewer are decoded


@dataclass(frozen=True)
class Reading:
    """How clips are cut out of the videos of a folder; docs/datasets.md."""

    rate: int = 3
    """Every so many frames of the video make a clip."""
    fps: float | None = None
    """Choose the rate for each video so that clips have about so many frames per second."""
    fit: Literal["cover", "stretch"] = "cover"
    """Frames of another ratio: cut off what is too long, or squeeze, as the published trainers do."""
    resampling: Literal["bilinear", "bicubic"] = "bilinear"
    """How pictures are shrunk or enlarged, with antialias."""
    style: str = "mimicmotion"
    """Convention that poses are drawn in, or brought to."""
    min_frames: int = 1
    """Leave out videos with fewer frames that belong together."""
    colours: Literal["auto", "straight", "reversed", "as stored"] = "auto"
    """Channel order of ready pose pictures; "auto" tells it from them."""
    source_fps: float = 30.0
    """Frame rate of folders of pictures, which do not tell theirs."""

    within: int | None = None
    """The reference is at most so many frames of the video away from the clip; None is no limit."""
    crop: float = 1.0
    """Each clip shows a random part of its pictures with at least this share of their area."""

    def __post_init__(self) -> None:
        for name in ("rate", "min_frames"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be 1 or more, got {getattr(self, name)}.")
        if self.within is not None and self.within < 0:
            raise ValueError(f"within must be 0 frames or more, got {self.within}.")
        if not 0 < self.crop <= 1:
            raise ValueError(f"crop must be above 0 and at most 1, got {self.crop}.")
        for name in ("fps", "source_fps"):
            value = getattr(self, name)
            if value is not None and not 0 < value <= 1000:
                raise ValueError(f"{name} must be above 0 and at most 1000 frames per second, got {value}.")

    def framing(
        self, source: tuple[int, int], size: tuple[int, int], generator: np.random.Generator | None = None
    ) -> Framing:
        """Pictures of `source` (height, width) at a size (height, width); generator: chooses the part that is shown."""
        framing = Framing.of(source, size, self.fit, self.resampling)
        return framing if generator is None or self.crop == 1 else framing.part(self.crop, generator)

    def rate_for(self, fps: float) -> int:
        """Every so many frames of a video of `fps`."""
        return self.rate if self.fps is None else max(1, round(fps / self.fps))


def check_request(num_frames: int, size: tuple[int, int]) -> None:
    """Raise ValueError for a clip that cannot be."""
    if num_frames < 1 or min(size) < 1:
        raise ValueError(f"A clip needs 1 or more frames and pixels, got {num_frames} frames of {size[1]}x{size[0]}.")


def clip_fps(numbers: np.ndarray, fps: float) -> float:
    """Frames per second of a clip of the given frames of a video of `fps`; the video's own for a single frame."""
    span = int(numbers[-1] - numbers[0])
    return fps * (len(numbers) - 1) / span if span else fps


def frames_at(path: Path, fps: float, numbers: np.ndarray) -> Iterator[np.ndarray]:
    """Frames of a video at the times number / fps, rising, uint8 (H, W, 3) RGB; one is held at a time.

    fps: the video's own, as :func:`..media.video.probe` tells it. A number that comes twice gives the frame twice.
    Raises ValueError where the video is too short by now.
    """
    rate = exact_rate(fps)
    far = np.cumsum(np.diff(numbers, prepend=numbers[0]) > _SEEK_OVER)
    for _, part in groupby(zip(far.tolist(), numbers.tolist(), strict=True), key=lambda pair: pair[0]):
        yield from _frames_between(path, rate, [number for _, number in part])


def _frames_between(path: Path, rate: Fraction, numbers: list[int]) -> Iterator[np.ndarray]:
    first, wanted = numbers[0], 0
    clip = open_source(path, float(first / rate), max_frames=numbers[-1] - first + 1)
    for number, frame in enumerate(clip, first):
        while wanted < len(numbers) and numbers[wanted] == number:
            yield frame
            wanted += 1
    if wanted < len(numbers):
        raise ValueError(f"{path} ends before frame {numbers[wanted]}: it has changed since the data set was made.")
