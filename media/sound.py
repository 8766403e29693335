"""The sound of a clip, copied or re-encoded beside finished pictures, in step with them."""

from __future__ import annotations

import heapq
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from .decode import open_container
from .files import is_disk_full

_COPIED = {  # what players understand in a container, by its suffix
    ".mp4": {"aac", "mp3", "ac3", "eac3", "alac"},
    ".mov": {"aac", "mp3", "ac3", "eac3", "alac"},
    ".mkv": {"aac", "mp3", "ac3", "eac3", "alac", "flac", "opus", "vorbis"},
    ".webm": {"opus", "vorbis"},
}


@dataclass(frozen=True)
class Sound:
    """Sound of a media file from `start` (seconds after its first video frame, or its beginning) for `duration`."""

    path: Path
    start: float = 0.0
    duration: float | None = None

    def check(self) -> None:
        """Raise a clear sentence now rather than after a long job."""
        with open_container(self.path) as container:
            if not container.streams.audio:
                raise ValueError(f"{self.path} has no sound to take over.")


def read_sound(sound: Sound, length: Fraction) -> tuple[np.ndarray, int] | None:
    """Samples (1 or 2 channels, n) float32 of at most `length` seconds, and their rate; None for a silent file."""
    with open_container(sound.path) as container:
        if not container.streams.audio:
            return None
        source = container.streams.audio[0]
        rate = source.codec_context.sample_rate
        origin = _origin(container) + Fraction(sound.start).limit_denominator(10**6)
        wanted = length if sound.duration is None else min(length, Fraction(sound.duration))
        pieces = list(_pieces(container, source, (rate, _layout(source)), origin, round(wanted * rate)))
    return (np.concatenate(pieces, axis=1), rate) if pieces else None


def join(pictures: Path, output: Path, length: Fraction, sound: Sound | None) -> None:
    """Write the video packets of `pictures`, which last `length` seconds, and sound into `output`, the index in front.

    The sound ends with the pictures. Sound that cannot be read leaves a silent video and a warning.
    """
    try:
        _join(pictures, output, length, sound)
    except (av.error.FFmpegError, ValueError, OSError) as error:
        if sound is None or is_disk_full(error):
            raise
        problem = f"The video is silent: the sound of {sound.path} cannot be read ({error})"
        warnings.warn(problem, RuntimeWarning, stacklevel=2)
        _join(pictures, output, length, None)


def _join(pictures: Path, output: Path, length: Fraction, sound: Sound | None) -> None:
    options = {"fflags": "+bitexact"}  # otherwise Matroska and WebM get a random number
    if output.suffix.lower() in (".mp4", ".mov"):
        options["movflags"] = "+faststart"
    with open_container(pictures) as video, av.open(str(output), "w", options=options) as target:
        stream = _like(target, video.streams.video[0])
        if sound is None:
            target.mux(_pictures(video, stream))
            return
        with open_container(sound.path) as container:
            if sound.duration is not None:
                length = min(length, Fraction(sound.duration))
            noise = _sound(container, target, output.suffix.lower(), sound, length)
            for packet in heapq.merge(_pictures(video, stream), noise, key=lambda p: p.dts * p.time_base):
                target.mux(packet)


def _like(target: av.container.OutputContainer, source: av.stream.Stream) -> av.stream.Stream:
    """A stream of the same codec and parameters; PyAV 14 renamed the method."""
    if hasattr(target, "add_stream_from_template"):
        return target.add_stream_from_template(source, opaque=True)
    return target.add_stream(template=source)


def _pictures(container: av.container.InputContainer, stream: av.VideoStream) -> Iterator[av.Packet]:
    """Video packets, the first picture shown at 0: files made of fragments begin as late as B-frames need."""
    first = None
    for packet in container.demux(container.streams.video[0]):
        if packet.dts is None:
            continue
        first = packet.pts if first is None else first
        packet.pts, packet.dts, packet.stream = packet.pts - first, packet.dts - first, stream
        yield packet


def _sound(container, target, suffix: str, sound: Sound, length: Fraction) -> Iterator[av.Packet]:
    """Packets of the sound from 0 to `length` seconds; the output stream is added at once, before the first packet."""
    source = container.streams.audio[0]
    origin = _origin(container) + Fraction(sound.start).limit_denominator(10**6)
    if source.codec_context.name in _COPIED[suffix]:
        return _copied(container, source, _like(target, source), origin, length)
    codec, rate = ("libopus", 48000) if suffix == ".webm" else ("aac", 48000)
    if codec == "aac" and source.codec_context.sample_rate % 11025 == 0:
        rate = 44100
    layout = _layout(source)
    stream = target.add_stream(codec, rate=rate)
    stream.codec_context.layout = layout
    stream.codec_context.bit_rate = 96_000 if layout == "mono" else 192_000
    return _encoded(container, source, stream, origin, length)


def _layout(source: av.AudioStream) -> str:
    return "mono" if source.codec_context.layout.nb_channels == 1 else "stereo"


def _origin(container: av.container.InputContainer) -> Fraction:
    """When the first video frame is shown, or the file begins, on the container's clock in seconds."""
    stream = container.streams.best("video")
    if stream is not None and stream.start_time is not None:
        return stream.start_time * stream.time_base
    return Fraction(container.start_time or 0, av.time_base)


def _seek(container: av.container.InputContainer, source: av.AudioStream, time: Fraction) -> None:
    if time > 2:
        container.seek(int((time - 1) / source.time_base), stream=source, backward=True)


def _copied(container, source, stream, origin: Fraction, length: Fraction) -> Iterator[av.Packet]:
    """Packets that touch the time span, one earlier for the decoder to warm up; the edit list hides what is early."""
    _seek(container, source, origin)
    shift = round(origin / source.time_base)
    for packet in container.demux(source):
        if packet.dts is None or packet.pts is None:
            continue
        time = (packet.pts - shift) * source.time_base
        if time >= length:
            return
        if time + 2 * (packet.duration or 0) * source.time_base <= 0:
            continue
        packet.pts, packet.dts, packet.stream = packet.pts - shift, packet.dts - shift, stream
        yield packet


def _encoded(container, source, stream, origin: Fraction, length: Fraction) -> Iterator[av.Packet]:
    """Sound decoded, brought to the stream's rate and layout, cut to the sample and encoded again."""
    rate, layout = stream.codec_context.sample_rate, stream.codec_context.layout.name
    done = 0
    for samples in _pieces(container, source, (rate, layout), origin, round(length * rate)):
        frame = av.AudioFrame.from_ndarray(samples, format="fltp", layout=layout)
        frame.sample_rate, frame.pts, frame.time_base = rate, done, Fraction(1, rate)
        done += samples.shape[1]
        yield from stream.encode(frame)
    yield from stream.encode(None)


def _pieces(container, source, target: tuple[int, str], origin: Fraction, total: int) -> Iterator[np.ndarray]:
    """Float samples (channels, n) of a rate and layout, at most the `total` after `origin`; gaps are silence."""
    rate, layout = target
    resampler = av.AudioResampler(format="fltp", layout=layout, rate=rate)
    _seek(container, source, origin)
    position = None  # of the next decoded sample, counted from the origin
    written = 0
    for frame in container.decode(source):
        if frame.pts is None:
            continue
        due = round((frame.pts * frame.time_base - origin) * rate)
        for piece in resampler.resample(frame):
            samples = piece.to_ndarray()
            position = due if position is None or abs(due - position) > rate // 10 else position
            if position > written:  # a gap, or the sound begins late
                silence = min(position, total) - written
                yield np.zeros((samples.shape[0], silence), np.float32)
                written += silence
            kept = samples[:, max(0, written - position) : max(0, total - position)]
            position += samples.shape[1]
            if kept.shape[1]:
                yield np.ascontiguousarray(kept)
                written += kept.shape[1]
            if written >= total:
                return
