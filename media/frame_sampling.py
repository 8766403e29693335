"""Which frames of a driving clip are taken, and how fast the result plays (MimicMotion, test-time sampling)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from fractions import Fraction
from itertools import chain
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


def output_rate(driving_fps: float | Fraction, stride: int, fps: float | Fraction | None = None) -> Fraction:
    """Frame rate of the result: the driving rate over the (effective) stride, so that motion keeps its speed."""
    return exact_rate(fps) if fps is not None else exact_rate(driving_fps) / stride


def at_constant_rate(
    timed: Iterable[tuple[Fraction, Frame]], step: Fraction, tolerance: Fraction, start: Fraction, end: Fraction | None
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
