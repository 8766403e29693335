"""Drawing of poses in every published convention (`styles.py` holds what differs between them)."""

from __future__ import annotations

from collections.abc import Iterator

import cv2
import numpy as np

from .canvas import Canvas
from .poses import BODY, FACE, LEFT_HAND, NUM_POINTS, RIGHT_HAND, Poses
from .styles import FACE_DOT, HAND_DOT, HAND_EDGE_COLOURS, HAND_EDGES, Style, find_style
from .wholebody import FACE_EYES

_FARTHEST = 1e6  # pixels; anything beyond is a runaway value that OpenCV's integers need not hold
_JOINT_RADIUS, _FACE_RADIUS, _HAND_LINE_WIDTH = 4, 3, 2
_LEFT_EAR = 17  # the last row of a person in the published body tables


class _Part:
    """One part (body, hand or face) of all people of a frame, in pixels of the canvas.

    xy: (n, k, 2) float pixels; whole: the same truncated, nested lists; scores: nested lists (n, k);
    visible: nested lists (n, k), false for points that no style can draw.
    """

    def __init__(self, xy: np.ndarray, scores: np.ndarray, visible: np.ndarray, scale: np.ndarray) -> None:
        xy = xy * scale
        with np.errstate(invalid="ignore"):
            possible = (np.abs(xy) < _FARTHEST).all(axis=-1)
        self.xy = np.where(possible[..., None], xy, 0.0)
        self.whole = self.xy.astype(np.int64).tolist()
        self.scores = scores.tolist()
        self.visible = (visible & possible & np.isfinite(scores)).tolist()


class Renderer:
    """Draws frames of one size in one style; keeps its canvas between frames, but never anything drawn on it.

    style: name of one of `STYLES`, or a :class:`Style`.
    size:  (height, width) of the pictures in pixels.
    body, hands, face: what to draw.
    published: also repeat what MimicMotion's and StableAnimator's own code does with a body joint whose
        score is exactly the threshold (it has no dot, and its limbs end at the last person's left ear), and draw
        small pictures on the published canvas, which thins their limbs to dotted traces.

    Not for use from two threads at once. Follows sections 5.1 to 5.4 of the published conventions (docs/drawing.md).
    """

    def __init__(
        self,
        style: str | Style,
        size: tuple[int, int],
        body: bool = True,
        hands: bool = True,
        face: bool = True,
        *,
        published: bool = False,
    ) -> None:
        self.style = find_style(style)
        self.size = int(size[0]), int(size[1])
        if min(self.size) < 1:
            raise ValueError(f"A drawing needs a size (height, width) of at least 1 pixel, got {size}.")
        self.body = body
        self.hands = hands and self.style.hands
        self.face = face and self.style.face
        self.published = published and self.style.confidence
        self._canvas = Canvas(self.style.canvas(self.size, published))
        self._stick = self.style.stick(self._canvas.size)

    def draw(self, points: np.ndarray, scores: np.ndarray, units: str = "shares") -> np.ndarray:
        """One frame: points (n, 134, 2), scores (n, 134) -> uint8 (height, width, 3), RGB as the network gets it.

        units: "shares" when points are shares of width and height, "pixels" when they are pixels of the picture;
        "by part" decides for each body, hand and face of each person as controlnet_aux does: shares if no visible
        coordinate exceeds 1. The returned array is fresh.
        """
        points, scores = np.asarray(points, np.float64), np.asarray(scores, np.float64)
        if points.shape[1:] != (NUM_POINTS, 2) or scores.shape != points.shape[:2]:
            raise ValueError(
                f"Drawing needs points (n, {NUM_POINTS}, 2) and scores (n, {NUM_POINTS}), "
                f"got {points.shape} and {scores.shape}."
            )
        self._canvas.clear()
        people = len(points)
        groups = np.split(np.arange(people), people) if self.style.person_by_person and people else [slice(None)]
        for group in groups:
            self._draw_group(points[group], scores[group], units)
        return self._canvas.picture(self.size)

    def _draw_group(self, points: np.ndarray, scores: np.ndarray, units: str) -> None:
        seen = scores >= self.style.threshold
        dotted = seen if self.style.at_threshold else scores > self.style.threshold
        shown = np.ones_like(seen) if self.style.confidence else seen
        if self.body:
            self._draw_body(points, scores, dotted, units)
        if self.hands:
            for side in (LEFT_HAND, RIGHT_HAND):
                self._draw_hands(self._part(points[:, side], scores[:, side], shown[:, side], units))
        if self.face:
            index = np.arange(NUM_POINTS)[FACE]
            if self.style.eyes_in_face:
                index = np.append(index, FACE_EYES)
            self._draw_faces(self._part(points[:, index], scores[:, index], shown[:, index], units))

    def _part(self, xy: np.ndarray, scores: np.ndarray, visible: np.ndarray, units: str) -> _Part:
        canvas = np.array(self._canvas.size[::-1], dtype=np.float64)
        per_pixel = canvas / self.size[::-1]
        if units == "shares":
            scale = canvas
        elif units == "pixels":
            scale = per_pixel
        elif units == "by part":
            shares = np.where(visible[..., None], np.abs(xy) <= 1, True).all(axis=(1, 2), keepdims=True)
            scale = np.where(shares, canvas, per_pixel)
        else:
            raise ValueError(f'Unknown units {units!r}; choose "shares", "pixels" or "by part".')
        return _Part(xy, scores, visible, scale)

    def _colour(self, red: float, green: float, blue: float) -> tuple[float, float, float]:
        return (blue, green, red) if self.style.channel_order == "reversed" else (red, green, blue)

    def _draw_body(self, points: np.ndarray, scores: np.ndarray, dotted: np.ndarray, units: str) -> None:
        body = self._part(points[:, BODY], scores[:, BODY], dotted[:, BODY], units)
        limbs = self._published_limbs(body, units, points, scores) if self.published else body
        people = range(len(points))
        for (a, b), colour in zip(self.style.limbs, self.style.limb_colours, strict=False):
            for n in people:
                if limbs.visible[n][a] and limbs.visible[n][b]:
                    self._draw_limb(limbs, n, a, b, colour)
        for joint, colour in enumerate(self.style.joint_colours):
            for n in people:
                if body.visible[n][joint]:
                    score = body.scores[n][joint] if self.style.confidence else 1.0
                    dimmed = (int(c * score) for c in colour)
                    self._canvas.dot(body.whole[n][joint], _JOINT_RADIUS, self._colour(*dimmed))

    def _draw_limb(self, limbs: _Part, person: int, a: int, b: int, colour: tuple[int, int, int]) -> None:
        scores = limbs.scores[person]
        score = scores[a] * scores[b] if self.style.confidence else 1.0
        # what is published dims the whole canvas after all limbs; nothing else is on it yet
        dimmed = self._colour(*(int(min(255, int(c * score)) * self.style.limb_dimming) for c in colour))
        if self.style.line_width is not None:
            self._canvas.line(limbs.whole[person][a], limbs.whole[person][b], self._stick, dimmed)
        else:
            start, end = limbs.xy[person, a].tolist(), limbs.xy[person, b].tolist()
            self._canvas.stick(start, end, self._stick, dimmed)

    def _published_limbs(self, body: _Part, units: str, points: np.ndarray, scores: np.ndarray) -> _Part:
        scores = scores[:, BODY]
        at_threshold = (scores == self.style.threshold)[..., None]
        moved = np.where(at_threshold, points[-1:, _LEFT_EAR, None], points[:, BODY])
        return self._part(moved, scores, scores >= self.style.threshold, units)

    def _draw_hands(self, hands: _Part) -> None:
        for whole, scores, visible in zip(hands.whole, hands.scores, hands.visible, strict=True):
            inside = [seen and x >= 1 and y >= 1 for seen, (x, y) in zip(visible, whole, strict=True)]
            for (a, b), colour in zip(HAND_EDGES, HAND_EDGE_COLOURS, strict=True):
                if inside[a] and inside[b]:
                    level = int(scores[a] * scores[b] * 255) if self.style.confidence else 255
                    colour_level = self._colour(*(c * level for c in colour))
                    self._canvas.line(whole[a], whole[b], _HAND_LINE_WIDTH, colour_level)
            self._draw_dots(whole, scores, inside, _JOINT_RADIUS, HAND_DOT)

    def _draw_faces(self, faces: _Part) -> None:
        for whole, scores, visible in zip(faces.whole, faces.scores, faces.visible, strict=True):
            inside = [seen and x >= 1 and y >= 1 for seen, (x, y) in zip(visible, whole, strict=True)]
            self._draw_dots(whole, scores, inside, _FACE_RADIUS, FACE_DOT)

    def _draw_dots(
        self, whole: list, scores: list[float], inside: list[bool], radius: int, colour: tuple[int, int, int]
    ) -> None:
        on = [channel > 0 for channel in self._colour(*colour)]
        for centre, score, seen in zip(whole, scores, inside, strict=True):
            if seen:
                level = int(score * 255) if self.style.confidence else 255
                self._canvas.dot(centre, radius, [level * channel for channel in on])


def draw_clip(
    poses: Poses,
    size: tuple[int, int],
    style: str | Style,
    *,
    body: bool = True,
    hands: bool = True,
    face: bool = True,
    published: bool = False,
) -> Iterator[np.ndarray]:
    """Drawings of all frames, one by one: uint8 (height, width, 3) RGB; see :class:`Renderer`.

    Points are shares of the canvas: a clip whose canvas has another ratio than `size` is drawn stretched, so bring
    it to the ratio first (`pose.align`).
    """
    renderer = Renderer(style, size, body, hands, face, published=published)
    for frame in range(len(poses)):
        yield renderer.draw(*poses.frame(frame))


def overlay(picture: np.ndarray, drawing: np.ndarray, strength: float = 0.8) -> np.ndarray:
    """A drawing laid over the picture it was made from, for checking; both uint8 (height, width, 3), fresh result.

    strength: share of the drawing where it is not black, 0..1.
    """
    if picture.shape != drawing.shape:
        raise ValueError(f"The picture {picture.shape} and its drawing {drawing.shape} must have the same size.")
    mixed = cv2.addWeighted(picture, 1 - strength, drawing, strength, 0)
    return np.where(drawing.any(axis=-1, keepdims=True), mixed, picture)
