"""Frames of a video by their number, for programs that count frames and do not look at their times."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

import av
import numpy as np

from .decode import Damage, Developer, display_size, open_video, packet_times, timed_frames

_SEEK_FROM = 60  # frames; nearer ones are decoded up to


def count_frames(path: str | Path) -> int:
    """How many frames a video has, from its packets, without decoding."""
    with open_video(path) as (container, stream):
        return len(packet_times(container, stream, None))


def numbered_frames(path: str | Path, numbers: Sequence[int]) -> Iterator[np.ndarray]:
    """The frames of the given rising numbers (0 is the first in order of presentation), uint8 (H, W, 3) RGB.

    One frame is held at a time. Unlike :func:`.video.read_frames`, which shows a clip at a constant rate, pauses are
    one frame here. Where a video ends too early the last good frame stands in, with a warning; ValueError when there
    is no frame at all.
    """
    path, wanted = Path(path), list(numbers)
    develop, picture, damage = None, None, Damage()
    for number, frame, stream in _from(path, wanted[0], damage):
        if develop is None:
            develop = Developer(display_size(frame, stream))
        if number >= wanted[0]:
            picture = develop(frame)
            while wanted and wanted[0] <= number:
                yield picture
                wanted.pop(0)
        if not wanted:
            return
        last = frame
    if develop is None:
        raise ValueError(f"{path} holds no frames that can be decoded; is it cut off or damaged?")
    warnings.warn(f"{path} ends before frame {wanted[0]}; its last frame stands in.", RuntimeWarning, stacklevel=2)
    picture = develop(last)
    yield from (picture for _ in wanted)


def _from(path: Path, first: int, damage: Damage) -> Iterator[tuple[int, av.VideoFrame, av.VideoStream]]:
    """(number, frame, stream) from a frame at or before number `first`; seeks when that saves time."""
    stamps = _stamps(path) if first >= _SEEK_FROM else None
    if stamps is None or first >= len(stamps):
        with open_video(path) as (container, stream):
            for number, (_, frame) in enumerate(timed_frames(container, stream, damage)):
                yield number, frame, stream
        return
    number_of = {stamp: number for number, stamp in enumerate(stamps)}
    with open_video(path) as (container, stream):
        container.seek(stamps[first], stream=stream, backward=True)
        for _, frame in timed_frames(container, stream, damage):
            if frame.pts in number_of:
                yield number_of[frame.pts], frame, stream


def _stamps(path: Path) -> list[int] | None:
    """The presentation times of all frames in their order; None where they do not tell the frames apart."""
    with open_video(path) as (container, stream):
        stamps = packet_times(container, stream, None)
    return sorted(stamps) if None not in stamps and len(set(stamps)) == len(stamps) else None
