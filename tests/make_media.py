"""Small videos with known content for tests, written with PyAV alone."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

Picture = Callable[[int], np.ndarray]


def grey_level(index: int) -> int:
    """The brightness that marks frame `index` (up to 12 of them can be told apart)."""
    return 20 + 18 * (index % 12)


def flat(index: int, size: tuple[int, int] = (48, 64)) -> np.ndarray:
    return np.full((*size, 3), grey_level(index), np.uint8)


def marks(frames) -> list[int]:
    """Which flat() each frame is (modulo 12)."""
    return [round((float(np.asarray(frame).mean()) - 20) / 18) for frame in frames]


def make_video(
    path: Path,
    times: Sequence[Fraction] | None = None,
    *,
    num_frames: int = 12,
    fps: Fraction | int = 30,
    picture: Picture = flat,
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    full_range: bool = False,
    matrix: int | None = 1,
    sound: np.ndarray | None = None,
    sound_codec: str = "aac",
    rate: int = 48000,
    options: dict | None = None,
) -> Path:
    """Frames at presentation `times` in seconds (default: constant fps); sound float (channels, samples) at `rate`."""
    times = [Fraction(i) / fps for i in range(num_frames)] if times is None else list(times)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=fps)
        first = picture(0)
        stream.height, stream.width, stream.pix_fmt = *first.shape[:2], pix_fmt
        stream.options = {"crf": "8", **(options or {})} if codec == "libx264" else options or {}
        stream.codec_context.time_base = Fraction(1, 90000)
        if matrix is not None:
            stream.codec_context.colorspace = matrix
            stream.codec_context.color_range = 2 if full_range else 1
        audio = add_sound(container, sound, sound_codec, rate) if sound is not None else None
        for index, time in enumerate(times):
            array = picture(index)
            frame = av.VideoFrame.from_ndarray(array, format="rgba" if array.shape[2] == 4 else "rgb24")
            if pix_fmt.startswith("yuv"):
                frame = frame.reformat(
                    format=pix_fmt,
                    dst_colorspace="ITU709" if matrix == 1 else "ITU601",
                    src_color_range="JPEG",
                    dst_color_range="JPEG" if full_range else "MPEG",
                )
            frame.pts, frame.time_base = round(time * 90000), Fraction(1, 90000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
        if audio is not None:
            encode_sound(container, audio, sound, rate)
    return path


def make_sound(path: Path, sound: np.ndarray, codec: str = "aac", rate: int = 48000) -> Path:
    with av.open(str(path), "w") as container:
        encode_sound(container, add_sound(container, sound, codec, rate), sound, rate)
    return path


def add_sound(container, sound: np.ndarray, codec: str, rate: int):
    stream = container.add_stream(codec, rate=rate)
    stream.codec_context.layout = "mono" if len(sound) == 1 else "stereo"
    return stream


def encode_sound(container, stream, sound: np.ndarray, rate: int) -> None:
    for begin in range(0, sound.shape[1], 1024):
        piece = np.ascontiguousarray(sound[:, begin : begin + 1024].astype(np.float32))
        frame = av.AudioFrame.from_ndarray(piece, format="fltp", layout=stream.codec_context.layout.name)
        frame.sample_rate, frame.pts, frame.time_base = rate, begin, Fraction(1, rate)
        container.mux(stream.encode(frame))
    container.mux(stream.encode(None))


def read_sound(path: Path) -> tuple[np.ndarray, float, int]:
    """(float samples (channels, n), time of the first one in seconds, rate) as a player hears them."""
    with av.open(str(path)) as container:
        stream = container.streams.audio[0]
        frames = list(container.decode(stream))
        rate = stream.codec_context.sample_rate
    samples = [f.to_ndarray().astype(np.float64) / (32768 if f.format.name.startswith("s16") else 1) for f in frames]
    return np.concatenate(samples, axis=1), float(frames[0].pts * frames[0].time_base), rate


def impulses(seconds: float, at: Sequence[float], rate: int = 48000, channels: int = 2) -> np.ndarray:
    """Silence with a short loud burst at each time."""
    sound = np.zeros((channels, round(seconds * rate)), np.float32)
    for time in at:
        begin = round(time * rate)
        sound[:, begin : begin + 96] = 0.9 * np.sin(np.arange(96) * 0.7)
    return sound


def rotate_by_flag(path: Path, matrix: tuple[int, int, int, int]) -> Path:
    """Write a display matrix (a, b, c, d) of +-1 and 0 into the track header of an MP4."""
    data = bytearray(path.read_bytes())
    header = data.index(b"tkhd") + 4
    place = header + (36 + 16 if data[header] == 1 else 24 + 16)
    a, b, c, d = (value << 16 for value in matrix)
    data[place : place + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(data)
    return path
