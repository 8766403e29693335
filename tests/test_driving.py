"""From poses or skeleton pictures to what a network is driven with."""

from __future__ import annotations

import numpy as np
import pytest
from choreo.pipelines.driving import PoseSettings, clean, drive_by_poses, drive_by_skeletons, has_person
from choreo.pose.draw import draw_clip
from choreo.pose.poses import Poses

from .figures import codes
from .pose_clips import SIZE, clip

STYLE = "mimicmotion"
TARGET = (64, 64)
PERSON = (100.0, 100.0, 120.0)


def standing(*frames) -> Poses:
    """Upright people: their points are those of the test figure, so that fits have something to hold on to."""
    made = clip(frames)
    layout = np.zeros((134, 2))
    joints = codes()["in.joint_layout"]
    layout[: len(joints)] = joints
    points = made.points.copy()
    for f, frame in enumerate(frames):
        for p, (x, y, height) in enumerate(person for person in frame if person is not None):
            points[f, p] = (np.array([x, y]) + layout * height) / (SIZE[1], SIZE[0])
    return made.with_points(points)


def pictures(driving) -> np.ndarray:
    return np.stack(list(driving.pictures()))


def test_the_reference_comes_first_and_the_clip_moves_onto_it():
    poses, reference = standing([PERSON], [(110.0, 100.0, 120.0)]), standing([(200.0, 110.0, 60.0)])
    driving = drive_by_poses(poses, reference, SIZE, STYLE, PoseSettings())
    drawn = pictures(driving)
    assert len(drawn) == driving.num_frames + 1 == 3
    assert np.array_equal(drawn[0], next(draw_clip(reference, SIZE, STYLE)))
    assert np.ptp(driving.poses.points[0, 0, :, 1]) == pytest.approx(np.ptp(reference.points[0, 0, :, 1]), rel=1e-6)
    assert np.array_equal(drawn, pictures(driving)), "pictures can be read again"


def test_without_a_reference_the_first_pose_that_shows_somebody_stands_for_it():
    poses = standing([None], [PERSON], [(130.0, 100.0, 120.0)])
    driving = drive_by_poses(poses, None, SIZE, STYLE, PoseSettings(gaps="blank"))
    drawn = pictures(driving)
    assert not drawn[1].any() and drawn[0].any()
    assert np.array_equal(drawn[0], drawn[2])
    assert "nothing is aligned" in driving.notes[0]


def test_a_reference_without_a_person_is_said():
    nobody = standing([None])
    driving = drive_by_poses(standing([PERSON]), nobody, SIZE, STYLE, PoseSettings())
    assert driving.notes[0].startswith("No person was found in the reference picture.")


@pytest.mark.parametrize("gaps", ["hold", "interpolate", "blank", "raise"])
def test_gaps(gaps):
    poses = standing([PERSON], [None], [(140.0, 100.0, 120.0)])
    settings = PoseSettings(gaps=gaps)
    if gaps == "raise":
        with pytest.raises(ValueError, match=r"1 of 3 frames \(frames 1\)"):
            clean(poses, settings)
        return
    first, middle, last = pictures(drive_by_poses(poses, None, SIZE, STYLE, settings))[1:]
    assert middle.any() == (gaps != "blank")
    assert np.array_equal(first, middle) == (gaps == "hold")
    assert not np.array_equal(middle, last)


@pytest.mark.parametrize("reference", [None, standing([PERSON])])
def test_nobody_anywhere_stops_unless_blank_was_asked_for(reference):
    nobody = standing([None], [None])
    with pytest.raises(ValueError, match="No person was found in any of the 2 frames"):
        drive_by_poses(nobody, reference, SIZE, STYLE, PoseSettings())
    assert not pictures(drive_by_poses(nobody, reference, SIZE, STYLE, PoseSettings(gaps="blank")))[1:].any()


def test_poses_of_another_size_keep_their_proportions():
    poses = standing([PERSON])
    driven = drive_by_poses(poses, None, TARGET, STYLE, PoseSettings())
    assert pictures(driven).shape == (2, *TARGET, 3)
    before, after = (np.ptp(p.pixels()[0, 0], axis=0) for p in (poses, driven.poses))
    assert after[0] / after[1] == pytest.approx(before[0] / before[1])


def test_one_person_or_all():
    two = standing([(100.0, 100.0, 120.0), (300.0, 100.0, 60.0)])
    halves = {
        people: pictures(drive_by_poses(two, None, SIZE, STYLE, PoseSettings(people=people)))[1].reshape(200, 2, -1)
        for people in ("largest", "all")
    }
    assert halves["largest"][:, 0].any() and not halves["largest"][:, 1].any()
    assert halves["all"][:, 0].any() and halves["all"][:, 1].any()


def test_parts_can_be_left_out():
    poses = standing([PERSON])
    everything = pictures(drive_by_poses(poses, None, SIZE, STYLE, PoseSettings()))
    settings = PoseSettings(body=False, hands=False, face=False)
    assert everything.any() and not pictures(drive_by_poses(poses, None, SIZE, STYLE, settings)).any()


@pytest.mark.parametrize(
    ("values", "words"), [({"person": -1}, "person is -1"), ({"min_score": float("nan")}, "min_score")]
)
def test_settings_that_cannot_work(values, words):
    with pytest.raises(ValueError, match=words):
        PoseSettings(**values)


def test_three_joints_make_a_person():
    poses = standing([PERSON])
    scores = np.zeros_like(poses.scores)
    scores[..., :2] = 0.9
    assert not has_person(poses.with_points(poses.points, scores))
    scores[..., 2] = 0.9
    assert has_person(poses.with_points(poses.points, scores))


@pytest.mark.parametrize("source", ["given", "detected", "first"])
def test_skeleton_pictures(source):
    skeletons = list(draw_clip(standing([PERSON], [(130.0, 100.0, 120.0)]), SIZE, STYLE))
    own = np.full((*TARGET, 3), 7, np.uint8)
    driving = drive_by_skeletons(
        lambda: skeletons, 2, 12.0, TARGET, STYLE, **({} if source == "first" else {source: own})
    )
    drawn = pictures(driving)
    assert drawn.shape == (3, *TARGET, 3) and driving.num_frames == 2 and driving.fps == 12
    assert np.array_equal(drawn[0], drawn[1] if source == "first" else own)
    words = {"given": "was given", "detected": "was found", "first": "first driving pose"}
    assert words[source] in driving.notes[-1].lower()
