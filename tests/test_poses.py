from __future__ import annotations

import numpy as np
import pytest
from choreo.pose.poses import NUM_POINTS, Poses, concatenate
from choreo.pose.wholebody import CONVENTIONS, openpose_134, person_record, published_pose

from .pose_clips import SIZE, clip


def test_poses_hold_a_copy_that_nobody_can_change():
    points = np.zeros((2, 1, NUM_POINTS, 2))
    poses = Poses(points, np.zeros((2, 1, NUM_POINTS)), np.ones((2, 1)), SIZE)
    points[:] = 7
    assert not poses.points.any()
    with pytest.raises(ValueError, match="read-only"):
        poses.points[0] = 1


def test_wrong_shapes_are_named():
    with pytest.raises(ValueError, match=r"scores .* got \(1, 2, 134\)"):
        Poses(np.zeros((1, 1, 134, 2)), np.zeros((1, 2, 134)), np.ones((1, 1)), SIZE)
    with pytest.raises(ValueError, match="size"):
        Poses(np.zeros((1, 1, 134, 2)), np.zeros((1, 1, 134)), np.ones((1, 1)), (0, 5))


def test_slicing_and_joining_keep_frames_and_fps():
    poses = clip([[(100, 100, 80)], [(110, 100, 80), (300, 100, 80)], [(120, 100, 80)]])
    joined = concatenate([poses[:1], poses[1], poses[[2]]])
    assert joined.fps == poses.fps
    np.testing.assert_array_equal(joined.points, poses.points)
    narrow = concatenate([poses[:1].person(0), poses[1:]])
    for f in range(3):
        np.testing.assert_array_equal(narrow.frame(f)[0], poses.frame(f)[0])


def test_neck_needs_both_shoulders_and_openpose_order():
    keypoints = np.arange(133 * 2, dtype=np.float64).reshape(1, 133, 2)
    scores = np.full((1, 133), 0.9, dtype=np.float32)
    points, whole = openpose_134(keypoints, scores)
    np.testing.assert_array_equal(points[0, 1], keypoints[0, 5:7].mean(axis=0))
    np.testing.assert_array_equal(
        points[0, [0, 2, 4, 5, 8, 11, 14, 15, 17]], keypoints[0, [0, 6, 10, 5, 12, 11, 2, 1, 3]]
    )
    np.testing.assert_array_equal(points[0, 18:], keypoints[0, 17:])
    assert whole[0, 1] == 1
    scores[0, 5] = 0.3  # float32(0.3) is a little above 0.3 and counts as visible
    assert openpose_134(keypoints, scores)[1][0, 1] == 1
    assert openpose_134(keypoints, scores.astype(np.float64) - 1e-7)[1][0, 1] == 0


def test_published_conventions_differ_as_described():
    points = np.full((2, NUM_POINTS, 2), 0.5)
    scores = np.full((2, NUM_POINTS), 0.2)
    scores[1] = 0.9
    people = {name: len(published_pose(points, scores, name).score) for name in CONVENTIONS}
    assert people == {"mimicmotion": 2, "classic": 2, "one person": 1, "moore": 1}
    assert published_pose(points, scores, "moore").score[0, 0] == 0.9
    assert published_pose(points, scores, "one person").score[0, 0] == 0.2
    assert (published_pose(points, scores, "classic").hands[[0, 2]] == -1).all()
    assert (published_pose(points, scores, "mimicmotion").hands == 0.5).all()
    np.testing.assert_array_equal(published_pose(points, scores).subset[1], np.arange(18, 36))
    assert len(published_pose(points[:0], scores[:0], "moore").candidate) == 0


def test_record_of_a_person_without_hands():
    scores = np.full(NUM_POINTS, 0.9)
    scores[92:134] = 0.1
    record = person_record(np.ones((NUM_POINTS, 2)), scores)
    assert record.left_hand is None and record.right_hand is None
    assert record.face.shape == (70, 4) and record.face[-2:, 3].tolist() == [14, 15]
    assert record.total_score == pytest.approx(18 * 0.9)
