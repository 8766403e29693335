from __future__ import annotations

import resource
import warnings
from fractions import Fraction

import av
import numpy as np
import pytest
from choreo.media.frame_sampling import exact_rate, published_indices
from choreo.media.video import open_source, probe, read_frames
from PIL import Image

from .make_media import flat, impulses, make_sound, make_video, marks, rotate_by_flag

NTSC = Fraction(30000, 1001)
FAST = {"preset": "ultrafast"}


def patches(height: int = 48, width: int = 64) -> np.ndarray:
    picture = np.zeros((height, width, 3), np.uint8)
    h, w = height // 2, width // 2
    picture[:h, :w], picture[:h, w:], picture[h:, :w], picture[h:, w:] = (
        (200, 30, 30), (30, 200, 30), (30, 30, 200), (200, 200, 30)
    )  # fmt: skip
    return picture


def corners(picture: np.ndarray) -> np.ndarray:
    """The four patches' colours: (2, 2, 3), rows by columns."""
    return picture[:: picture.shape[0] - 1, :: picture.shape[1] - 1].astype(int)


@pytest.mark.parametrize("fps", [24, 25, NTSC, 30, 48, 50, Fraction(60000, 1001), 120, Fraction(15, 2)])
@pytest.mark.parametrize("stride", [1, 2, 3])
def test_constant_rate_takes_exactly_the_published_frames(tmp_path, fps, stride):
    path = make_video(tmp_path / "a.mp4", fps=Fraction(fps), num_frames=11)
    source = open_source(path, stride=stride, published_stride=True)
    indices = list(published_indices(11, fps, stride))
    assert marks(source) == indices == marks(source)
    assert source.num_frames == len(indices)
    assert source.fps == Fraction(fps) / published_indices(11, fps, stride).step
    assert probe(path).num_frames == 11 and probe(path).fps == fps


def test_rates_are_exact():
    assert exact_rate(29.97) == NTSC and exact_rate(23.976) == Fraction(24000, 1001) and exact_rate(12.5) == 12.5
    for rate in (0, -1, 1001, float("nan")):
        with pytest.raises(ValueError, match="frame rate"):
            exact_rate(rate)


def test_variable_rate_keeps_the_speed_of_motion(tmp_path):
    # 30 fps, but frames 3 and 4 stay five periods each: at a constant rate they are repeated.
    times = [Fraction(n, 30) for n in (0, 1, 2, 3, 8, 13, 14, 15, 16)]
    path = make_video(tmp_path / "a.mp4", times)
    assert probe(path).fps == 30
    assert marks(read_frames(path)) == [0, 1, 2] + [3] * 5 + [4] * 5 + [5, 6, 7, 8]
    assert marks(read_frames(path, stride=3)) == [0, 3, 3, 4, 4, 7]
    assert marks(read_frames(path, fps=10)) == [0, 3, 3, 4, 4, 7]


def test_rounded_timestamps_do_not_repeat_or_drop(tmp_path):
    # Matroska has milliseconds only: 33, 67, 100, …
    path = make_video(tmp_path / "a.mkv", fps=NTSC, num_frames=60)
    assert probe(path).fps == NTSC
    assert marks(read_frames(path)) == [n % 12 for n in range(60)]


def test_stream_without_header_or_timestamps(tmp_path):
    path = make_video(tmp_path / "a.h264", fps=25, num_frames=300, options=FAST)
    assert probe(path).num_frames == 300
    assert marks(read_frames(path, stride=2)) == [n % 12 for n in range(0, 300, 2)]


def test_other_rates_drop_and_repeat_evenly(tmp_path):
    path = make_video(tmp_path / "a.mp4", fps=30, num_frames=12)
    assert marks(read_frames(path, fps=60)) == [n // 2 for n in range(24)]
    assert marks(read_frames(path, fps=24)) == [0, 1, 3, 4, 5, 6, 8, 9, 10, 11]
    assert open_source(path, fps=15).fps == 15


@pytest.mark.parametrize("start", [0.0, 0.5, 1.0, 3.0, 3.9])
@pytest.mark.parametrize("suffix", ["mp4", "mkv", "ts"])
def test_start_and_duration(tmp_path, start, suffix):
    # Long groups of pictures with B-frames, so that seeking lands well before the start.
    path = make_video(tmp_path / f"a.{suffix}", fps=10, num_frames=40, options={"g": "25", "bf": "3"})
    first = round(start * 10)
    assert marks(read_frames(path, start)) == [n % 12 for n in range(first, 40)]
    assert marks(read_frames(path, start, 0.3)) == [n % 12 for n in range(first, min(40, first + 3))]
    assert marks(read_frames(path, start, max_frames=1)) == [first % 12]
    source = open_source(path, start, 0.3)
    assert source.num_frames == min(3, 40 - first) and source.audio_start == start


def test_start_behind_the_end(tmp_path):
    path = make_video(tmp_path / "a.mp4")
    with pytest.raises(ValueError, match=r"start is 9 s, but .*a.mp4 is only 0.40 s long"):
        open_source(path, start=9)
    for wrong in ({"start": -1}, {"duration": 0}, {"stride": 0}, {"max_frames": 0}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            open_source(path, **wrong)


# (a, b, c, d) of the display matrix, and what happens to the picture
TURNS = {
    "clockwise": ((0, 1, -1, 0), lambda a: np.rot90(a, -1)),
    "half": ((-1, 0, 0, -1), lambda a: np.rot90(a, 2)),
    "anticlockwise": ((0, -1, 1, 0), lambda a: np.rot90(a, 1)),
    "mirror": ((-1, 0, 0, 1), lambda a: a[:, ::-1]),
    "upside down": ((1, 0, 0, -1), lambda a: a[::-1]),
}


@pytest.mark.parametrize("turn", TURNS)
def test_rotation_flag(tmp_path, turn):
    matrix, expected = TURNS[turn]
    path = rotate_by_flag(make_video(tmp_path / "a.mp4", picture=lambda _: patches(), num_frames=2), matrix)
    picture, wanted = next(read_frames(path)), expected(patches())
    info = probe(path)
    assert picture.shape == wanted.shape == (info.height, info.width, 3)
    assert picture.flags.c_contiguous
    assert np.abs(corners(picture) - corners(wanted)).max() <= 4


@pytest.mark.parametrize("pix_fmt", ["yuv420p", "yuv444p", "yuv420p10le"])
@pytest.mark.parametrize(("matrix", "full_range"), [(1, False), (1, True), (6, False), (6, True), (None, False)])
def test_colour_matrix_range_and_depth(tmp_path, pix_fmt, matrix, full_range):
    path = make_video(
        tmp_path / "a.mp4",
        picture=lambda _: patches(),
        num_frames=2,
        pix_fmt=pix_fmt,
        full_range=full_range,
        matrix=matrix,
    )
    assert np.abs(corners(next(read_frames(path))) - corners(patches())).max() <= 4


def test_odd_size(tmp_path):
    path = make_video(tmp_path / "a.mkv", picture=lambda _: patches(37, 51), codec="ffv1", pix_fmt="yuv420p", matrix=6)
    picture = next(read_frames(path))
    assert picture.shape == (37, 51, 3)
    inside = slice(4, -4)  # older FFmpeg leaves the colour of an odd last column open when this file is made
    assert np.abs(corners(picture[inside, inside]) - corners(patches(37, 51))).max() <= 4


def test_alpha_is_laid_over_the_background(tmp_path):
    def half_clear(_):
        return np.dstack(
            [patches(), np.where(np.arange(64) < 32, 255, 0).astype(np.uint8) * np.ones((48, 1), np.uint8)]
        )

    path = make_video(tmp_path / "a.mov", picture=half_clear, codec="png", pix_fmt="rgba", num_frames=2, matrix=None)
    picture = next(read_frames(path, background=(1, 2, 3)))
    assert corners(picture)[:, 0].tolist() == [[200, 30, 30], [30, 30, 200]]
    assert corners(picture)[:, 1].tolist() == [[1, 2, 3]] * 2


def test_pixel_aspect_is_made_square(tmp_path):
    path = make_video(tmp_path / "a.mp4", num_frames=2, options={"x264-params": "sar=2/1"})
    assert probe(path).width == 128 and next(read_frames(path)).shape == (48, 128, 3)


def test_damaged_part_is_skipped_with_one_warning(tmp_path):
    noise = np.kron(np.random.default_rng(0).integers(0, 256, (6, 8), np.uint8), np.ones((8, 8), np.uint8))
    path = make_video(
        tmp_path / "a.mp4",
        num_frames=40,
        picture=lambda n: np.roll(noise, n, 1)[..., None].repeat(3, 2),
        options={"g": "10", "bf": "0"},
    )
    whole = list(read_frames(path))
    data = bytearray(path.read_bytes())
    with av.open(str(path)) as container:
        hit = [packet.pos for packet in container.demux(video=0)][23]
    data[hit + 4 : hit + 16] = b"\xff" * 12
    path.write_bytes(data)
    with pytest.warns(RuntimeWarning, match="damaged part was skipped") as caught:
        frames = list(read_frames(path))
    assert len(caught) == 1
    same = [np.array_equal(a, b) for a, b in zip(frames, whole, strict=True)]
    assert all(same[:23]) and all(same[30:]) and not same[23]
    assert np.array_equal(frames[23], whole[22])


def test_truncated_video_gives_what_is_there_and_says_so(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (60, 48, 64, 3), np.uint8)
    path = make_video(tmp_path / "a.mp4", num_frames=60, picture=lambda n: noise[n])
    data = path.read_bytes()
    (tmp_path / "no_index.mp4").write_bytes(data[: len(data) // 2])
    with pytest.raises(ValueError, match=r"no_index.mp4 is not a video .* cut off") as caught:
        read_frames(tmp_path / "no_index.mp4")
    assert "\n" not in str(caught.value)
    path = make_video(tmp_path / "b.mkv", num_frames=60, picture=lambda n: noise[n])
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    with pytest.warns(RuntimeWarning, match=r"ends after .* its header promises 2.00 s"):
        assert 10 < len(list(read_frames(path))) < 50


def test_bad_files_give_one_sentence(tmp_path):
    (tmp_path / "text.mp4").write_text("hello " * 50)
    (tmp_path / "empty.mp4").touch()
    make_sound(tmp_path / "song.m4a", impulses(0.5, [0.1]))
    make_video(tmp_path / "no_frames.mp4", [], sound=impulses(0.5, [0.1]))
    (tmp_path / "hollow").mkdir()
    (tmp_path / "hollow" / "notes.txt").touch()
    for name, reason in {
        "text.mp4": "not a video",
        "empty.mp4": "0 bytes",
        "song.m4a": "no video stream .only sound",
        "no_frames.mp4": "no video stream|no frames",
        "hollow": "no pictures",
    }.items():
        with pytest.raises(ValueError, match=reason) as caught:
            open_source(tmp_path / name)
        assert name in str(caught.value) and "\n" not in str(caught.value)
    with pytest.raises(FileNotFoundError, match=r"nothing.mp4 does not exist"):
        open_source(tmp_path / "nothing.mp4")
    with pytest.raises(FileNotFoundError, match=r"nothing.mp4 does not exist"):
        probe(tmp_path / "nothing.mp4")


def test_audio_is_found(tmp_path):
    path = make_video(tmp_path / "a.mp4", sound=impulses(0.4, [0.1]))
    assert probe(path).has_audio and open_source(path).audio_path == path
    silent = make_video(tmp_path / "b.mp4")
    assert not probe(silent).has_audio and open_source(silent).audio_path is None


def test_memory_is_flat_in_length(tmp_path):
    def gradient(index):
        return np.broadcast_to(((np.arange(640) + 7 * index) % 256).astype(np.uint8)[:, None], (480, 640, 3)).copy()

    def growth(frames: int) -> int:
        """Kilobytes the process grows by while it reads."""
        path = make_video(tmp_path / f"{frames}.mp4", num_frames=frames, picture=gradient, options=FAST)
        list(read_frames(path, max_frames=20))
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        assert sum(1 for _ in read_frames(path)) == frames
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before

    assert growth(300) - growth(30) < 30_000  # 270 frames of 640x480 would be 250 MB


def test_folder_in_natural_order(tmp_path):
    for number in (10, 2, 1):
        Image.fromarray(flat(number)).save(tmp_path / f"frame_{number}.png")
    (tmp_path / "notes.txt").touch()
    (tmp_path / ".hidden.png").touch()
    source = open_source(tmp_path)
    assert marks(source) == [1, 2, 10] and source.num_frames == 3
    assert (source.kind, source.size, source.fps, source.audio_path) == ("pictures", (48, 64), None, None)
    assert marks(open_source(tmp_path, stride=2)) == [1, 10]
    assert marks(open_source(tmp_path, start=0.5, fps=2)) == [2, 10]
    with pytest.raises(ValueError, match="no frame rate"):
        open_source(tmp_path, start=1)


def test_folder_of_several_sizes_names_the_file(tmp_path):
    Image.fromarray(flat(0)).save(tmp_path / "1.png")
    Image.fromarray(flat(1, (48, 66))).save(tmp_path / "2.png")
    with pytest.raises(ValueError, match=r"2.png is 66x48, but 1.png is 64x48"):
        open_source(tmp_path)


@pytest.mark.parametrize("suffix", ["gif", "webp", "png"])
def test_animated_pictures_play_by_their_delays(tmp_path, suffix):
    frames = [Image.fromarray(flat(n)) for n in range(4)]
    options = {"lossless": True} if suffix == "webp" else {}
    path = tmp_path / f"a.{suffix}"
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=[50, 50, 150, 50], loop=0, **options)
    source = open_source(path)
    assert (source.kind, source.size, source.fps, source.num_frames) == ("animation", (48, 64), 20, 6)
    assert marks(source) == [0, 1, 2, 2, 2, 3] == marks(source)


def test_one_picture_is_a_clip_of_one_frame(tmp_path):
    Image.fromarray(flat(5)).save(tmp_path / "a.jpg")
    source = open_source(tmp_path / "a.jpg")
    assert (source.kind, source.num_frames, source.fps) == ("picture", 1, None) and marks(source) == [5]


def test_healthy_video_gives_no_warning(tmp_path):
    path = make_video(tmp_path / "a.mp4", num_frames=40, sound=impulses(1.3, [0.1]), options={"bf": "3"})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(list(read_frames(path))) == 40
