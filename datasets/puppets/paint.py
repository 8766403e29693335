"""Draws a puppet: background, limbs, clothes, head; smooth edges by drawing large and shrinking."""

from __future__ import annotations

import cv2
import numpy as np

from ...pose.poses import LEFT_HAND, RIGHT_HAND
from .character import Character, Colour
from .skeleton import Skeleton

OVERSAMPLING = 3
_SHIFT = 4  # fractional bits of OpenCV's coordinates


def paint_background(character: Character, size: tuple[int, int]) -> np.ndarray:
    """uint8 (H * 3, W * 3, 3) RGB: a wall whose colour runs from `sky` to `wall`, and a floor."""
    height, width = (OVERSAMPLING * side for side in size)
    edge = round(character.horizon * height)
    share = np.linspace(0, 1, edge)[:, None]
    wall = (1 - share) * np.array(character.sky) + share * np.array(character.wall)
    rows = np.concatenate([wall, np.tile(np.array(character.floor, float), (height - edge, 1))])
    return np.broadcast_to(rows[:, None].round().astype(np.uint8), (height, width, 3)).copy()


def paint(character: Character, skeleton: Skeleton, background: np.ndarray) -> np.ndarray:
    """uint8 (H, W, 3) RGB: the puppet as `skeleton` has it before `background` (`paint_background`, not changed)."""
    brush = _Brush(background.copy(), skeleton, character)
    brush.hair_behind()
    arms = sorted(("left", "right"), key=brush.arm_depth)
    legs = sorted(("left", "right"), key=brush.leg_depth)
    behind = [side for side in arms if brush.arm_depth(side) < 0]
    for side in behind:
        brush.arm(side)
    for side in legs:
        brush.leg(side)
    brush.torso()
    brush.head()
    for side in arms:
        if side not in behind:
            brush.arm(side)
    height, width = skeleton.size
    return cv2.resize(brush.canvas, (width, height), interpolation=cv2.INTER_AREA)


class _Brush:
    def __init__(self, canvas: np.ndarray, skeleton: Skeleton, character: Character) -> None:
        self.canvas, self.skeleton, self.character = canvas, skeleton, character
        self.xy = skeleton.points * OVERSAMPLING
        self.unit = skeleton.unit * OVERSAMPLING

    def arm_depth(self, side: str) -> float:
        joints = [5, 6, 7] if side == "left" else [2, 3, 4]
        return float(self.skeleton.depth[joints].mean() / self.skeleton.unit + 0.02)

    def leg_depth(self, side: str) -> float:
        return float(self.skeleton.depth[[11, 12, 13] if side == "left" else [8, 9, 10]].mean())

    def line(self, a: np.ndarray, b: np.ndarray, colour: Colour, thickness: float) -> None:
        ends = [tuple((p * 2**_SHIFT).round().astype(int).tolist()) for p in (a, b)]
        cv2.line(self.canvas, *ends, colour, max(round(thickness * self.unit), 1), cv2.LINE_AA, _SHIFT)

    def disc(self, centre: np.ndarray, axes: tuple[float, float], colour: Colour, angle: float = 0.0) -> None:
        centre = tuple((centre * 2**_SHIFT).round().astype(int).tolist())
        axes = tuple(round(axis * self.unit * 2**_SHIFT) for axis in axes)
        cv2.ellipse(self.canvas, centre, axes, angle, 0, 360, colour, -1, cv2.LINE_AA, _SHIFT)

    def arm(self, side: str) -> None:
        c = self.character
        shoulder, elbow, wrist = self.xy[[5, 6, 7] if side == "left" else [2, 3, 4]]
        sleeve = c.skin if c.short_sleeves else c.top
        self.line(elbow, wrist, sleeve, c.limb)
        self.line(shoulder, elbow, c.top, 1.1 * c.limb)
        hand = self.xy[LEFT_HAND if side == "left" else RIGHT_HAND]
        for finger in range(5):
            self.line(hand[1 + 4 * finger], hand[4 + 4 * finger], c.skin, 0.3 * c.limb)
        self.disc(hand[[0, 5, 17]].mean(0), (0.55 * c.limb, 0.55 * c.limb), c.skin)

    def leg(self, side: str) -> None:
        c = self.character
        hip, knee, ankle = self.xy[[11, 12, 13] if side == "left" else [8, 9, 10]]
        toe, _, heel = self.xy[18:21] if side == "left" else self.xy[21:24]
        self.line(knee, ankle, c.skin if c.shorts else c.trousers, 1.15 * c.limb)
        self.line(hip, knee, c.trousers, 1.4 * c.limb)
        self.line(heel, toe, c.shoes, 0.75 * c.limb)

    def torso(self) -> None:
        c = self.character
        shoulders, hips = self.xy[[2, 5]], self.xy[[8, 11]]
        outline = np.concatenate([shoulders, hips[::-1]])
        cv2.fillPoly(self.canvas, [(outline * 2**_SHIFT).round().astype(np.int32)], c.top, cv2.LINE_AA, _SHIFT)
        for a, b in ((0, 1), (1, 2), (3, 0)):
            self.line(outline[a], outline[b], c.top, 1.1 * c.limb)
        self.line(hips[0], hips[1], c.trousers, 1.4 * c.limb)
        if c.pattern == "stripes":
            for share in (0.2, 0.5, 0.8):
                ends = (1 - share) * shoulders + share * hips
                self.line(ends[0], ends[1], c.trim, 0.045)
        elif c.pattern == "sash":
            self.line(shoulders[0], hips[1], c.trim, 0.06)

    def _head_frame(self) -> tuple[np.ndarray, np.ndarray, float]:
        """Centre of the head, its direction upwards (pixels, length 1) and its tilt in degrees."""
        centre = self.xy[[16, 17]].mean(0)
        up = centre - self.xy[1]
        up = up / max(float(np.linalg.norm(up)), 1e-6)
        return centre, up, float(np.degrees(np.arctan2(up[0], -up[1])))

    def hair_behind(self) -> None:
        c = self.character
        centre, up, tilt = self._head_frame()
        if c.hair == "long":
            self.disc(centre - 0.7 * c.head * self.unit * up, (1.05 * c.head, 1.5 * c.head), c.hair_colour, tilt)

    def head(self) -> None:
        c = self.character
        centre, up, tilt = self._head_frame()
        self.line(self.xy[1], centre, c.skin, 0.06)
        if c.hair == "bun":
            self.disc(centre + 1.2 * c.head * self.unit * up, (0.4 * c.head, 0.4 * c.head), c.hair_colour)
        self.disc(centre, (0.85 * c.head, c.head), c.skin, tilt)
        self._hair_on_top(centre, tilt)
        scores = self.skeleton.scores
        for eye in (14, 15):
            if scores[eye] >= 0.5:
                self.disc(self.xy[eye], (0.12 * c.head, 0.16 * c.head), (30, 30, 40))
        mouth = self.xy[24 + np.array([48, 54])]
        if scores[0] >= 0.5:
            self.line(mouth[0], mouth[1], (170, 50, 60), 0.14 * c.head)

    def _hair_on_top(self, centre: np.ndarray, tilt: float) -> None:
        c = self.character
        scaled = tuple((centre * 2**_SHIFT).round().astype(int).tolist())
        axes = tuple(round(axis * c.head * self.unit * 2**_SHIFT) for axis in (0.92, 1.08))
        start = 190 if c.hair != "cap" else 180
        # Turning the head moves the hairline the other way, so that a turned head shows its side.
        shift = float(np.degrees(self.skeleton.yaw)) * 0.45
        cv2.ellipse(
            self.canvas, scaled, axes, tilt - shift, start, 360 - (start - 180), c.hair_colour, -1, cv2.LINE_AA, _SHIFT
        )
