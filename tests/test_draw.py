from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest
from choreo.benchmarks.drawing import run as run_benchmark
from choreo.benchmarks.published_drawing import draw_published
from choreo.benchmarks.random_poses import likely_frame, random_frame
from choreo.pose.canvas import Canvas
from choreo.pose.draw import Renderer, draw_clip, overlay
from choreo.pose.poses import FACE, LEFT_HAND, RIGHT_HAND, Poses
from choreo.pose.published_sizes import draw_moore, moore_size, resize_controlnet_aux
from choreo.pose.styles import HAND_EDGES, STYLES, find_style

SIZE = (256, 160)


def likely(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    return likely_frame(np.random.default_rng(seed))


# 15:4 (cropped shrink), another orientation, 135:34 and 27:4 x odd sides (whole shrink), square, larger than 2160
@pytest.mark.parametrize(
    "size",
    [(1024, 576), (576, 1024), (1000, 544), (437, 320), (512, 512), (2200, 2400)],
    ids=lambda s: f"{s[0]}x{s[1]}",
)
def test_mimicmotion_pixels_equal_the_published_order_of_work(size):
    random = np.random.default_rng(sum(size))
    renderer = Renderer(
        "mimicmotion", size, published=True
    )  # one renderer for all frames: nothing may leak from frame to frame
    for people in (1, 3, 2):
        points, scores = random_frame(random, people)
        np.testing.assert_array_equal(renderer.draw(points, scores), draw_published(points, scores, size))


def test_limbs_of_small_pictures_stay_whole():
    points, scores = likely()
    for size in ((128, 128), (160, 96), (383, 640)):
        drawn = {flag: Renderer("mimicmotion", size, published=flag).draw(points, scores) for flag in (False, True)}
        lit = {flag: (picture.max(axis=-1) > 0).mean() for flag, picture in drawn.items()}
        assert lit[False] > 1.3 * lit[True]
    published = Renderer("mimicmotion", (384, 640), published=True).draw(points, scores)
    np.testing.assert_array_equal(Renderer("mimicmotion", (384, 640)).draw(points, scores), published)


def test_other_canvas_sizes_equal_the_published_way():
    random = np.random.default_rng(5)
    for ref_w in (100, 160, 320, 333, 400):  # enlarged, native, and shrunk by whole and broken ratios
        style = replace(STYLES["mimicmotion"], canvas_short_side=ref_w)
        points, scores = random_frame(random, 2)
        expected = draw_published(points, scores, SIZE, ref_w)
        np.testing.assert_array_equal(Renderer(style, SIZE).draw(points, scores), expected)


def test_score_exactly_at_the_threshold():
    points, scores = likely()
    scores[0, 4] = 0.3
    hidden = scores.copy()
    hidden[0, 4] = 0
    ours = Renderer("mimicmotion", SIZE, hands=False).draw(points, scores)
    np.testing.assert_array_equal(ours, Renderer("mimicmotion", SIZE, hands=False).draw(points, hidden))
    published = Renderer("mimicmotion", SIZE, published=True).draw(points, scores)
    np.testing.assert_array_equal(published, draw_published(points, scores, SIZE))
    assert (published != Renderer("mimicmotion", SIZE).draw(points, scores)).any()


def test_stableanimator_is_mimicmotion_with_straight_channels():
    frame = likely()
    reversed_order = Renderer("mimicmotion", SIZE).draw(*frame)
    np.testing.assert_array_equal(Renderer("stableanimator", SIZE).draw(*frame), reversed_order[..., ::-1])


@pytest.mark.parametrize("style", STYLES)
def test_nothing_leaks_between_frames(style):
    renderer = Renderer(style, SIZE)
    first = renderer.draw(*likely(1))
    copy = first.copy()
    assert first.any()
    second = renderer.draw(*likely(2))
    np.testing.assert_array_equal(second, Renderer(style, SIZE).draw(*likely(2)))
    np.testing.assert_array_equal(first, copy)
    second[:] = 99  # the caller's own
    np.testing.assert_array_equal(renderer.draw(*likely(1)), copy)
    assert not renderer.draw(np.zeros((0, 134, 2)), np.zeros((0, 134))).any()


@pytest.mark.parametrize("style", STYLES)
def test_inputs_stay_and_runaway_values_are_skipped(style):
    points, scores = likely()
    points[0, 3], points[0, 30], points[0, 100] = np.nan, 1e300, (-np.inf, 0.5)
    scores[0, 10] = np.nan
    before = points.copy(), scores.copy()
    drawing = Renderer(style, SIZE).draw(points, scores)
    assert drawing.any()
    np.testing.assert_array_equal(points, before[0])
    np.testing.assert_array_equal(scores, before[1])
    hidden = scores.copy()
    hidden[0, [3, 10, 30, 100]] = 0
    seen = np.where(np.isfinite(points), points, 0)
    expected = Renderer(style, SIZE, hands=False, face=False).draw(seen, hidden)
    np.testing.assert_array_equal(Renderer(style, SIZE, hands=False, face=False).draw(points, scores), expected)


def test_switches_draw_only_their_part():
    points, _ = likely()
    scores = np.ones((1, 134))
    apart = {part: np.zeros((1, 134)) for part in ("body", "hands", "face")}
    apart["body"][:, :18], apart["hands"][:, 92:], apart["face"][:, FACE] = 1, 1, 1
    for part, only in apart.items():
        shown = {name: name == part for name in apart}
        drawing = Renderer("classic", SIZE, **shown).draw(points, scores)
        assert drawing.any()
        np.testing.assert_array_equal(drawing, Renderer("classic", SIZE).draw(points, only))
    assert not Renderer("classic", SIZE, body=False, hands=False, face=False).draw(points, scores).any()


def test_low_hand_points_are_hidden_in_classic_and_dark_in_mimicmotion():
    points = np.full((1, 134, 2), 0.5)
    scores = np.zeros((1, 134))
    scores[0, LEFT_HAND] = 0.29
    assert not Renderer("classic", SIZE, face=False).draw(points, scores).any()
    points[:, RIGHT_HAND] = 0.9  # no score at all: black dots
    native = replace(STYLES["stableanimator"], canvas_short_side=None)
    assert Renderer(native, SIZE, face=False).draw(points, scores).max() == int(0.29 * 255)
    scores[0, LEFT_HAND] = 0.3
    assert Renderer("classic", SIZE, face=False).draw(points, scores).max() == 255


@pytest.mark.parametrize(("style", "drawn"), [("classic", False), ("controlnet_aux", True)])
def test_body_joints_at_the_threshold(style, drawn):
    scores = np.zeros((1, 134))
    scores[0, 0] = 0.3
    assert Renderer(style, SIZE).draw(np.full((1, 134, 2), 0.5), scores).any() == drawn


def test_people_cover_one_another_as_a_whole_in_controlnet_aux():
    one, two = likely(1), likely(2)
    both = np.concatenate([one[0], two[0]]), np.ones((2, 134))
    over = Renderer("controlnet_aux", SIZE).draw(*both)
    last = Renderer("controlnet_aux", SIZE).draw(both[0][1:], both[1][1:])
    np.testing.assert_array_equal(over[last.any(axis=-1)], last[last.any(axis=-1)])
    classic = Renderer("classic", SIZE).draw(*both)
    assert (classic[last.any(axis=-1)] != last[last.any(axis=-1)]).any()


def test_units():
    points, scores = likely()
    points = np.round(points * SIZE[::-1]) / SIZE[::-1] + 1e-9
    renderer = Renderer("controlnet_aux", SIZE)
    expected = renderer.draw(points, scores)
    pixels = points * SIZE[::-1]
    np.testing.assert_array_equal(renderer.draw(pixels, scores, units="pixels"), expected)
    mixed = points.copy()
    mixed[:, LEFT_HAND] = pixels[:, LEFT_HAND]
    np.testing.assert_array_equal(renderer.draw(mixed, scores, units="by part"), expected)
    with pytest.raises(ValueError, match="units"):
        renderer.draw(points, scores, units="inches")


def test_sticks_get_wider_for_xinsr():
    xinsr = STYLES["controlnet_aux_xinsr"]
    assert [xinsr.stick((side, 64)) for side in (499, 500, 999, 1000, 4999, 9000)] == [4, 8, 8, 12, 24, 28]
    assert STYLES["classic"].stick((9000, 64)) == 4


def test_followyourpose_lines():
    points, scores = likely()
    assert STYLES["followyourpose"].stick((1080, 1080)) == 13
    drawing = Renderer("followyourpose", SIZE).draw(points, scores)
    colours = {tuple(colour) for colour in drawing.reshape(-1, 3).tolist()}
    assert colours == {(0, 0, 0), (0, 255, 0), (0, 128, 255), (255, 153, 51)}
    left_thigh = (points[0, 11] + points[0, 12]) / 2 * SIZE[::-1]
    assert drawing[int(left_thigh[1]), int(left_thigh[0])].tolist() == [0, 255, 0]


def test_hand_edges_form_five_fingers():
    assert HAND_EDGES[:6] == ((0, 1), (1, 2), (2, 3), (3, 4), (0, 5), (5, 6))
    assert sorted(end for _, end in HAND_EDGES) == list(range(1, 21))


def test_canvas_clears_what_sticks_out():
    canvas = Canvas((40, 30))
    canvas.dot((-1, 20), 4, (255, 0, 0))
    canvas.line((28, 38), (50, 60), 5, (0, 255, 0))
    canvas.stick((-30.0, 10.0), (60.0, -5.0), 4, (0, 0, 255))
    canvas.dot((1000, -1000), 4, (255, 255, 255))
    assert canvas.picture((40, 30)).any()
    canvas.clear()
    assert not canvas.picture((40, 30)).any()
    assert not canvas._pixels.any()


@pytest.mark.parametrize("size", [(96, 96), (80, 64), (40, 24), (20, 12), (128, 32), (160, 96)], ids=str)
def test_shrinking_a_part_equals_shrinking_the_whole(size):
    canvas = Canvas((80, 48))
    for centre in ((20, 30), (7, 71), (47, 0)):
        canvas.dot(centre, 4, (255, 100, 50))
        whole = np.zeros((80, 48, 3), np.uint8)
        cv2.circle(whole, centre, 4, (255, 100, 50), thickness=-1)
        np.testing.assert_array_equal(canvas.picture(size), cv2.resize(whole, size[::-1]))
        canvas.clear()


def test_hand_and_face_points_in_the_first_row_or_column_are_skipped():
    points, scores = np.full((1, 134, 2), 0.5), np.zeros((1, 134))
    scores[0, [24, 92]] = 1
    points[0, [24, 92]] = (0.9 / SIZE[1], 0.5)
    assert not Renderer("classic", SIZE).draw(points, scores).any()
    points[0, [24, 92]] = (1.1 / SIZE[1], 0.5)
    assert Renderer("classic", SIZE).draw(points, scores).any()


def test_draw_clip_draws_who_is_present():
    (points, scores), nobody = likely(), (np.zeros((0, 134, 2)), np.zeros((0, 134)))
    clip = Poses.from_frames([(points, scores), nobody, (points, scores)], SIZE)
    drawings = list(draw_clip(clip, SIZE, "classic", face=False))
    assert [bool(drawing.any()) for drawing in drawings] == [True, False, True]
    np.testing.assert_array_equal(drawings[2], Renderer("classic", SIZE, face=False).draw(points, scores))


def test_overlay_changes_only_what_is_drawn_on():
    picture = np.full((*SIZE, 3), 100, np.uint8)
    drawing = Renderer("classic", SIZE).draw(*likely())
    laid = overlay(picture, drawing, 0.75)
    blank = ~drawing.any(axis=-1)
    assert (laid[blank] == 100).all()
    assert np.abs(laid[~blank] - (25 + 0.75 * drawing[~blank])).max() <= 0.5
    assert (picture == 100).all()
    with pytest.raises(ValueError, match="same size"):
        overlay(picture[1:], drawing)


def test_controlnet_aux_resize_pads_to_64():
    padded, (height, width) = resize_controlnet_aux(np.arange(100 * 150 * 3, dtype=np.uint8).reshape(100, 150, 3), 70)
    assert (height, width) == (70, 105)
    assert padded.shape == (128, 128, 3)
    assert (padded[height:, :width] == padded[height - 1, :width]).all()


def test_moore_draws_the_best_person_only():
    points = np.concatenate([likely(1)[0], likely(2)[0]])
    scores = np.stack([np.full(134, 0.5), np.full(134, 0.9)])
    assert moore_size((150, 100), 192) == (256, 192)
    drawing = draw_moore(points, scores, (150, 100), 192, 128)
    assert drawing.shape == (192, 128, 3)
    np.testing.assert_array_equal(drawing, draw_moore(points[1:], scores[1:], (150, 100), 192, 128))
    assert not draw_moore(points[:0], scores[:0], (150, 100)).any()


@pytest.mark.parametrize(
    ("points", "scores"), [((1, 133, 2), (1, 133)), ((1, 134, 2), (2, 134)), ((134, 2), (134,))], ids=str
)
def test_wrong_shapes_are_explained(points, scores):
    with pytest.raises(ValueError, match="134"):
        Renderer("classic", SIZE).draw(np.zeros(points), np.zeros(scores))


def test_wrong_names_and_sizes_are_explained():
    with pytest.raises(ValueError, match="mimicmotion"):
        find_style("openpose9000")
    with pytest.raises(ValueError, match="size"):
        Renderer("classic", (0, 10))


def test_benchmark_compares_pixels_and_reports_a_ratio():
    result = run_benchmark(num_frames=2, size=(256, 144))
    assert result["ratio"] == pytest.approx(result["published_ms"] / result["ours_ms"])
