from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from choreo.benchmarks.random_poses import likely_frame
from choreo.media.pictures import load_picture
from choreo.pose.draw import Renderer
from choreo.pose.skeletons import channel_order, fit_picture, prepare_skeletons, with_pose_zero
from choreo.pose.styles import STYLES

SAMPLES = Path(__file__).parents[1] / ".." / "shared" / "samples" / "pose_sequence"
SIZE = (512, 288)


def drawings(style: str, count: int = 5, **parts: bool) -> list[np.ndarray]:
    random = np.random.default_rng(7)
    renderer = Renderer(style, SIZE, **parts)
    return [renderer.draw(*likely_frame(random)) for _ in range(count)]


@pytest.mark.parametrize("parts", [{}, {"hands": False}, {"hands": False, "face": False}], ids=str)
@pytest.mark.parametrize("style", STYLES)
def test_channel_order_is_told_with_and_without_hands(style, parts):
    pictures = drawings(style, **parts)
    order = STYLES[style].channel_order
    other = {"straight": "reversed", "reversed": "straight"}[order]
    assert channel_order(pictures) == order
    assert channel_order([picture[..., ::-1] for picture in pictures]) == other


@pytest.mark.parametrize("rows", [170, 260])
@pytest.mark.parametrize("parts", [{}, {"hands": False}], ids=str)
def test_channel_order_of_an_upper_body(parts, rows):
    pictures = [picture[:rows] for picture in drawings("classic", **parts)]
    assert channel_order(pictures) == "straight"
    assert channel_order([picture[..., ::-1] for picture in pictures]) == "reversed"


def test_channel_order_of_a_grey_or_black_picture_is_unknown():
    grey = np.repeat(drawings("classic", 1)[0].max(axis=-1, keepdims=True), 3, axis=-1)
    assert channel_order([grey, np.zeros_like(grey)]) == "unknown"
    result = prepare_skeletons([grey], SIZE, "mimicmotion")
    assert not result.swapped
    assert "cannot be told" in result.note
    np.testing.assert_array_equal(next(result.frames), grey)


@pytest.mark.parametrize(("style", "swapped"), [("mimicmotion", True), ("stableanimator", False), ("classic", False)])
def test_pictures_are_swapped_when_the_style_needs_it(style, swapped):
    pictures = drawings("classic", 20)  # more than are looked at
    result = prepare_skeletons(iter(pictures), SIZE, style)
    assert (result.found, result.swapped) == ("straight", swapped)
    assert "straight" in result.note
    expected = [picture[..., ::-1] if swapped else picture for picture in pictures]
    frames = list(result.frames)
    assert len(frames) == 20
    np.testing.assert_array_equal(frames, expected)


def test_a_given_order_is_believed():
    pictures = drawings("classic", 1)
    result = prepare_skeletons(pictures, SIZE, "mimicmotion", order="reversed")
    assert (result.found, result.swapped) == ("reversed", False)


def test_pictures_are_read_as_they_are_used():
    read = []

    def endless():
        while True:
            read.append(1)
            yield np.zeros((8, 8, 3), np.uint8)

    frames = prepare_skeletons(endless(), (8, 8), "classic", order="straight").frames
    for _ in range(40):
        next(frames)
    assert len(read) <= 40


def block(height: int, width: int) -> np.ndarray:
    """A white frame inside the border of a black picture, to see what is cut and padded."""
    picture = np.zeros((height, width, 3), np.uint8)
    picture[4:-4, 4:-4] = 255
    return picture


@pytest.mark.parametrize("mode", ["auto", "letterbox"])
def test_letterbox_keeps_ratio_and_all_of_the_figure(mode):
    fitted = fit_picture(block(100, 50), (100, 100), mode)
    columns = np.flatnonzero(fitted[50, :, 0])
    assert (columns.min(), columns.max()) == (29, 70)
    np.testing.assert_array_equal(fitted[:, 25:75], block(100, 50))


def test_cover_keeps_ratio_and_fills():
    fitted = fit_picture(block(100, 50), (50, 50), "cover")
    np.testing.assert_array_equal(fitted, block(100, 50)[25:75])


def test_nearly_equal_ratios_are_resized_as_they_are():
    fitted = fit_picture(np.full((1080, 604, 3), 200, np.uint8), (1024, 576))
    assert (fitted == 200).all()
    assert (fit_picture(np.full((100, 50, 3), 200, np.uint8), (64, 64), "stretch") == 200).all()


def test_one_pixel_pictures_and_targets():
    assert (fit_picture(np.full((1, 1, 3), 9, np.uint8), (4, 4)) == 9).all()
    assert fit_picture(np.full((100, 1, 3), 9, np.uint8), (4, 4), "letterbox").shape == (4, 4, 3)
    assert fit_picture(block(100, 50), (1, 1)).shape == (1, 1, 3)


def test_lines_of_one_pixel_survive_shrinking():
    picture = np.zeros((1024, 576, 3), np.uint8)
    picture[:, 301] = 255
    assert (fit_picture(picture, (256, 144))[:, 70:80].max(axis=1) > 40).all()


def test_fitting_returns_fresh_pictures():
    picture = block(20, 20)
    fitted = fit_picture(picture, (20, 20))
    fitted[:] = 0
    assert picture.any()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"pictures": []}, "No skeleton pictures"),
        ({"order": "bgr"}, "straight, reversed"),
        ({"fit": "squash"}, "letterbox"),
        ({"style": "nobody's"}, "mimicmotion"),
    ],
    ids=str,
)
def test_wrong_arguments_are_explained(arguments, message):
    given = {"pictures": [block(20, 20)], "size": (8, 8), "style": "classic"} | arguments
    with pytest.raises(ValueError, match=message):
        prepare_skeletons(**given)


@pytest.mark.parametrize("picture", [np.zeros((8, 8), np.uint8), np.zeros((8, 8, 3)), np.zeros((0, 8, 3), np.uint8)])
def test_wrong_pictures_are_explained(picture):
    with pytest.raises(ValueError, match="uint8"):
        fit_picture(picture, (8, 8))


def test_pose_zero():
    clip = [np.full((2, 2, 3), value, np.uint8) for value in (1, 2, 3)]
    given, detected = np.full((2, 2, 3), 8, np.uint8), np.full((2, 2, 3), 9, np.uint8)

    def values(*arguments):
        frames, source = with_pose_zero(*arguments)
        return [int(frame[0, 0, 0]) for frame in frames], source

    assert values(clip, given, detected) == ([8, 1, 2, 3], "given")
    assert values(iter(clip), None, detected) == ([9, 1, 2, 3], "detected")
    assert values(iter(clip)) == ([1, 1, 2, 3], "first skeleton")
    with pytest.raises(ValueError, match="No skeleton"):
        with_pose_zero([])


@pytest.mark.skipif(not SAMPLES.is_dir(), reason=f"no sample skeletons in {SAMPLES}")
def test_sample_sequence_is_straight():
    pictures = [load_picture(path) for path in sorted(SAMPLES.glob("*.png"))[:16]]
    result = prepare_skeletons(pictures, (1024, 576), "mimicmotion")
    assert (result.found, result.swapped) == ("straight", True)
    first = next(result.frames)
    assert first.shape == (1024, 576, 3)
    red = (first[..., 0] > 200) & (first[..., 2] < 60) & (first[..., 1] < 60)
    assert red.sum() > 500  # hand dots
