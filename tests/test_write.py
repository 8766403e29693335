from __future__ import annotations

import errno
import os
import resource
import subprocess
import sys
import warnings
from fractions import Fraction

import av
import numpy as np
import pytest
from choreo.media import write
from choreo.media.video import open_source, probe, read_frames
from choreo.media.write import VideoWriter

from .make_media import flat, impulses, make_sound, make_video, marks, read_sound
from .test_video import corners, patches

NTSC = Fraction(30000, 1001)


def write_video(path, fps=30, num_frames=12, **options):
    with VideoWriter(path, (48, 64), fps, **options) as writer:
        for index in range(num_frames):
            writer.write(flat(index))
    return path


def bursts(path) -> list[float]:
    """Seconds at which the sound of a file becomes loud."""
    samples, first, rate = read_sound(path)
    loud = np.flatnonzero(np.abs(samples).max(axis=0) > 0.3)
    begins = loud[np.diff(loud, prepend=-rate) > rate // 20]
    return [first + begin / rate for begin in begins]


@pytest.mark.parametrize("fps", [7, 15, NTSC, 29.97, 60, 12.5])
def test_rate_and_frames_survive(tmp_path, fps):
    path = write_video(tmp_path / "new" / "a.mp4", fps, 25)
    info = probe(path)
    assert info.fps == (NTSC if fps == 29.97 else Fraction(fps)) and info.num_frames == 25
    assert marks(read_frames(path)) == [n % 12 for n in range(25)]
    assert [p.name for p in path.parent.iterdir()] == ["a.mp4"]


@pytest.mark.parametrize("suffix", ["mp4", "mov", "mkv", "webm"])
@pytest.mark.parametrize("size", [(48, 64), (47, 63), (1, 1)])
def test_colours_survive_in_every_container_and_odd_sizes_are_padded(tmp_path, suffix, size):
    picture = patches(*size) if min(size) > 1 else np.full((1, 1, 3), (200, 100, 50), np.uint8)
    with VideoWriter(tmp_path / f"a.{suffix}", size, 15, quality=8) as writer:
        for _ in range(3):
            writer.write(picture)
    frames = list(read_frames(tmp_path / f"a.{suffix}"))
    even = (size[0] + size[0] % 2, size[1] + size[1] % 2)
    assert len(frames) == 3 and frames[0].shape == (*even, 3)
    assert np.abs(corners(frames[0]) - corners(np.pad(picture, ((0, 1), (0, 1), (0, 0)), "edge"))).max() <= 5


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="the system cannot hold a process to one processor")
@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_the_number_of_processors_does_not_change_a_byte(tmp_path, suffix):
    noise = np.random.default_rng(0).integers(0, 256, (12, 256, 256, 3), dtype=np.uint8)

    def written(name):
        with VideoWriter(tmp_path / f"{name}.{suffix}", noise.shape[1:3], 15) as writer:
            for frame in noise:
                writer.write(frame)
        return (tmp_path / f"{name}.{suffix}").read_bytes()

    allowed = os.sched_getaffinity(0)
    if len(allowed) < 2:
        pytest.skip("there is one processor only")
    several = written("several")
    os.sched_setaffinity(0, {min(allowed)})
    try:
        assert written("one") == several
    finally:
        os.sched_setaffinity(0, allowed)


def test_file_is_what_players_expect(tmp_path):
    path = write_video(tmp_path / "a.mp4")
    data = path.read_bytes()
    assert 0 < data.index(b"moov") < data.index(b"mdat")  # the index in front: plays while it loads
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        context = stream.codec_context
        assert (context.name, context.pix_fmt, stream.start_time) == ("h264", "yuv420p", 0)
        tags = (context.colorspace, context.color_primaries, context.color_trc, context.color_range)
        assert [int(tag) for tag in tags] == [1, 1, 1, 1]


SECONDS = 4
FLASHES = (1.0, 2.52, 3.2)


@pytest.mark.parametrize("start", [0.0, 0.62, 2.3])
@pytest.mark.parametrize(
    ("suffix", "sound"),
    [
        ("mp4", ("aac", 2, 48000)),
        ("ts", ("aac", 2, 44100)),
        ("mp4", ("mp3", 1, 44100)),
        ("mkv", ("pcm_s16le", 1, 11025)),
    ],
)
def test_sound_is_in_step_with_the_pictures(tmp_path, suffix, sound, start):
    codec, channels, rate = sound

    def flash(index):
        return np.full((48, 64, 3), 255 if index in {round(t * 25) for t in FLASHES} else 0, np.uint8)

    driving = make_video(
        tmp_path / f"driving.{suffix}",
        fps=25,
        num_frames=SECONDS * 25,
        picture=flash,
        sound=impulses(SECONDS, FLASHES, rate, channels),
        sound_codec=codec,
        rate=rate,
        options={"bf": "3"},
    )
    source = open_source(driving, start, stride=1)
    out = tmp_path / "out.mp4"
    with VideoWriter(
        out, source.size, source.fps, audio_from=source.audio_path, audio_start=source.audio_start
    ) as writer:
        for frame in source:
            writer.write(frame)
    bright = [n / 25 for n, frame in enumerate(read_frames(out)) if frame.mean() > 128]
    heard = [time for time in bursts(out) if time >= 0]
    assert len(bright) == len(heard) == sum(time >= start for time in FLASHES)
    np.testing.assert_allclose(heard, bright, atol=0.001)
    samples, first, rate = read_sound(out)
    assert len(samples) == channels
    assert abs(first + samples.shape[1] / rate - writer.num_frames / 25) < 0.03


def test_sound_is_cut_to_a_shorter_video_and_to_its_own_duration(tmp_path):
    sound = make_sound(tmp_path / "song.m4a", impulses(3, [0.5, 1.0, 2.0]))
    out = write_video(tmp_path / "a.mp4", 10, 12, audio_from=sound)
    np.testing.assert_allclose(bursts(out), [0.5, 1.0], atol=0.002)
    out = write_video(tmp_path / "b.mp4", 10, 12, audio_from=sound, audio_start=0.4, audio_duration=0.3)
    np.testing.assert_allclose([t for t in bursts(out) if t > 0], [0.1], atol=0.002)
    out = write_video(tmp_path / "c.mp4", 10, 60, audio_from=sound)  # the pictures go on in silence
    assert probe(out).num_frames == 60 and len(bursts(out)) == 3


def test_sound_that_is_in_step_stays_copied(tmp_path):
    sound = make_sound(tmp_path / "song.m4a", impulses(1, [0.5]))
    out = write_video(tmp_path / "a.mp4", 10, 12, audio_from=sound)
    with av.open(str(sound)) as one, av.open(str(out)) as two:
        originals = [bytes(p) for p in one.demux(audio=0) if p.size]
        assert [bytes(p) for p in two.demux(audio=0) if p.size] == originals


def test_missing_sound_is_said_before_the_work(tmp_path):
    silent = make_video(tmp_path / "silent.mp4")
    with pytest.raises(ValueError, match=r"silent.mp4 has no sound"):
        write_video(tmp_path / "a.mp4", audio_from=silent)
    with pytest.raises(FileNotFoundError, match=r"nothing.mp4 does not exist"):
        write_video(tmp_path / "a.mp4", audio_from=tmp_path / "nothing.mp4")
    assert [p.name for p in tmp_path.iterdir()] == ["silent.mp4"]


def test_sound_lost_on_the_way_leaves_a_silent_video(tmp_path):
    sound = make_sound(tmp_path / "song.m4a", impulses(1, [0.5]))
    with (
        pytest.warns(RuntimeWarning, match=r"video is silent: .*song.m4a"),
        VideoWriter(tmp_path / "a.mp4", (48, 64), 10, audio_from=sound) as writer,
    ):
        writer.write(flat(0))
        sound.unlink()
    assert len(list(read_frames(tmp_path / "a.mp4"))) == 1 and not probe(tmp_path / "a.mp4").has_audio


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_exception_leaves_nothing_half(tmp_path, error):
    old = write_video(tmp_path / "a.mp4", num_frames=3).read_bytes()
    with pytest.raises(error), VideoWriter(tmp_path / "a.mp4", (48, 64), 30) as writer:
        writer.write(flat(0))
        raise error
    assert [p.name for p in tmp_path.iterdir()] == ["a.mp4"] and (tmp_path / "a.mp4").read_bytes() == old


def test_interrupted_job_keeps_its_frames_when_asked(tmp_path):
    sound = make_sound(tmp_path / "song.m4a", impulses(1, [0.2]))
    for name in ("a.partial.mp4", "a.partial-2.mp4"):  # a second try does not overwrite the first
        with (
            pytest.raises(KeyboardInterrupt),
            VideoWriter(tmp_path / "a.mp4", (48, 64), 10, audio_from=sound, keep_partial=True) as writer,
        ):
            for index in range(7):
                writer.write(flat(index))
            raise KeyboardInterrupt
        assert writer.partial_path == tmp_path / name
        assert marks(read_frames(writer.partial_path)) == list(range(7))
        assert len(bursts(writer.partial_path)) == 1
    assert not (tmp_path / "a.mp4").exists()


def test_killed_process_leaves_a_readable_file(tmp_path):
    script = f"""
import os, numpy as np
from choreo.media.write import VideoWriter
writer = VideoWriter({str(tmp_path / "a.mp4")!r}, (48, 64), 30).__enter__()
for index in range(300):
    writer.write(np.full((48, 64, 3), index % 256, np.uint8))
os._exit(1)
"""
    subprocess.run([sys.executable, "-c", script], check=False, timeout=60)
    assert len(list(read_frames(tmp_path / "a.partial.mp4"))) >= 300 - 120  # but for the encoder's look-ahead and 1 s


def test_full_disk_keeps_the_frames_and_says_where(tmp_path):
    """A real limit: this process may not write files above 100 kB for a moment."""
    noise = np.random.default_rng(0)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        with pytest.raises(
            OSError, match=r"disk is full: .*a.mp4 .* that fitted are kept in .*a.partial.mp4"
        ) as caught:
            resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
            with VideoWriter(tmp_path / "a.mp4", (48, 64), 30, quality=0) as writer:
                for _ in range(300):
                    writer.write(noise.integers(0, 256, (48, 64, 3), np.uint8))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert caught.value.errno == errno.ENOSPC
    assert [p.name for p in tmp_path.iterdir()] == ["a.partial.mp4"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # the last frame may be cut
        assert len(list(read_frames(tmp_path / "a.partial.mp4"))) >= 5


def test_disk_that_fills_at_the_very_end_keeps_everything(tmp_path, monkeypatch):
    def full(*_arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(write, "join", full)
    with pytest.raises(OSError, match="disk is full"):
        write_video(tmp_path / "a.mp4")
    assert marks(read_frames(tmp_path / "a.partial.mp4")) == list(range(12))


def test_wrong_use_is_explained(tmp_path):
    with pytest.raises(ValueError, match="end its name in"):
        VideoWriter(tmp_path / "a.xyz", (48, 64), 30)
    with pytest.raises(ValueError, match="size is"):
        VideoWriter(tmp_path / "a.mp4", (0, 64), 30)
    with pytest.raises(ValueError, match="there were no frames"):
        write_video(tmp_path / "a.mp4", num_frames=0)
    with pytest.raises(ValueError, match="Frame 0 is uint8"), VideoWriter(tmp_path / "a.mp4", (48, 64), 30) as writer:
        writer.write(flat(0, (48, 66)))
    with pytest.raises(ValueError, match="Frame 0 is float64"), VideoWriter(tmp_path / "a.mp4", (48, 64), 30) as writer:
        writer.write(flat(0) / 255)
    with pytest.raises(ValueError, match="inside the `with` block"):
        VideoWriter(tmp_path / "a.mp4", (48, 64), 30).write(flat(0))
    assert list(tmp_path.iterdir()) == []


def test_without_h264_the_video_is_mpeg4(tmp_path, monkeypatch):
    monkeypatch.setattr(av, "codecs_available", av.codecs_available - {"libx264", "libopenh264"})
    with pytest.warns(RuntimeWarning, match=r"no H.264"):
        path = write_video(tmp_path / "a.mp4", NTSC)
    assert marks(read_frames(path)) == list(range(12))
    with av.open(str(path)) as container:
        assert container.streams.video[0].codec_context.name == "mpeg4"


def test_input_frames_are_not_changed(tmp_path):
    frame = patches(47, 63)
    frame.flags.writeable = False
    with VideoWriter(tmp_path / "a.mp4", (47, 63), 30) as writer:
        writer.write(frame)
        writer.write(frame[:, ::-1])
    np.testing.assert_array_equal(frame, patches(47, 63))


def test_memory_is_flat_in_length(tmp_path):
    picture = np.random.default_rng(0).integers(0, 256, (480, 640, 3), np.uint8)

    def growth(frames: int) -> int:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        with VideoWriter(tmp_path / "a.mp4", (480, 640), 30, quality=45) as writer:
            for index in range(frames):
                writer.write(np.roll(picture, index, axis=1))
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before

    growth(60)  # fills the encoder's look-ahead
    assert growth(200) < 40_000  # 140 frames of 640x480 would be 130 MB
