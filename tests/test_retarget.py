from __future__ import annotations

import numpy as np
import pytest
from choreo.benchmarks.random_poses import STANDING
from choreo.pose.align import align
from choreo.pose.poses import FACE, LEFT_HAND, RIGHT_HAND, Poses
from choreo.pose.retarget import BONES, HEAD

FRAME, REFERENCE = (720, 1280), (1024, 576)
LIMBS = [(joint, parent) for joint, parent in BONES if joint not in HEAD]


def rotated(points: np.ndarray, about: np.ndarray, angle: float) -> np.ndarray:
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return (points - about) @ turn.T + about


def figure(height: float, centre: tuple[float, float], wave: float = 0.0, **longer: float) -> np.ndarray:
    """(134, 2) pixels of a person; `wave` turns the arms, `arms`, `legs`, `head` and `hands` stretch those."""
    body = (STANDING - STANDING[1]) * (0.5, 1.0) * height
    for chain, part in (((2, 3, 4), "arms"), ((5, 6, 7), "arms"), ((8, 9, 10), "legs"), ((11, 12, 13), "legs")):
        upper, lower = np.diff(body[list(chain)], axis=0) * longer.get(part, 1.0)
        body[chain[1]], body[chain[2]] = body[chain[0]] + upper, body[chain[0]] + upper + lower
        if part == "arms":
            body[[chain[1], chain[2]]] = rotated(body[[chain[1], chain[2]]], body[chain[0]], wave)
    head, hands = longer.get("head", 1.0), longer.get("hands", 1.0)
    body[[14, 15, 16, 17]] = body[0] + (body[[14, 15, 16, 17]] - body[0]) * head
    random = np.random.default_rng(3)
    face = body[0] + random.uniform(-0.05, 0.05, (68, 2)) * height * head
    shape = np.concatenate([[[0, 0.01]], random.uniform(-0.03, 0.03, (20, 2))]) * height * hands
    feet = np.repeat(body[[13, 10]], 3, axis=0) + random.uniform(-0.02, 0.02, (6, 2)) * height
    return np.concatenate([body, feet, face, body[7] + shape, body[4] + shape]) + centre


def poses(figures: list[np.ndarray], size: tuple[int, int]) -> Poses:
    points = np.stack(figures)[:, None] / size[::-1]
    return Poses(points, np.ones(points.shape[:3]), np.ones(points.shape[:2]), size, 30)


def driver() -> Poses:
    waves = np.linspace(0, 2, 7)
    return poses([figure(500, (600 + 20 * w, 150), w) for w in waves], FRAME)


def reference(**longer: float) -> Poses:
    return poses([figure(700, (280, 200), 0.3, **longer)], REFERENCE)


def bone(points: np.ndarray, joint: int, parent: int) -> np.ndarray:
    return points[..., joint, :] - points[..., parent, :]


def hidden(clip: Poses, joints: list[int], frames: slice = slice(None)) -> Poses:
    """The clip with some joints not found, their coordinates nonsense."""
    points, scores = clip.points.copy(), clip.scores.copy()
    points[frames, :, joints], scores[frames, :, joints] = -1.0, 0.0
    return clip.with_points(points, scores)


def test_bones_have_the_reference_length_and_the_driver_direction():
    clip, target = driver(), reference(arms=0.6, legs=1.3)
    new = align(clip, target, "limbs").poses.pixels()
    old, wanted = clip.pixels(), target.pixels()[0, 0]
    for joint, parent in LIMBS:
        lengths = np.linalg.norm(bone(new, joint, parent), axis=-1)
        np.testing.assert_allclose(lengths, np.linalg.norm(bone(wanted, joint, parent)), rtol=1e-6)
        x, y = np.moveaxis(bone(new, joint, parent), -1, 0)
        x0, y0 = np.moveaxis(bone(old, joint, parent), -1, 0)
        np.testing.assert_allclose(np.arctan2(y, x), np.arctan2(y0, x0), atol=1e-9)


def test_the_root_is_placed_by_the_fit():
    clip, target = driver(), reference(arms=0.6, legs=1.3)
    result, fit = align(clip, target, "limbs"), align(clip, target, "robust")
    assert (result.method, result.note) == ("limbs", "")
    np.testing.assert_allclose(result.poses.points[:, :, 1], fit.poses.points[:, :, 1])


def test_equal_proportions_give_the_fit():
    clip, target = driver(), reference()
    points = align(clip[0], target, "limbs").poses.points
    # the arms of the reference are turned, which the fit does not look at
    np.testing.assert_allclose(points, align(clip[0], target, "robust").poses.points, atol=1e-6)


def test_foreshortening_stays_part_of_the_motion():
    clip, target = driver(), reference()
    points = clip.points.copy()
    points[5, 0, 4] = (points[5, 0, 4] + points[5, 0, 3]) / 2  # the forearm points at the camera in one frame
    new = align(clip.with_points(points), target, "limbs").poses.pixels()
    lengths = np.linalg.norm(bone(new, 4, 3), axis=-1)[:, 0]
    assert lengths[5] == pytest.approx(lengths[0] / 2, rel=1e-6)


@pytest.mark.parametrize(
    ("part", "anchor", "longer"), [(LEFT_HAND, 7, "hands"), (RIGHT_HAND, 4, "hands"), (FACE, 0, "head")], ids=str
)
def test_hands_and_face_follow_and_take_the_reference_size(part, anchor, longer):
    clip, target = driver(), reference(**{longer: 1.4})
    new, old = align(clip, target, "limbs").poses.pixels(), clip.pixels()
    joints = np.arange(134)[part]
    offsets, before = (p[:, 0, joints] - p[:, 0, [anchor]] for p in (new, old))
    ratio = 1.4 * 700 / 500
    np.testing.assert_allclose(offsets, before * ratio, rtol=1e-6, atol=1e-6)


def test_eyes_and_ears_take_the_size_of_the_head():
    new, old = align(driver(), reference(head=1.4), "limbs").poses.pixels(), driver().pixels()
    for joint in HEAD:
        np.testing.assert_allclose(bone(new, joint, 0), bone(old, joint, 0) * 1.4 * 700 / 500, rtol=1e-6)


def test_a_side_the_reference_hides_takes_its_mirror_image(caplog):
    clip, target = driver(), reference(arms=0.6)
    result = align(clip, hidden(target, [6, 7]), "limbs")
    assert not result.note
    expected = align(clip, target, "limbs").poses.points
    np.testing.assert_allclose(result.poses.points[:, :, 5:8], expected[:, :, 5:8], atol=1e-9)


def test_limbs_the_reference_hides_on_both_sides_are_named():
    clip, target = driver(), hidden(reference(arms=0.6), [9, 10, 12, 13, *range(92, 134)])
    result = align(clip, target, "limbs")
    assert "the thighs, the shins" in result.note
    new, old = result.poses.pixels(), clip.pixels()
    scale = result.a[1] * REFERENCE[0] / FRAME[0]
    np.testing.assert_allclose(bone(new, 10, 9), bone(old, 10, 9) * scale, rtol=1e-6)
    forearm = np.linalg.norm(bone(new, 7, 6)) / np.linalg.norm(bone(old, 7, 6))
    hand = np.linalg.norm(bone(new, 100, 92)) / np.linalg.norm(bone(old, 100, 92))
    assert hand == pytest.approx(forearm)


def test_an_elbow_missing_for_a_moment_leaves_the_hand_in_place():
    clip, target = driver(), reference(arms=0.6)
    whole = align(clip, target, "limbs").poses.pixels()
    gap = align(hidden(clip, [3], slice(2, 4)), target, "limbs").poses.pixels()
    keep = [joint for joint in range(134) if joint != 3]
    np.testing.assert_allclose(gap[:2], whole[:2], atol=1e-6)
    assert np.abs(gap[2:4][:, :, keep] - whole[2:4][:, :, keep]).max() < 1  # both arm bones change alike here


def test_a_neck_missing_for_a_moment_makes_nothing_jump():
    clip, target = driver(), reference(arms=0.6, legs=1.3)
    whole = align(clip, target, "limbs").poses.pixels()
    gap = align(hidden(clip, [1], slice(3, 4)), target, "limbs").poses.pixels()
    keep = [joint for joint in range(134) if joint != 1]
    assert np.abs(gap[:, :, keep] - whole[:, :, keep]).max() < 12


def test_a_bone_that_points_at_the_camera_in_the_reference_is_not_believed():
    clip, target = driver(), reference()
    points = target.points.copy()
    points[..., 4, :] = points[..., 3, :] + 0.005
    new = align(clip, target.with_points(points), "limbs").poses.pixels()
    scale = 700 / 500
    lengths = np.linalg.norm(bone(new, 4, 3), axis=-1) / np.linalg.norm(bone(clip.pixels(), 4, 3), axis=-1)
    assert (lengths > 0.2 * scale).all()


def test_everybody_is_retargeted_and_empty_slots_are_harmless():
    clip = driver()
    points = np.concatenate([clip.points, clip.points + np.array([0.2, 0])], axis=1)
    present = np.ones(points.shape[:2], dtype=bool)
    present[2:, 1] = False
    crowd = Poses(points, np.ones(points.shape[:3]) * present[..., None], present, clip.size)
    target = reference(arms=0.6)
    new = align(crowd, target, "limbs").poses
    np.testing.assert_allclose(new.points[:, 0], align(clip, target, "limbs").poses.points[:, 0], atol=1e-9)
    wanted = np.linalg.norm(bone(target.pixels()[0, 0], 7, 6))
    np.testing.assert_allclose(np.linalg.norm(bone(new.pixels()[:2, 1], 7, 6), axis=-1), wanted, rtol=1e-6)
    np.testing.assert_array_equal(new.present, present)


def test_a_body_without_face_and_hands():
    parts = [*range(18, 134)]
    result = align(hidden(driver(), parts), hidden(reference(), parts), "limbs")
    assert result.method == "limbs"
    assert np.isfinite(result.poses.points).all()


def test_two_joints_are_enough_not_to_crash():
    only = [joint for joint in range(134) if joint not in (1, 8)]
    result = align(hidden(driver(), only), hidden(reference(), only), "limbs")
    assert result.method == "limbs"
    assert "the neck" in result.note
    assert np.isfinite(result.poses.points).all()
