"""The decoder's side of videos: opening, presentation times, colours, orientation."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice
from pathlib import Path

import av
import numpy as np

from .pictures import WHITE, Colour, blend

_ATTACHED_PICTURE = 0x400  # FFmpeg's AV_DISPOSITION_ATTACHED_PIC
_FULL_RANGE = 2  # FFmpeg's AVCOL_RANGE_JPEG
_MATRICES = {1: "ITU709", 4: "FCC", 5: "ITU601", 6: "ITU601", 7: "SMPTE240M", 9: "BT2020", 10: "BT2020"}  # by AVCOL_SPC
_HD_HEIGHT = 576  # above it, videos that name no colour matrix are BT.709, else BT.601


@contextmanager
def open_video(path: str | Path) -> Iterator[tuple[av.container.InputContainer, av.VideoStream]]:
    """An open container and its main video stream; one clear sentence when there is none."""
    path = Path(path)
    with open_container(path) as container:
        name = container.format.name
        if name.endswith("_pipe") or name == "image2":
            raise ValueError(f"{path} is a still picture, but a video was expected.")
        stream = container.streams.best("video")
        if stream is None or _is_cover(stream):
            kind = "only sound" if container.streams.audio else "no pictures"
            raise ValueError(f"{path} has no video stream ({kind}); choose a file that holds a video.")
        stream.thread_type = "AUTO"
        yield container, stream


@contextmanager
def open_container(path: Path) -> Iterator[av.container.InputContainer]:
    """Open a media file for reading; one clear sentence when it cannot be."""
    if path.is_dir():
        raise ValueError(f"{path} is a folder, but one media file was expected.")
    if not path.exists():
        raise FileNotFoundError(f"The file {path} does not exist.")
    if path.stat().st_size == 0:
        raise ValueError(f"The file {path} is empty (0 bytes).")
    try:
        container = av.open(str(path), metadata_errors="replace")
    except PermissionError:
        raise
    except av.error.FFmpegError as error:
        raise ValueError(
            f"{path} is not a video that can be read, or its index is missing or cut off ({error.strerror})."
        ) from error
    with container:
        yield container


def _is_cover(stream: av.VideoStream) -> bool:
    """Whether a video stream is the cover of a song."""
    disposition = getattr(stream, "disposition", 0)  # a plain flag, an IntFlag or nothing, by PyAV's version
    return bool(getattr(disposition, "value", disposition) & _ATTACHED_PICTURE)


@dataclass
class Damage:
    """How many pieces of a video could not be decoded."""

    parts: int = 0

    def warn(self, path: Path) -> None:
        """Say it once."""
        if self.parts:
            pieces = "one damaged part was" if self.parts == 1 else f"{self.parts} damaged parts were"
            warnings.warn(f"{path}: {pieces} skipped; the last good frame stands in.", RuntimeWarning, stacklevel=2)


def timed_frames(
    container: av.container.InputContainer, stream: av.VideoStream, damage: Damage
) -> Iterator[tuple[Fraction, av.VideoFrame]]:
    """(seconds since the first frame of the video, frame) in order of presentation; damaged parts are counted."""
    beginning = (stream.start_time or 0) * stream.time_base
    period = 1 / (stream.average_rate or stream.guessed_rate or 25)
    time = -period
    for packet in _packets(container, stream, damage):
        try:
            frames = packet.decode()
        except av.error.EOFError:
            return
        except av.error.FFmpegError:
            damage.parts += 1
            continue
        for frame in frames:
            if frame.is_corrupt:
                damage.parts += 1
                continue
            stamp = frame.pts if frame.pts is not None else frame.dts
            time = time + period if stamp is None else stamp * frame.time_base - beginning
            yield time, frame


def packet_times(container: av.container.InputContainer, stream: av.VideoStream, count: int | None) -> list[int | None]:
    """Presentation times (in the stream's time base) of the first `count` packets or all, without decoding."""
    packets = (p for p in _packets(container, stream, Damage()) if p.size)
    return [p.pts if p.pts is not None else p.dts for p in islice(packets, count)]


def _packets(container: av.container.InputContainer, stream: av.VideoStream, damage: Damage) -> Iterator[av.Packet]:
    try:
        yield from container.demux(stream)
    except av.error.FFmpegError:  # the file ends in the middle of something
        damage.parts += 1


def display_size(frame: av.VideoFrame, stream: av.VideoStream) -> tuple[int, int]:
    """(H, W) as a player shows the frame: square pixels, rotation flag applied."""
    width, height = _square_size(frame, stream)
    return (width, height) if orientation(frame)[0] else (height, width)


def orientation(frame: av.VideoFrame) -> tuple[bool, bool, bool]:
    """(transpose, then mirror x, then mirror y) that the display matrix asks for, to the nearest quarter turn."""
    if "DISPLAYMATRIX" not in frame.side_data:
        return False, False, False
    a, b, _, c, d = np.frombuffer(bytes(frame.side_data["DISPLAYMATRIX"]), np.int32)[:5].tolist()
    if abs(b) + abs(c) > abs(a) + abs(d):
        return True, c < 0, b < 0
    return False, a < 0, d < 0


class Developer:
    """Turns decoded frames of one video into uint8 (H, W, 3) RGB of a display size (H, W), the right way up."""

    def __init__(self, size: tuple[int, int], background: Colour = WHITE) -> None:
        self.size = size
        self.background = background
        self._turn: tuple[bool, bool, bool] | None = None

    def __call__(self, frame: av.VideoFrame) -> np.ndarray:
        """uint8 (H, W, 3) RGB of one frame."""
        if self._turn is None:  # once only: a frame whose side data were touched lives until the garbage collector runs
            self._turn = orientation(frame)
        transpose, mirror_x, mirror_y = self._turn
        width, height = self.size if transpose else self.size[::-1]
        alpha = any(component.is_alpha for component in frame.format.components)
        picture = frame.reformat(width, height, "rgba" if alpha else "rgb24", **_colours(frame)).to_ndarray()
        if alpha:
            picture = blend(picture, self.background)
        if transpose:
            picture = picture.swapaxes(0, 1)
        if mirror_x:
            picture = picture[:, ::-1]
        if mirror_y:
            picture = picture[::-1]
        return np.ascontiguousarray(picture)


def _square_size(frame: av.VideoFrame, stream: av.VideoStream) -> tuple[int, int]:
    ratio = stream.sample_aspect_ratio or Fraction(1)
    width = frame.width if not Fraction(1, 8) < ratio < 8 else round(frame.width * ratio)
    return max(width, 1), frame.height


def _colours(frame: av.VideoFrame) -> dict:
    """Arguments for reformat to RGB. `dst_colorspace` means nothing for RGB, but PyAV before 17 ignores the source's
    matrix and range unless the destination's differs."""
    if frame.format.is_rgb or frame.format.name.startswith(("pal", "gray", "mono", "ya")):
        return {}
    matrix = _MATRICES.get(int(frame.colorspace), "ITU709" if frame.height > _HD_HEIGHT else "ITU601")
    full = int(frame.color_range) == _FULL_RANGE or frame.format.name.startswith("yuvj")
    return {
        "src_colorspace": matrix,
        "dst_colorspace": "ITU601" if matrix == "ITU709" else "ITU709",
        "src_color_range": "JPEG" if full else "MPEG",
        "dst_color_range": "JPEG",
    }
