from __future__ import annotations

import numpy as np
import pytest
from choreo.pose.poses import Poses
from choreo.pose.smooth import METHODS, MmposeOneEuro, OneEuro, smooth

from .pose_clips import clip

SMOOTHING = [method for method in METHODS if method != "none"]


def walking(frames: int = 30, jitter: float = 0.0, start: float = 100.0, step: float = 1.0) -> Poses:
    poses = clip([[(start + step * f, 100.0, 80.0)] for f in range(frames)])
    noise = np.random.default_rng(0).normal(0, jitter, poses.points.shape) / (poses.size[1], poses.size[0])
    return poses.with_points(poses.points + noise)


def roughness(poses: Poses) -> float:
    return float(np.abs(np.diff(poses.pixels(), 2, axis=0)).mean())


@pytest.mark.parametrize("method", SMOOTHING)
def test_jitter_shrinks_and_the_motion_stays(method):
    true, rough = walking(), walking(jitter=2.0)
    result = smooth(rough, method)
    assert roughness(result) < 0.65 * roughness(rough)
    error = np.abs(result.pixels() - true.pixels())[3:-3].mean()
    assert error < np.abs(rough.pixels() - true.pixels()).mean()
    np.testing.assert_array_equal(result.scores, rough.scores)


@pytest.mark.parametrize("method", SMOOTHING)
def test_somebody_who_stands_still_does_not_move(method):
    still = walking(step=0.0)
    np.testing.assert_allclose(smooth(still, method).points, still.points, rtol=1e-12)


@pytest.mark.parametrize("method", SMOOTHING)
def test_shots_are_smoothed_on_their_own(method):
    before, after = walking(10, 1.0), walking(10, 1.0, start=320.0)
    both = Poses(
        np.concatenate([before.points, after.points]),
        np.concatenate([before.scores, after.scores]),
        np.ones((20, 1)),
        before.size,
        before.fps,
    )
    result = smooth(both, method)
    np.testing.assert_allclose(result.points[:10], smooth(before, method).points)
    np.testing.assert_allclose(result.points[10:], smooth(after, method).points)


@pytest.mark.parametrize("method", SMOOTHING)
def test_a_gap_starts_anew_and_stays_empty(method):
    rough = walking(20, 1.0)
    present = np.ones((20, 1), dtype=bool)
    present[8:10] = False
    gappy = Poses(rough.points, rough.scores, present, rough.size, rough.fps)
    result = smooth(gappy, method)
    np.testing.assert_array_equal(result.present, present)
    np.testing.assert_allclose(result.points[:8], smooth(rough[:8], method).points)
    np.testing.assert_allclose(result.points[10:], smooth(rough[10:], method).points)


@pytest.mark.parametrize("method", SMOOTHING)
def test_missing_points_neither_change_nor_disturb_others(method):
    rough = walking(20, 1.0)
    points, scores = np.array(rough.points), np.array(rough.scores)
    points[8:10, 0, 3], scores[8:10, 0, 3] = 0.9, 0.0
    result = smooth(rough.with_points(points, scores), method)
    whole = smooth(rough, method)
    np.testing.assert_array_equal(result.points[8:10, 0, 3], 0.9)
    others = np.delete(np.arange(134), 3)
    np.testing.assert_array_equal(result.points[:, :, others], whole.points[:, :, others])
    assert np.abs(result.pixels()[:, 0, 3] - rough.pixels()[:, 0, 3])[[*range(8), *range(10, 20)]].max() < 5
    if method == "one-euro":
        np.testing.assert_allclose(result.points[10, 0, 3], rough.points[10, 0, 3])  # starts anew


def test_one_euro_lags_less_when_fast_and_steadies_more_at_rest():
    slow, fast = walking(60, 1.0, step=0.0), walking(60, step=8.0)
    assert roughness(smooth(slow, "one-euro")) < 0.6 * roughness(slow)
    lag = (fast.pixels() - smooth(fast, "one-euro").pixels())[20:, ..., 0]
    assert lag.min() >= 0 and lag.max() < 8  # less than a frame behind


def test_one_euro_does_not_depend_on_the_frame_rate_of_the_same_motion():
    def settled(fps: int) -> float:
        one_euro = OneEuro(interval=1 / fps)
        x = [one_euro(np.array([[100 * f / fps, 0.0]]))[0, 0] - 100 * f / fps for f in range(4 * fps)]
        return x[-1]

    assert settled(60) == pytest.approx(settled(30), rel=0.15)


def test_the_published_filter_takes_zero_for_missing():
    one_euro = MmposeOneEuro()
    first = one_euro(np.array([[5.1, -3.0]]))
    assert first.tolist() == [[5.1, -3.0]]
    assert one_euro(np.array([[0.0, 4.0]]))[0, 0] == -10
    assert -10 < one_euro(np.array([[5.0, 4.0]]))[0, 0] < 5


def test_none_is_the_same_and_wrong_settings_are_explained():
    poses = walking(3)
    assert smooth(poses) is poses
    with pytest.raises(ValueError, match="'kalman'"):
        smooth(poses, "kalman")
    with pytest.raises(ValueError, match="odd"):
        smooth(poses, "median", window=4)
    with pytest.raises(ValueError, match="sigma"):
        smooth(poses, "gaussian", sigma=0)
    with pytest.raises(ValueError, match="min_cutoff"):
        smooth(poses, "one-euro", min_cutoff=0)


@pytest.mark.parametrize("method", SMOOTHING)
def test_single_frames_and_clips_without_people_pass(method):
    assert len(smooth(walking(1), method)) == 1
    assert len(smooth(clip([[], []]), method)) == 2
    assert len(smooth(clip([]), method)) == 0
