from __future__ import annotations

import numpy as np
import pytest
from choreo.benchmarks.random_poses import likely_frame, random_figure
from choreo.pose.align import FIT_JOINTS, METHODS, align, fit_published, onto_canvas, pixel_ratio, same_height
from choreo.pose.poses import Poses

FRAME, REFERENCE = (270, 480), (1024, 576)


def clip(frames: int = 4, seed: int = 0) -> Poses:
    """One walking person whose every point is seen."""
    random = np.random.default_rng(seed)
    figure, _ = likely_frame(random)
    points = figure + np.linspace(0, 0.1, frames)[:, None, None] * (1, 0)
    return Poses(points[:, None], np.ones((frames, 1, 134)), np.ones((frames, 1)), FRAME, 25)


def placed(poses: Poses, scale: float, shift: tuple[float, float]) -> Poses:
    """A reference that shows the person of frame 0 at the given vertical scale, with the same pixel scale across."""
    canvas = Poses(np.zeros((1, 1, 134, 2)), np.zeros((1, 1, 134)), np.ones((1, 1)), REFERENCE)
    a = np.array([scale * pixel_ratio(poses.size, canvas.size), scale])
    return canvas.with_points(poses.points[:1] * a + shift, np.ones((1, 1, 134)))


@pytest.mark.parametrize("method", ["mimicmotion", "robust"])
def test_a_known_placement_is_found(method):
    driver = clip()
    reference = placed(driver[0], 0.8, (0.1, 0.05))
    result = align(driver[0], reference, method)
    assert result.method == method
    assert not result.note
    np.testing.assert_allclose(result.a, [0.8 * pixel_ratio(driver.size, reference.size), 0.8], rtol=1e-9)
    np.testing.assert_allclose(result.poses.points, reference.points, atol=1e-9)
    assert result.poses.size == REFERENCE
    assert result.poses.fps == 25


def test_pixel_scales_are_equal_but_for_stableanimator():
    driver = clip()
    reference = placed(driver, 0.8, (0.1, 0.05))
    for method in ("mimicmotion", "robust"):
        a = align(driver, reference, method).a
        assert a[0] * REFERENCE[1] / FRAME[1] == pytest.approx(a[1] * REFERENCE[0] / FRAME[0])
    a = align(driver, reference, "stableanimator").a
    assert a[0] == a[1]


def test_inputs_stay_and_scores_are_kept():
    driver = clip()
    before = driver.points.copy()
    for method in METHODS:
        result = align(driver, placed(driver, 0.5, (0.2, 0.2)), method)
        np.testing.assert_array_equal(driver.points, before)
        np.testing.assert_array_equal(result.poses.scores, driver.scores)


def test_none_keeps_place_and_proportions():
    driver = clip()
    same_ratio = onto_canvas(driver, (2 * driver.size[0], 2 * driver.size[1]))
    result = align(driver, same_ratio, "none")
    assert np.array_equal(result.poses.points, driver.points)
    wide = align(driver, onto_canvas(driver, (driver.size[0], 2 * driver.size[1])), "none").poses
    shape, stretched = wide.pixels() - wide.pixels()[..., :1, :], driver.pixels() - driver.pixels()[..., :1, :]
    np.testing.assert_allclose(shape, stretched, atol=1e-9)


def with_second_person(driver: Poses, frames: list[int]) -> Poses:
    """Somebody else walks through some frames."""
    other = random_figure(np.random.default_rng(9))
    points = np.concatenate([driver.points, np.broadcast_to(other, driver.points.shape)], axis=1)
    present = np.ones(points.shape[:2], dtype=bool)
    present[:, 1] = np.isin(np.arange(len(driver)), frames)
    return Poses(points, np.ones(points.shape[:3]), present, driver.size, driver.fps)


def test_frames_of_several_people_are_transformed_but_not_fitted():
    driver = clip()
    reference = placed(driver, 0.8, (0.1, 0.05))
    crowd = with_second_person(driver, [1, 2])
    result = align(crowd, reference, "mimicmotion")
    alone = align(driver[[0, 3]], reference, "mimicmotion")
    np.testing.assert_allclose(result.a, alone.a, rtol=1e-12)
    np.testing.assert_allclose(result.poses.points, crowd.points * result.a + result.b)


def test_unseen_joints_pollute_the_published_fit_only():
    driver = clip()
    reference = placed(driver, 0.8, (0.1, 0.05))
    points, scores = driver.points.copy(), driver.scores.copy()
    points[:, :, 10], scores[:, :, 10] = (0.5, -3.0), 0.05
    polluted = driver.with_points(points, scores)
    assert abs(align(polluted, reference, "mimicmotion").a[1] - 0.8) > 0.1
    assert align(polluted, reference, "robust").a[1] == pytest.approx(0.8, rel=1e-9)


def test_robust_weights_by_the_lower_score():
    driver = clip(1)
    reference = placed(driver, 0.8, (0.1, 0.05))
    points, scores = driver.points.copy(), driver.scores.copy()
    points[..., 10, 1] += 0.3  # a wrong ankle
    scales = []
    for score in (1.0, 0.31):
        scores[..., 10] = score
        scales.append(align(driver.with_points(points, scores), reference, "robust").a[1])
    assert abs(scales[1] - 0.8) < abs(scales[0] - 0.8)


def test_robust_follows_the_person_that_is_seen_best():
    driver = clip()
    reference = placed(driver, 0.8, (0.1, 0.05))
    crowd = with_second_person(driver, [0, 1])
    assert align(crowd, reference, "robust").a[1] == pytest.approx(0.8, rel=1e-9)


def check_fallback(result, method: str, words: str):
    assert result.method == method
    assert words in result.note
    assert np.isfinite(result.poses.points).all()
    assert result.poses.size == REFERENCE


@pytest.mark.parametrize("method", ["mimicmotion", "stableanimator", "robust", "limbs"])
def test_reference_without_a_person(method):
    driver = clip()
    nobody = Poses.from_frames([(np.zeros((0, 134, 2)), np.zeros((0, 134)))], REFERENCE)
    result = align(driver, nobody, method)
    check_fallback(result, "same height", "no person was found in the reference")
    a, b = same_height(driver.size, nobody.size)
    np.testing.assert_allclose(result.poses.points, driver.points * a + b)
    assert align(driver, Poses.from_frames([], REFERENCE), method).method == "same height"


@pytest.mark.parametrize("method", ["mimicmotion", "stableanimator", "robust", "limbs"])
def test_clip_without_a_person(method):
    reference = placed(clip(), 0.8, (0, 0))
    empty = Poses.from_frames([(np.zeros((0, 134, 2)), np.zeros((0, 134)))] * 3, FRAME)
    check_fallback(align(empty, reference, method), "same height", "no frame shows a person")


def test_no_frame_with_one_person_uses_the_robust_fit():
    driver = clip()
    crowd = with_second_person(driver, [0, 1, 2, 3])
    scores = crowd.scores.copy()
    scores[:, 1, ::2] = 0
    result = align(crowd.with_points(crowd.points, scores), placed(driver, 0.8, (0.1, 0.05)), "mimicmotion")
    check_fallback(result, "robust", "no frame has exactly one person")
    assert result.a[1] == pytest.approx(0.8)


@pytest.mark.parametrize("common", [0, 1])
def test_too_few_common_joints(common):
    driver = clip()
    reference = placed(driver, 0.8, (0.1, 0.05))
    scores = np.zeros((1, 1, 134))
    scores[..., list(FIT_JOINTS[:common])] = 1
    few = reference.with_points(reference.points, scores)
    check_fallback(align(driver, few, "robust"), "same height", f"share {common} of the joints")
    if common == 0:
        check_fallback(align(driver, few, "mimicmotion"), "same height", "share 0")


def test_joints_of_one_height():
    driver = clip()
    flat = driver.points.copy()
    flat[..., 1] = 0.5
    reference = placed(driver, 0.8, (0.1, 0.05))
    for method in ("mimicmotion", "robust"):
        check_fallback(align(driver.with_points(flat), reference, method), "same height", "same height")


@pytest.mark.parametrize("scale", [-0.8, 9.0])
def test_scales_that_are_hardly_meant(scale):
    driver = clip()
    reference = placed(driver, scale, (0.1, 0.9))
    published = align(driver, reference, "mimicmotion")
    assert published.method == "mimicmotion"  # parity first, but said
    assert published.a[1] == pytest.approx(scale)
    assert "hardly meant" in published.note
    check_fallback(align(driver, reference, "robust"), "same height", "outside 0.2 to 5")


def test_same_height_keeps_proportions_and_the_middle():
    driver = clip()
    reference = placed(driver, 1.0, (0, 0))
    a, b = same_height(driver.size, reference.size)
    np.testing.assert_allclose(np.array([0.5, 0.5]) * a + b, [0.5, 0.5])
    assert a[0] * REFERENCE[1] / FRAME[1] == pytest.approx(a[1] * REFERENCE[0] / FRAME[0])


def test_published_fit_is_a_least_squares_line():
    random = np.random.default_rng(1)
    driver = clip().with_points(clip().points + random.normal(0, 0.05, clip().points.shape))
    reference = placed(clip(), 0.8, (0.1, 0.05))
    (ax, ay), (bx, by) = fit_published(driver, reference, 0.7)
    joints = list(FIT_JOINTS)
    found, wanted = driver.points[:, 0, joints], reference.points[:, 0, joints]

    def error(a, b):
        return np.square(wanted[..., 1] - (a * found[..., 1] + b)).sum()

    assert all(error(ay, by) < error(ay + da, by + db) for da in (-1e-4, 1e-4) for db in (-1e-4, 0, 1e-4))
    assert ax == pytest.approx(0.7 * ay)
    assert np.mean(wanted[..., 0] - (ax * found[..., 0] + bx)) == pytest.approx(0, abs=1e-12)


def test_unknown_methods_are_explained():
    with pytest.raises(ValueError, match="stableanimator"):
        align(clip(), clip(), "procrustes")
