from __future__ import annotations

import numpy as np
import pytest
from choreo.pose.gaps import MOST_JOINT_GAP, fill_gaps
from choreo.pose.people import track_people
from choreo.pose.smooth import drop_low_scores

from .pose_clips import centres, clip

A, B = (100.0, 100.0, 80.0), (108.0, 104.0, 80.0)


def test_hold_repeats_the_last_pose_and_the_first_at_the_beginning():
    poses = fill_gaps(clip([[], [A], [], [], [B], []]), "hold")
    assert poses.present.all()
    np.testing.assert_array_equal(poses.points[:, 0], poses.points[[1, 1, 1, 1, 4, 4], 0])
    np.testing.assert_array_equal(poses.scores[0], poses.scores[1])


def test_interpolate_moves_evenly_with_scores_that_fall_towards_the_middle():
    poses = fill_gaps(clip([[A], [], [], [], [B], []]), "interpolate")
    np.testing.assert_allclose(np.diff(centres(poses)[:5], axis=0), np.tile([2.0, 1.0], (4, 1)))
    scores = poses.scores[:5, 0, 0]
    assert scores[0] == scores[4] == 0.9
    assert scores[2] < scores[1] < scores[0] and scores[1] == pytest.approx(scores[3])
    np.testing.assert_array_equal(poses.points[5], poses.points[4])


def test_long_gaps_stay_visible():
    poses = fill_gaps(clip([[A], *[[]] * 200, [B]]), "interpolate")
    assert poses.scores.min() == pytest.approx(0.45)


def test_nothing_is_interpolated_across_a_cut():
    far = (320.0, 100.0, 80.0)
    poses = fill_gaps(clip([[A], [], [], [far]]), "interpolate")
    np.testing.assert_array_equal(poses.points[1:3], poses.points[[0, 0]])


def test_points_seen_at_one_end_only_stay_missing():
    poses = clip([[A], [], [B]])
    scores = np.array(poses.scores)
    scores[0, 0, 4] = 0
    filled = fill_gaps(poses.with_points(poses.points, scores), "interpolate")
    assert filled.scores[1, 0, 4] == 0 and filled.scores[1, 0, 5] > 0.8


@pytest.mark.parametrize(("missing", "filled"), [(MOST_JOINT_GAP, True), (MOST_JOINT_GAP + 1, False)])
def test_single_points_are_interpolated_in_short_gaps_only(missing, filled):
    poses = clip([[(100.0 + f, 100.0, 80.0)] for f in range(20)])
    scores, points = np.array(poses.scores), np.array(poses.points)
    scores[3 : 3 + missing, 0, 7], points[3 : 3 + missing, 0, 7] = 0, 0
    gappy = poses.with_points(points, scores)
    result = fill_gaps(gappy, "interpolate")
    if filled:
        np.testing.assert_allclose(result.points, poses.points)
        assert (result.scores > 0).all()
    else:
        np.testing.assert_array_equal(result.scores, gappy.scores)
    np.testing.assert_array_equal(fill_gaps(gappy, "hold").scores, gappy.scores)


def test_single_points_at_the_ends_and_across_cuts_stay_missing():
    poses = clip([[A]] * 4 + [[(320.0, 100.0, 80.0)]] * 4)
    scores = np.array(poses.scores)
    scores[[0, 3, 4, 7], 0, 7] = 0
    gappy = poses.with_points(poses.points, scores)
    np.testing.assert_array_equal(fill_gaps(gappy, "interpolate").scores, scores)


def test_a_second_person_is_not_made_up_before_they_come_or_after_they_leave():
    first, second = (100.0, 100.0, 80.0), (300.0, 100.0, 80.0)
    poses = track_people(clip([[first], [first, second], [first], [first, second], [first]]))
    filled = fill_gaps(poses, "hold")
    assert filled.present.tolist() == [[True, False]] + [[True, True]] * 3 + [[True, False]]


def test_frames_with_nobody_take_everybody_of_the_frame_before():
    first, second = (100.0, 100.0, 80.0), (300.0, 100.0, 80.0)
    filled = fill_gaps(track_people(clip([[first, second], [], []])), "hold")
    assert filled.present.all()


def test_blank_and_raise():
    poses = clip([[A], [], [], [B], [], [B]])
    assert fill_gaps(poses, "blank") is poses
    with pytest.raises(ValueError, match=r"3 of 6 frames \(frames 1-2, 4\)"):
        fill_gaps(poses, "raise")
    whole = clip([[A], [B]])
    assert fill_gaps(whole, "raise") is whole
    with pytest.raises(ValueError, match=r"'skip'.*hold"):
        fill_gaps(poses, "skip")


@pytest.mark.parametrize("policy", ["hold", "interpolate", "raise"])
def test_nobody_in_the_whole_clip_is_said(policy):
    with pytest.raises(ValueError, match="No person was found in any of the 3 frames"):
        fill_gaps(clip([[], [], []]), policy)
    assert not fill_gaps(clip([[], [], []]), "blank").present.any()


def test_people_without_a_point_above_the_threshold_become_gaps():
    poses = clip([[A], [B]])
    scores = np.array(poses.scores)
    scores[1] = 0.2
    scores[0, 0, 0] = 0.3
    dropped = drop_low_scores(poses.with_points(poses.points, scores), 0.3)
    assert dropped.present.tolist() == [[True], [False]]
    assert dropped.scores[0, 0, 0] == 0.3
    np.testing.assert_array_equal(fill_gaps(dropped, "hold").points[1], poses.points[0])
