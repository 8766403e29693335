"""Face masks from boxes and from poses."""

from __future__ import annotations

import numpy as np
import pytest
from choreo.pose.masks import box_of_mask, boxes_of_masks, face_box, mask_from_boxes, masks_from_poses
from choreo.pose.poses import FACE, Poses


def circle(centre, radius, n=68):
    angle = 2 * np.pi * np.arange(n) * 25 / n  # all round already in the first few points, which are jaw and brows
    return np.array(centre) + radius * np.stack([np.cos(angle), np.sin(angle)], axis=1)


def poses_with_faces(*centres, size=(200, 100), score=0.9):
    points, scores = np.zeros((len(centres), 134, 2)), np.zeros((len(centres), 134))
    for person, centre in enumerate(centres):
        points[person, FACE] = circle(centre, 10) / (size[1], size[0])
        scores[person, FACE] = score
    return Poses.from_frames([(points, scores), (points[:0], scores[:0])], size)


def test_rectangles_include_both_corners_and_are_cut_at_the_border():
    mask = mask_from_boxes(np.array([[2.9, 3.2, 5.9, 4.1], [-5, 8, 1.5, 40]]), (10, 8))
    expected = np.zeros((10, 8), np.uint8)
    expected[3:5, 2:6] = 255
    expected[8:, :2] = 255
    np.testing.assert_array_equal(mask, expected)


def test_no_face_is_white_everywhere_unless_chosen():
    assert (mask_from_boxes(np.zeros((0, 4)), (3, 4)) == 255).all()
    assert (mask_from_boxes(np.zeros((0, 4)), (3, 4), empty=0) == 0).all()


def test_face_box_has_more_room_above():
    points = circle((50, 60), 20)
    low, high = points.min(0), points.max(0)
    x1, y1, x2, y2 = face_box(points, np.ones(68))
    assert low[0] - x1 == pytest.approx(0.15 * 40, abs=0.1) and x2 - high[0] == pytest.approx(0.15 * 40, abs=0.1)
    assert low[1] - y1 == pytest.approx(0.35 * 40, abs=0.1) and y2 - high[1] == pytest.approx(0.15 * 40, abs=0.1)


def test_faint_points_do_not_count():
    points, scores = circle((50, 60), 20), np.ones(68)
    points[0], scores[0] = (900, 900), 0.3
    np.testing.assert_allclose(face_box(points, scores)[2:], face_box(points[1:], scores[1:])[2:])
    scores[7:] = 0.1
    assert face_box(points, scores) is None


@pytest.mark.parametrize("shape", ["box", "hull"])
def test_masks_cover_every_face_and_nothing_far_away(shape):
    first, second = masks_from_poses(poses_with_faces((30, 50), (70, 150)), shape)
    assert first.shape == (200, 100) and first.dtype == np.uint8
    assert first[50, 30] == first[150, 70] == 255 and first[100, 50] == first[0, 0] == 0
    assert (second == 255).all()


def test_hull_lies_inside_the_box():
    poses = poses_with_faces((30, 50))
    box, hull = (next(masks_from_poses(poses, shape)) for shape in ("box", "hull"))
    assert (hull <= box).all() and 0 < (hull > 0).sum() < (box > 0).sum()


def test_masks_scale_with_their_size_and_faint_faces_are_none():
    small = next(masks_from_poses(poses_with_faces((30, 50)), size=(100, 50)))
    assert small.shape == (100, 50) and small[25, 15] == 255 and small[80, 15] == 0
    assert (next(masks_from_poses(poses_with_faces((30, 50), score=0.2), empty=0)) == 0).all()


def test_unknown_shape_is_named():
    with pytest.raises(ValueError, match="shape"):
        next(masks_from_poses(poses_with_faces((30, 50)), "ellipse"))


def test_box_of_a_mask_holds_its_corners_and_scales_with_the_frame():
    mask = mask_from_boxes(np.array([[3, 4, 6, 9]]), (20, 10))
    assert box_of_mask(mask).tolist() == [3, 4, 6, 9]
    two = mask_from_boxes(np.array([[3, 4, 6, 9], [8, 1, 9, 2]]), (20, 10))
    assert box_of_mask(two).tolist() == [3, 1, 9, 9]
    assert [box.tolist() for box in boxes_of_masks([mask], (40, 20))] == [[6, 8, 13, 19]]
    mask[mask == 255] = 254  # only white counts, as published
    assert box_of_mask(mask) is None


def test_masks_that_single_nothing_out_have_no_box():
    nothing = np.zeros((0, 4))
    assert boxes_of_masks([mask_from_boxes(nothing, (4, 4), empty) for empty in (0, 255)], (8, 8)) == [None, None]
    boxes = boxes_of_masks(masks_from_poses(poses_with_faces((30, 50))), (200, 100))
    assert boxes[1] is None and boxes[0][0] < 20 and boxes[0][2] > 40
