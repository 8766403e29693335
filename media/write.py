"""Videos out: H.264 that plays everywhere, right colours, sound in step, and no long job lost."""

from __future__ import annotations

import contextlib
import errno
import warnings
from fractions import Fraction
from pathlib import Path
from types import TracebackType

import av
import numpy as np

from .files import complete_file, free_name, is_disk_full
from .frame_sampling import exact_rate
from .sound import Sound, join

_CODECS = {  # by suffix, the first that this build of FFmpeg has
    ".mp4": ("libx264", "libopenh264", "mpeg4"),
    ".mov": ("libx264", "libopenh264", "mpeg4"),
    ".mkv": ("libx264", "libopenh264", "mpeg4"),
    ".webm": ("libvpx-vp9",),
}
_BT709 = 1  # FFmpeg's number of the matrix, the primaries and the transfer curve
_LIMITED_RANGE = 1
_THREADS = 4  # x264's choice follows the number of processors, and its output the number of threads
_CRASH_SAFE = {  # short fragments (in microseconds), written at once, can be read before the file is finished
    "movflags": "+frag_keyframe+empty_moov+default_base_moof",
    "frag_duration": "250000",
    "flush_packets": "1",
}


def check_writable(path: str | Path) -> None:
    """Raise what writing a video there would raise at its start: a name without a codec, a folder, no permission."""
    _claim(VideoWriter(path, (2, 2), 1).path).unlink()


def _claim(path: Path) -> Path:
    """An empty file beside `path` for the frames of a job that runs."""
    if path.is_dir():
        raise ValueError(f"{path} is a folder, but a video is to be written there.")
    return free_name(path.with_name(f"{path.stem}.partial.mp4"))


class VideoWriter:
    """Write uint8 (H, W, 3) RGB frames to .mp4, .mov, .mkv (H.264) or .webm (VP9).

        with VideoWriter("out.mp4", (1024, 576), 15, audio_from="dance.mp4", audio_start=2.0) as writer:
            for frame in frames:
                writer.write(frame)

    size:           (H, W) of the frames. Odd sizes get one more row or column of edge pixels, because 4:2:0 video has
                    even sizes only.
    fps:            kept exactly; 29.97 is 30000/1001.
    audio_from:     file whose sound is taken from audio_start (seconds after its first video frame), for
                    audio_duration or the length of the video; copied when the container can hold it, else AAC or Opus.
    quality:        constant rate factor: 0 (lossless) to 51, lower is better.
    keep_partial:   what an exception inside the block, Ctrl-C included, leaves: nothing (False), or a playable
                    `name.partial.mp4` with the frames so far (True), see :attr:`partial_path`.

    Frames are encoded into `name.partial.mp4` first, which stays readable up to its last seconds if the process is
    killed; it becomes the file asked for, with sound and the index in front, when the block ends. When the disk is full
    the partial file is always kept and the error says where it is.
    """

    def __init__(
        self,
        path: str | Path,
        size: tuple[int, int],
        fps: float | Fraction,
        *,
        audio_from: str | Path | None = None,
        audio_start: float = 0.0,
        audio_duration: float | None = None,
        quality: int = 18,
        keep_partial: bool = False,
    ) -> None:
        self.path = Path(path)
        if self.path.suffix.lower() not in _CODECS:
            raise ValueError(f"{path} is no video that can be written: end its name in {', '.join(_CODECS)}.")
        if min(size) < 1 or not 0 <= quality <= 51:
            raise ValueError(f"size is {size} and quality {quality}, but need at least 1x1 pixels and 0 to 51.")
        self.size = (int(size[0]), int(size[1]))
        self.fps = exact_rate(fps)
        self.quality = quality
        self.keep_partial = keep_partial
        self.num_frames = 0
        self.partial_path: Path | None = None
        self._sound = None if audio_from is None else Sound(Path(audio_from), audio_start, audio_duration)
        self._container: av.container.OutputContainer | None = None

    def __enter__(self) -> VideoWriter:
        if self._sound is not None:
            self._sound.check()
        self.partial_path = _claim(self.path)
        self._container = av.open(str(self.partial_path), "w", options=_CRASH_SAFE)
        self._stream = self._add_stream()
        return self

    def write(self, frame: np.ndarray) -> None:
        """Append one frame, uint8 (H, W, 3) RGB of the writer's size."""
        if frame.dtype != np.uint8 or frame.shape != (*self.size, 3):
            raise ValueError(
                f"Frame {self.num_frames} is {frame.dtype} {frame.shape}, but uint8 {(*self.size, 3)} was announced."
            )
        if self._container is None:
            raise ValueError("Frames can be written inside the `with` block of a VideoWriter only.")
        height, width = self.size
        if height % 2 or width % 2:
            frame = np.pad(frame, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
        picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24").reformat(
            format="yuv420p", dst_colorspace="ITU709", src_color_range="JPEG", dst_color_range="MPEG"
        )
        picture.pts, picture.time_base = self.num_frames, 1 / self.fps
        self._encode(picture)
        self.num_frames += 1

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is None:
            self._finish(self.path)
            if not self.num_frames:
                raise ValueError(f"{self.path} was not written: there were no frames.")
        elif isinstance(error, OSError) and is_disk_full(error):
            self._abandon()
        elif self.keep_partial and self.num_frames:
            self._finish(self.partial_path)
        else:
            self._abandon()
            self.partial_path.unlink(missing_ok=True)
            self.partial_path = None

    def _add_stream(self) -> av.VideoStream:
        choices = _CODECS[self.path.suffix.lower()]
        codec = next((name for name in choices if name in av.codecs_available), None)
        if codec is None:
            raise ValueError(
                f"This build of PyAV cannot write {self.path.suffix}: it has none of {', '.join(choices)}."
            )
        if codec == "mpeg4":
            warnings.warn("This build of PyAV has no H.264 encoder; the video is MPEG-4.", RuntimeWarning, stacklevel=3)
        stream = self._container.add_stream(codec, rate=self.fps)
        height, width = self.size
        stream.height, stream.width, stream.pix_fmt = height + height % 2, width + width % 2, "yuv420p"
        context = stream.codec_context
        context.thread_count = _THREADS
        context.time_base = 1 / self.fps
        context.gop_size = max(1, round(2 * self.fps))
        context.color_primaries = context.color_trc = context.colorspace = _BT709
        context.color_range = _LIMITED_RANGE
        if codec in ("libx264", "libvpx-vp9"):
            stream.options = {"crf": str(self.quality), **({"b": "0"} if codec == "libvpx-vp9" else {})}
        else:
            context.bit_rate = int(width * height * self.fps * 0.2)
        return stream

    def _encode(self, picture: av.VideoFrame | None) -> None:
        try:
            self._container.mux(self._stream.encode(picture))
        except (OSError, av.error.FFmpegError) as error:
            self._explain(error)

    def _finish(self, target: Path) -> None:
        """Close the partial file and turn it into `target`."""
        if self.num_frames:
            self._encode(None)
        container, self._container = self._container, None
        try:
            container.close()
            if self.num_frames:
                with complete_file(target) as temporary:
                    join(self.partial_path, temporary, self.num_frames / self.fps, self._sound)
        except (OSError, av.error.FFmpegError) as error:
            self._explain(error)
        if target != self.partial_path:
            self.partial_path.unlink(missing_ok=True)
            self.partial_path = None

    def _abandon(self) -> None:
        container, self._container = self._container, None
        if container is not None:
            with contextlib.suppress(OSError, av.error.FFmpegError):
                container.close()

    def _explain(self, error: Exception) -> None:
        if not is_disk_full(error):
            raise error
        self._abandon()
        raise OSError(
            errno.ENOSPC,
            f"The disk is full: {self.path} was not finished; the frames that fitted are kept in {self.partial_path}, "
            "free some space or write to another disk",
        ) from error
