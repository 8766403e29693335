"""MimicMotion's drawing in its published order of work, written plainly: the yardstick for `choreo.pose.draw`.

A fresh canvas of 2160 pixels short side, limbs at full strength, a floating point pass that dims all of it, then
joints, hands and faces, a bilinear shrink of the whole canvas and a reversal of the channels.
"""

from __future__ import annotations

import colorsys
import math

import cv2
import numpy as np

LIMBS = (
    *((2, 3), (2, 6), (3, 4), (4, 5), (6, 7), (7, 8), (2, 9), (9, 10), (10, 11), (2, 12), (12, 13), (13, 14)),
    *((2, 1), (1, 15), (15, 17), (1, 16), (16, 18)),
)
COLOURS = (
    *((255, 0, 0), (255, 85, 0), (255, 170, 0), (255, 255, 0), (170, 255, 0), (85, 255, 0), (0, 255, 0)),
    *((0, 255, 85), (0, 255, 170), (0, 255, 255), (0, 170, 255), (0, 85, 255), (0, 0, 255), (85, 0, 255)),
    *((170, 0, 255), (255, 0, 255), (255, 0, 170), (255, 0, 85)),
)
EDGES = (
    *((0, 1), (1, 2), (2, 3), (3, 4), (0, 5), (5, 6), (6, 7), (7, 8), (0, 9), (9, 10)),
    *((10, 11), (11, 12), (0, 13), (13, 14), (14, 15), (15, 16), (0, 17), (17, 18), (18, 19), (19, 20)),
)


def draw_published(points: np.ndarray, scores: np.ndarray, size: tuple[int, int], ref_w: int = 2160) -> np.ndarray:
    """points (n, 134, 2) shares, scores (n, 134), size (height, width) -> uint8 (height, width, 3), MimicMotion's."""
    height, width = size
    scale = ref_w / min(size) if min(size) != ref_w else 1
    canvas = np.zeros((int(height * scale), int(width * scale), 3), dtype=np.uint8)
    canvas = _draw_body(canvas, points[:, :18], scores[:, :18])
    for part in (slice(92, 113), slice(113, 134)):
        for hand, hand_scores in zip(points[:, part], scores[:, part], strict=True):
            _draw_hand(canvas, hand, hand_scores)
    for face, face_scores in zip(points[:, 24:92], scores[:, 24:92], strict=True):
        _draw_face(canvas, face, face_scores)
    return cv2.resize(canvas, (width, height))[:, :, ::-1].copy()


def _draw_body(canvas: np.ndarray, body: np.ndarray, scores: np.ndarray) -> np.ndarray:
    height, width = canvas.shape[:2]
    candidate = body.reshape(-1, 2)
    subset = np.where(scores > 0.3, np.arange(scores.size).reshape(scores.shape), -1)
    for i, limb in enumerate(LIMBS):
        for n in range(len(subset)):
            pair = np.array(limb) - 1
            confidence = scores[n][pair]
            if confidence[0] < 0.3 or confidence[1] < 0.3:
                continue
            rows = subset[n][pair]
            across = candidate[rows, 0] * float(width)
            down = candidate[rows, 1] * float(height)
            length = ((down[0] - down[1]) ** 2 + (across[0] - across[1]) ** 2) ** 0.5
            angle = math.degrees(math.atan2(down[0] - down[1], across[0] - across[1]))
            centre = int(np.mean(across)), int(np.mean(down))
            polygon = cv2.ellipse2Poly(centre, (int(length / 2), 4), int(angle), 0, 360, 1)
            strength = confidence[0] * confidence[1]
            cv2.fillConvexPoly(canvas, polygon, [int(c * strength) for c in COLOURS[i]])
    canvas = (canvas * 0.6).astype(np.uint8)
    for i in range(18):
        for n in range(len(subset)):
            if subset[n][i] == -1:
                continue
            x, y = candidate[subset[n][i]]
            colour = [int(c * scores[n][i]) for c in COLOURS[i]]
            cv2.circle(canvas, (int(x * width), int(y * height)), 4, colour, thickness=-1)
    return canvas


def _draw_hand(canvas: np.ndarray, hand: np.ndarray, scores: np.ndarray) -> None:
    height, width = canvas.shape[:2]
    for i, (a, b) in enumerate(EDGES):
        x1, y1 = int(hand[a][0] * width), int(hand[a][1] * height)
        x2, y2 = int(hand[b][0] * width), int(hand[b][1] * height)
        level = int(scores[a] * scores[b] * 255)
        if min(x1, y1, x2, y2) > 0.01:
            colour = np.array(colorsys.hsv_to_rgb(i / float(len(EDGES)), 1.0, 1.0)) * level
            cv2.line(canvas, (x1, y1), (x2, y2), colour.tolist(), thickness=2)
    for (x, y), score in zip(hand, scores, strict=True):
        centre = int(x * width), int(y * height)
        if min(centre) > 0.01:
            cv2.circle(canvas, centre, 4, (0, 0, int(score * 255)), thickness=-1)


def _draw_face(canvas: np.ndarray, face: np.ndarray, scores: np.ndarray) -> None:
    height, width = canvas.shape[:2]
    for (x, y), score in zip(face, scores, strict=True):
        centre = int(x * width), int(y * height)
        if min(centre) > 0.01:
            cv2.circle(canvas, centre, 3, (int(score * 255),) * 3, thickness=-1)
