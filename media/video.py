"""Videos as streams of RGB frames, one of them in memory at a time, and the one door to every kind of clip."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from itertools import pairwise
from pathlib import Path
from statistics import median

import av
import numpy as np

from .clips import FrameSource, is_animation, open_animation, open_pictures, pictures_in
from .decode import Damage, Developer, display_size, open_video, packet_times, timed_frames
from .frame_sampling import Cut, Sampling, exact_rate
from .pictures import WHITE, Colour

_SEEK_FROM = 2  # seconds; nearer starts are decoded up to, which is as fast and always exact
_PROBED_PACKETS = 240


@dataclass(frozen=True)
class VideoInfo:
    """A video as it is shown: after rotation and with square pixels.

    fps:        frames per second; of a variable rate the rate of its moving parts.
    num_frames: an estimate from the header, good enough for a progress bar.
    duration:   seconds.
    """

    width: int
    height: int
    fps: Fraction
    num_frames: int
    duration: float
    has_audio: bool


def probe(path: str | Path) -> VideoInfo:
    """Size, rate and length of a video; decodes its first frame.

    Raises FileNotFoundError or ValueError with one sentence: no file, no video, only sound, no frames.
    """
    with open_video(path) as (container, stream):
        first = next(timed_frames(container, stream, Damage()), None)
        if first is None:
            raise ValueError(f"{path} holds no frames that can be decoded; is it cut off or damaged?")
        height, width = display_size(first[1], stream)
    with open_video(path) as (container, stream):
        promised = _duration(container, stream)
        stamps = packet_times(container, stream, _PROBED_PACKETS if promised else None)
        fps, constant = _rate(stream, [stamp for stamp in stamps if stamp is not None])
        duration = promised or len(stamps) / fps
        num_frames = max(1, round(duration * fps))
        if constant and stream.frames and abs(stream.frames - num_frames) <= 1:
            num_frames = stream.frames
        return VideoInfo(width, height, fps, num_frames, float(duration), bool(container.streams.audio))


def read_frames(
    path: str | Path,
    start: float = 0.0,
    duration: float | None = None,
    *,
    stride: int = 1,
    fps: float | Fraction | None = None,
    max_frames: int | None = None,
    background: Colour = WHITE,
) -> Iterator[np.ndarray]:
    """Frames of a video as uint8 (H, W, 3) RGB, one at a time.

    start, duration: seconds from the first frame.
    stride:          every stride-th frame; the result plays at fps / stride.
    fps:             constant rate the video is brought to by its timestamps before the stride (default: its own), so
                     that motion keeps its speed when the rate varies.
    Rotation flags, colour matrix and range, pixel aspect and transparency (over `background`) are honoured. Damaged
    parts are skipped with one warning, the last good frame is held there.
    """
    return iter(_open_video_source(Path(path), Cut(start, duration, stride, fps, max_frames), background))


def open_source(
    path: str | Path,
    start: float = 0.0,
    duration: float | None = None,
    *,
    stride: int = 1,
    fps: float | Fraction | None = None,
    max_frames: int | None = None,
    published_stride: bool = False,
    background: Colour = WHITE,
) -> FrameSource:
    """A video file, an animated GIF, WebP or PNG, one picture, or a folder of pictures in natural order of names.

    The arguments are those of :func:`read_frames`. Pictures have no rate: give `fps` to use start and duration with a
    folder. published_stride: thin clips of 48 fps and more first, as MimicMotion does. What a file is, is found from
    its content.
    """
    path = Path(path)
    cut = Cut(start, duration, stride, fps, max_frames, published_stride)
    if path.is_dir():
        return open_pictures(path, "pictures", pictures_in(path), cut, background)
    animated = is_animation(path)
    if animated is None:
        return _open_video_source(path, cut, background)
    return (
        open_animation(path, cut, background) if animated else open_pictures(path, "picture", [path], cut, background)
    )


def _rate(stream: av.VideoStream, stamps: list[int]) -> tuple[Fraction, bool]:
    """The frame rate, and whether it is constant: the average, unless the usual distance of frames contradicts it."""
    average = stream.average_rate or stream.guessed_rate
    gaps = [b - a for a, b in pairwise(sorted(set(stamps)))]
    if not gaps:
        return exact_rate(average or 25), True
    usual = Fraction(median(gaps)) * stream.time_base
    if average and abs(usual - 1 / average) <= stream.time_base:
        return exact_rate(average), True
    rates = [exact_rate(n) for n in (24, 25, 30, 50, 60) if abs(Fraction(1, n) - usual) <= stream.time_base]
    return (rates or [exact_rate(min(1 / usual, 1000))])[0], False


def _duration(container: av.container.InputContainer, stream: av.VideoStream) -> Fraction:
    """Seconds the video stream lasts by its header, 0 when unknown; edit lists show in the container's length only."""
    lengths = [stream.duration * stream.time_base] if stream.duration else []
    if container.duration:
        beginning = (stream.start_time or 0) * stream.time_base - Fraction(container.start_time or 0, av.time_base)
        lengths.append(Fraction(container.duration, av.time_base) - beginning)
    return min(lengths, default=Fraction(0))


def _open_video_source(path: Path, cut: Cut, background: Colour) -> FrameSource:
    info = probe(path)
    sampling = cut.of(info.fps, info.num_frames / info.fps, path)
    return FrameSource(
        path,
        "video",
        (info.height, info.width),
        sampling.fps,
        sampling.num_frames,
        path if info.has_audio else None,
        float(sampling.start),
        partial(_decode, path, info, sampling, background),
    )


def _decode(path: Path, info: VideoInfo, sampling: Sampling, background: Colour) -> Iterator[np.ndarray]:
    damage = Damage()
    timed = _until_end(_from_start(path, sampling.start, damage), path, info, sampling)
    yield from map(Developer((info.height, info.width), background), sampling(timed))
    damage.warn(path)


def _from_start(path: Path, start: Fraction, damage: Damage) -> Iterator[tuple[Fraction, av.VideoFrame]]:
    """Timed frames from one that is due at the start or earlier; seeks when that saves time."""
    if start > _SEEK_FROM:
        timed = _timed(path, start, damage)
        first = next(timed, None)
        if first is not None and first[0] <= start:
            yield first
            yield from timed
            return
        damage.parts = 0  # no usable index: decode from the beginning
    yield from _timed(path, Fraction(0), damage)


def _timed(path: Path, seek_to: Fraction, damage: Damage) -> Iterator[tuple[Fraction, av.VideoFrame]]:
    with open_video(path) as (container, stream):
        if seek_to:
            container.seek((stream.start_time or 0) + int(seek_to / stream.time_base), stream=stream, backward=True)
        yield from timed_frames(container, stream, damage)


def _until_end(timed: Iterator, path: Path, info: VideoInfo, sampling: Sampling) -> Iterator:
    """Add the time at which the last frame ends; say when that is long before the header's promise."""
    time, frame = Fraction(0), None
    for time, frame in timed:
        yield time, frame
    shown = Fraction(getattr(frame, "duration", 0) or 0) * frame.time_base if frame is not None else Fraction(0)
    period = 1 / info.fps
    reached = time + (shown if shown > 2 * period else period)
    promised = info.duration if sampling.end is None else min(info.duration, float(sampling.end))
    if promised - reached > max(0.5, 0.05 * promised):
        warnings.warn(
            f"{path} ends after {float(reached):.2f} s although its header promises {info.duration:.2f} s: the rest is "
            "missing or damaged.",
            RuntimeWarning,
            stacklevel=2,
        )
    yield reached, None
