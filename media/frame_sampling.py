"""Which frames of a driving clip are taken, and how fast the result plays (MimicMotion, test-time sampling)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain, islice
from math import ceil
from typing import TypeVar

Frame = TypeVar("Frame")

STANDARD_RATES = tuple(Fraction(n * 1000, 1001) for n in (24, 30, 48, 60, 120)) + tuple(
    Fraction(n) for n in (10, 12, 15, 24, 25, 30, 48, 50, 60, 100, 120, 240)
)


def effective_stride(fps: float | Fraction, stride: int) -> int:
    """The published stride: clips of 48 fps and more are thinned by int(fps / 24) first."""
    if stride < 1:
        raise ValueError(f"stride is {stride}, but must be 1 or more.")
    return stride * max(1, int(fps / 24))


def published_indices(num_frames: int, fps: float | Fraction, stride: int) -> range:
    """Indices of the frames that MimicMotion takes from a clip of `num_frames` at an average rate of `fps`."""
    return range(0, num_frames, effective_stride(fps, stride))


def exact_rate(fps: float | Fraction) -> Fraction:
    """The rate in frames per second as a fraction: 29.97 is 30000/1001, other values to six digits.

    A value within 0.02 % of a standard rate is that rate. Raises ValueError unless 0 < fps <= 1000.
    """
    if not 0 < fps <= 1000:
        raise ValueError(f"The frame rate is {fps}, but must be above 0 and at most 1000 frames per second.")
    nearest = min(STANDARD_RATES, key=lambda rate: abs(rate - Fraction(fps)))
    if abs(nearest - Fraction(fps)) <= nearest / 5000:
        return nearest
    return Fraction(fps).limit_denominator(1001)


def at_constant_rate(
    timed: Iterable[tuple[Fraction, Frame | None]],
    step: Fraction,
    tolerance: Fraction,
    start: Fraction,
    end: Fraction | None,
) -> Iterator[Frame]:
    """Frames at the times start, start + step, … below `end`, from frames with rising presentation times.

    timed:     (seconds, frame) in rising order; the last entry is (time when the last frame ends, None).
    tolerance: a frame counts as shown already when it is due within this many seconds, which forgives rounded
               timestamps without showing the frame after a long pause too early.
    Each time gets the frame that is shown then: repeated where the clip pauses, dropped where it is faster. One
    frame is held at a time. Times before the first frame get the first frame.
    """
    wanted, count, held = start, 0, None
    timed = iter(timed)
    first = next(timed, None)
    if first is None:
        return
    for time, frame in chain([first], timed):
        while held is not None and time > wanted + tolerance and (end is None or wanted < end):
            yield held
            count += 1
            wanted = start + count * step
        if end is not None and wanted >= end:
            return
        held = frame


@dataclass(frozen=True)
class Cut:
    """Which part of a clip is taken.

    start, duration:  seconds from the first frame, start rounded to a frame; duration None is up to the end.
    stride:           every stride-th frame.
    fps:              constant rate the clip is brought to before the stride; None is its own rate.
    max_frames:       at most so many frames.
    published_stride: thin clips of 48 fps and more first (:func:`effective_stride`).
    """

    start: float = 0.0
    duration: float | None = None
    stride: int = 1
    fps: float | Fraction | None = None
    max_frames: int | None = None
    published_stride: bool = False

    def __post_init__(self) -> None:
        if self.start < 0 or (self.duration is not None and self.duration <= 0):
            raise ValueError(f"start is {self.start} s and duration {self.duration} s, but need 0 or more and above 0.")
        if self.stride < 1 or (self.max_frames is not None and self.max_frames < 1):
            raise ValueError(f"stride is {self.stride} and max_frames {self.max_frames}, but both must be 1 or more.")

    def of(self, native_fps: Fraction, length: Fraction, name: object) -> Sampling:
        """The sampling of a clip `name` of a rate and a length in seconds; ValueError when start is behind its end."""
        if self.start and self.start >= length:
            raise ValueError(f"start is {self.start:g} s, but {name} is only {float(length):.2f} s long.")
        fps = native_fps if self.fps is None else exact_rate(self.fps)
        stride = effective_stride(fps, self.stride) if self.published_stride else self.stride
        start = Fraction(round(Fraction(self.start) * native_fps)) / native_fps
        end = None if self.duration is None else start + Fraction(self.duration).limit_denominator(10**6)
        return Sampling(fps / stride, start, end, 1 / (2 * max(fps, native_fps)), length, self.max_frames)


@dataclass(frozen=True)
class Sampling:
    """A :class:`Cut` of one clip: `fps` of the frames that come out, the rest in seconds of the clip."""

    fps: Fraction
    start: Fraction
    end: Fraction | None
    tolerance: Fraction
    length: Fraction
    max_frames: int | None

    def __call__(self, timed: Iterable[tuple[Fraction, Frame | None]]) -> Iterator[Frame]:
        """The chosen ones of (seconds, frame) pairs; see :func:`at_constant_rate`."""
        return islice(at_constant_rate(timed, 1 / self.fps, self.tolerance, self.start, self.end), self.max_frames)

    @property
    def num_frames(self) -> int:
        """How many frames come out, as far as the length is known."""
        last = self.length - self.tolerance if self.end is None else min(self.end, self.length - self.tolerance)
        count = max(0, ceil((last - self.start) * self.fps))
        return count if self.max_frames is None else min(count, self.max_frames)
