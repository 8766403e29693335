"""From joint angles to the 134 whole-body points, in space and on the picture."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ...pose.poses import FACE, FEET, LEFT_HAND, NUM_POINTS, RIGHT_HAND
from .character import Character

HIDDEN = 0.2  # score of a point on the far side of the head: below what is drawn
BEHIND = 0.5  # score of an arm behind the body
_FINGERS = np.radians([-50.0, -22.0, 0.0, 20.0, 42.0])  # thumb first


@dataclass(frozen=True, eq=False)
class Skeleton:
    """One frame of a puppet.

    points: float64 (134, 2), pixels of a picture of `size` (height, width), OpenPose order (`pose/poses.py`).
    depth:  float64 (134,), towards the viewer, in pixels.
    scores: float64 (134,): 1 visible, BEHIND or HIDDEN, 0 outside the picture.
    unit:   pixels per body height; yaw in radians, positive when the puppet turns to its left.
    """

    points: np.ndarray
    depth: np.ndarray
    scores: np.ndarray
    size: tuple[int, int]
    unit: float
    yaw: float


def pose_skeleton(character: Character, at: dict[str, float], size: tuple[int, int]) -> Skeleton:
    """Where the joints of `character` are under the channel values `at` (`Motion.at`) in a picture of `size`."""
    yaw = np.radians(at["yaw"])
    joints = _turned(_stand(character, at), yaw)
    height, width = size
    unit = character.height * at["scale"] * min(height, width)
    ground = height * (0.93 - 0.3 * (1 - at["scale"]))
    lowest = joints[FEET, 1].min()
    points = np.empty((NUM_POINTS, 2))
    points[:, 0] = width / 2 + at["x"] * min(height, width) + joints[:, 0] * unit
    points[:, 1] = ground - (joints[:, 1] - lowest + max(at["jump"], 0)) * unit
    depth = joints[:, 2] * unit
    return Skeleton(points, depth, _scores(points, joints, character, yaw, size), size, unit, yaw)


def _direction(spread: float, swing: float, side: int) -> np.ndarray:
    """A unit vector that hangs down, spread sideways (to `side`), then swung forward; angles in degrees."""
    spread, swing = np.radians(spread), np.radians(swing)
    down = np.cos(spread)
    return np.array([side * np.sin(spread), -down * np.cos(swing), down * np.sin(swing)])


def _stand(c: Character, at: dict[str, float]) -> np.ndarray:
    """float64 (134, 3): joints before the turn; x to the picture's right, y up, z to the viewer; the hips at 0."""
    joints = np.zeros((NUM_POINTS, 3))
    lean, tilt = np.radians(at["lean"]), np.radians(at["lean"] + at["tilt"])
    up, across = np.array([np.sin(lean), np.cos(lean), 0.0]), np.array([np.cos(lean), -np.sin(lean), 0.0])
    neck = c.torso * up
    joints[1] = neck
    # The person's left is on the picture's right as it faces us.
    sides = (("left", 1, 5, 11, 18, LEFT_HAND), ("right", -1, 2, 8, 21, RIGHT_HAND))
    for name, side, shoulder, hip, foot, hand in sides:
        joints[shoulder] = neck + side * c.shoulders * across
        spread, swing = at[f"{name}_arm"], at[f"{name}_swing"]
        joints[shoulder + 1] = joints[shoulder] + c.arm / 2 * _direction(spread, swing, side)
        fore = _direction(spread + at[f"{name}_elbow"], swing + at[f"{name}_elbow_swing"], side)
        joints[shoulder + 2] = joints[shoulder + 1] + c.arm / 2 * fore
        joints[hand] = _hand(joints[shoulder + 2], fore, side, c.limb, at["fingers"])
        joints[hip] = side * c.hips * np.array([1.0, 0.0, 0.0])
        spread, swing = at[f"{name}_leg"], at[f"{name}_leg_swing"]
        joints[hip + 1] = joints[hip] + c.leg / 2 * _direction(spread, swing, side)
        joints[hip + 2] = joints[hip + 1] + c.leg / 2 * _direction(spread, swing - max(at[f"{name}_knee"], 0), side)
        ankle = joints[hip + 2]
        joints[foot] = ankle + np.array([side * 0.03, -0.03, 0.07])
        joints[foot + 1] = ankle + np.array([side * 0.05, -0.03, 0.05])
        joints[foot + 2] = ankle + np.array([0.0, -0.035, -0.02])
    _head(joints, neck, np.array([np.sin(tilt), np.cos(tilt), 0.0]), c.head)
    return joints


def _hand(wrist: np.ndarray, along: np.ndarray, side: int, limb: float, spread: float) -> np.ndarray:
    """float64 (21, 3): wrist, then four points of each finger, thumb first."""
    across = np.array([-along[1], along[0], 0.0]) * -side
    points = [wrist]
    for i, angle in enumerate(_FINGERS * (0.35 + 0.65 * spread)):
        reach = 1.35 * limb * (0.75 if i == 0 else 1.0)
        finger = np.cos(angle) * along + np.sin(angle) * across
        points += [wrist + reach * share * finger for share in (0.45, 0.65, 0.83, 1.0)]
    return np.array(points)


def _head(joints: np.ndarray, neck: np.ndarray, up: np.ndarray, head: float) -> None:
    right = np.array([up[1], -up[0], 0.0])
    centre = neck + (0.02 + head) * up

    def place(points: np.ndarray) -> np.ndarray:
        """Face coordinates (x to the picture's right, y up, both in half heads) onto the front of the head."""
        x, y = 0.82 * points[:, :1], points[:, 1:]
        front = np.sqrt(np.clip(1 - (x / 0.85) ** 2 - (0.8 * y) ** 2, 0, 1)) * 0.85
        return centre + head * (x * right + y * up + front * np.array([0.0, 0.0, 1.0]))

    joints[[0, 14, 15]] = place(np.array([[0.0, -0.12], [-0.38, 0.12], [0.38, 0.12]]))
    joints[[16, 17]] = centre + 0.85 * head * np.array([[-1.0], [1.0]]) * right
    joints[FACE] = place(_face())


def _face() -> np.ndarray:
    """float64 (68, 2): the iBUG points of a plain face, in half heads, y up."""
    jaw = np.linspace(-0.5 * np.pi, 0.5 * np.pi, 17)
    outline = np.stack([0.88 * np.sin(jaw), 0.1 - 0.98 * np.cos(jaw)], 1)
    brow = np.stack([np.linspace(-0.6, -0.18, 5), 0.3 + 0.06 * np.sin(np.linspace(0, np.pi, 5))], 1)
    nose = np.stack([np.zeros(4), np.linspace(0.12, -0.12, 4)], 1)
    nostrils = np.stack([np.linspace(-0.14, 0.14, 5), [-0.2, -0.22, -0.24, -0.22, -0.2]], 1)
    turn = np.radians([180, 120, 60, 0, -60, -120])
    eye = np.stack([-0.38 + 0.13 * np.cos(turn), 0.12 + 0.07 * np.sin(turn)], 1)
    lips = np.radians(180 - 30.0 * np.arange(12))
    outer = np.stack([0.28 * np.cos(lips), -0.5 + 0.1 * np.sin(lips)], 1)
    inner_turn = np.radians(180 - 45.0 * np.arange(8))
    inner = np.stack([0.2 * np.cos(inner_turn), -0.5 + 0.04 * np.sin(inner_turn)], 1)
    mirror = np.array([-1.0, 1.0])
    other_eye = (eye * mirror)[[3, 2, 1, 0, 5, 4]]
    return np.concatenate([outline, brow, (brow * mirror)[::-1], nose, nostrils, eye, other_eye, outer, inner])


def _turned(joints: np.ndarray, yaw: float) -> np.ndarray:
    turned = joints.copy()
    turned[:, 0] = np.cos(yaw) * joints[:, 0] + np.sin(yaw) * joints[:, 2]
    turned[:, 2] = -np.sin(yaw) * joints[:, 0] + np.cos(yaw) * joints[:, 2]
    return turned


def _scores(
    points: np.ndarray, joints: np.ndarray, character: Character, yaw: float, size: tuple[int, int]
) -> np.ndarray:
    scores = np.ones(NUM_POINTS)
    torso_half = max(abs(np.cos(yaw)) * character.shoulders, character.limb)
    arms = [3, 4, 6, 7, *range(*LEFT_HAND.indices(NUM_POINTS)), *range(*RIGHT_HAND.indices(NUM_POINTS))]
    behind = (joints[:, 2] < -0.03) & (abs(joints[:, 0]) < torso_half) & (joints[:, 1] < character.torso)
    scores[arms] = np.where(behind[arms], BEHIND, 1.0)
    centre = joints[[16, 17]].mean(0)
    head = [0, 14, 15, 16, 17, *range(*FACE.indices(NUM_POINTS))]
    # An ear lies on the rim: it hides sooner than the face points in front of it.
    limit = np.where(np.isin(head, [16, 17]), -0.03, -0.01)
    scores[head] = np.where(joints[head, 2] - centre[2] < limit, HIDDEN, 1.0)
    height, width = size
    inside = (points >= 0).all(1) & (points[:, 0] < width) & (points[:, 1] < height)
    scores[~inside] = 0.0
    return scores
