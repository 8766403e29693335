"""The drawn data set: the same everywhere, and its keypoints lie where the picture has them."""

from __future__ import annotations

import subprocess
import sys
from hashlib import sha256

import numpy as np
import pytest
from choreo.datasets.puppets import Puppets, render
from choreo.datasets.puppets.motion import CHANNELS, KINDS, draw_motion
from choreo.datasets.puppets.skeleton import HIDDEN, pose_skeleton
from choreo.pose.draw import draw_clip
from choreo.pose.poses import FACE, LEFT_HAND, RIGHT_HAND

SIZE = (128, 128)


def digest(index: int, seed: int, held_out: bool = False) -> str:
    clip = Puppets(held_out).clip(index, 3, SIZE, seed)
    return sha256(clip.frames.tobytes() + clip.poses.points.tobytes() + clip.reference.tobytes()).hexdigest()


def test_a_clip_is_the_same_in_every_process():
    code = "from tests.test_puppets import digest; print(digest(5, 7))"
    command = [sys.executable, "-P", "-c", f"import sys; sys.path.insert(0, '.'); {code}"]
    out = subprocess.run(command, capture_output=True, text=True, check=True)
    assert out.stdout.strip() == digest(5, 7)


def test_index_seed_and_part_choose_the_clip():
    assert len({digest(5, 7), digest(6, 7), digest(5, 8), digest(5, 7, held_out=True)}) == 4
    puppets = Puppets()
    assert puppets.clip(5, 1, SIZE, 7).name != puppets.clip(6, 1, SIZE, 7).name
    assert puppets.character(5) == Puppets().character(5)
    assert puppets.character(5) not in {Puppets(held_out=True).character(i) for i in range(20)}


def test_longer_clips_begin_like_shorter_ones():
    short, long = (Puppets().clip(3, frames, SIZE) for frames in (2, 5))
    np.testing.assert_array_equal(short.frames, long.frames[:2])
    np.testing.assert_array_equal(short.poses.points, long.poses.points[:2])


@pytest.mark.parametrize("size", [(128, 128), (192, 128), (96, 160)], ids=str)
def test_a_clip_is_what_its_docstring_says(size):
    clip = Puppets().clip(1, 4, size)
    assert clip.frames.shape == clip.pose_pictures.shape == (4, *size, 3) and clip.frames.dtype == np.uint8
    assert clip.reference.shape == (*size, 3) and clip.poses.size == size and len(clip.poses) == 4
    np.testing.assert_array_equal(clip.pose_pictures, list(draw_clip(clip.poses, size, "mimicmotion")))


def still(**channels: float) -> dict[str, float]:
    return dict.fromkeys(CHANNELS, 0.0) | {"scale": 1.0, "fingers": 0.5, "left_arm": 30.0, "right_arm": 30.0} | channels


def test_joints_lie_on_what_they_name():
    """At large size the colours around joints are those of the clothes and the skin there."""
    for index in range(12):
        character = Puppets().character(index)
        motion = draw_motion(np.random.default_rng(index), "wave")
        frames, poses = render(character, motion, 1, (512, 512))
        xy = poses.points[0, 0] * 512
        seen = {"wrist": xy[4], "elbow": xy[3], "chest": 0.35 * xy[1] + 0.65 * xy[[8, 11]].mean(0), "ankle": xy[10]}
        want = {"elbow": [character.top, character.skin], "wrist": [character.skin, character.top]}
        want |= {"ankle": [character.trousers, character.skin, character.shoes]}
        want |= {"chest": [character.top, character.trim, character.skin]}
        for name, (x, y) in seen.items():
            colour = frames[0, int(y), int(x)].astype(int)
            assert min(abs(colour - other).max() for other in want[name]) <= 2, (index, name)


def test_the_left_of_a_puppet_that_faces_us_is_on_the_right():
    skeleton = pose_skeleton(Puppets().character(0), still(), SIZE)
    assert skeleton.points[5, 0] > skeleton.points[2, 0]  # shoulders
    assert skeleton.points[15, 0] > skeleton.points[14, 0]  # eyes
    assert skeleton.points[LEFT_HAND, 0].min() > skeleton.points[RIGHT_HAND, 0].max()
    jaw = skeleton.points[FACE][:17, 0]
    assert jaw[0] < jaw[-1]  # iBUG counts from the picture's left
    assert skeleton.points[1, 1] < skeleton.points[8, 1] < skeleton.points[10, 1]  # neck, hip, ankle, downwards


def test_turning_hides_the_far_side_of_the_head():
    character = Puppets().character(0)
    front, turned = (pose_skeleton(character, still(yaw=yaw), SIZE) for yaw in (0.0, 70.0))
    assert front.scores[[14, 15, 16, 17]].min() == 1
    # Turned to its left the puppet shows its right side.
    assert turned.scores[16] == 1 and turned.scores[17] == HIDDEN
    assert np.ptp(turned.points[[2, 5], 0]) < 0.6 * np.ptp(front.points[[2, 5], 0])


def test_points_outside_the_picture_have_no_score():
    skeleton = pose_skeleton(Puppets().character(0), still(x=0.5), SIZE)
    outside = skeleton.points[:, 0] >= SIZE[1]
    assert outside.any() and not outside.all()
    assert (skeleton.scores[outside] == 0).all() and (skeleton.scores[~outside] > 0).all()


@pytest.mark.parametrize("kind", KINDS)
def test_every_motion_moves(kind):
    motion = draw_motion(np.random.default_rng(1), kind)
    _, poses = render(Puppets().character(2), motion, 16, SIZE)
    assert np.ptp(poses.points[:, 0, :18], axis=0).max() > 0.1
    assert np.isfinite(poses.points).all()


def test_puppets_differ():
    colours = np.stack([Puppets().character(i).colours() for i in range(200)])
    assert (colours.std(0) > 0.1).all()
