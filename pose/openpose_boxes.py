"""The squares that the OpenPose annotator cuts out for its hand and face networks (MagicPose's data)."""

from __future__ import annotations

import numpy as np

MIN_SIDE = 20  # pixels
ARMS = ((5, 6, 7, True), (2, 3, 4, False))  # shoulder, elbow, wrist of the left arm, then of the right
NOSE, EYES, EARS = 0, (14, 15), (16, 17)


def hand_boxes(points: np.ndarray, visible: np.ndarray, size: tuple[int, int]) -> list[tuple[int, int, int, bool]]:
    """(x, y, side, is_left) of the hands of one person whose whole arm is visible, left before right.

    points (18, 2) in pixels and visible (18) bool, OpenPose body order; size (height, width) of the picture.
    """
    boxes = []
    for shoulder, elbow, wrist, is_left in ARMS:
        if not (visible[shoulder] and visible[elbow] and visible[wrist]):
            continue
        forearm, upper_arm = points[wrist] - points[elbow], points[elbow] - points[shoulder]
        side = 1.5 * max(np.linalg.norm(forearm), 0.9 * np.linalg.norm(upper_arm))
        x, y = np.maximum(points[wrist] + 0.33 * forearm - side / 2, 0)
        side = min(side, size[1] - x, size[0] - y)
        if side >= MIN_SIDE:
            boxes.append((int(x), int(y), int(side), is_left))
    return boxes


def face_box(points: np.ndarray, visible: np.ndarray, size: tuple[int, int]) -> tuple[int, int, int] | None:
    """(x, y, side) of the face of one person whose nose and at least one eye or ear are visible, else None.

    Arguments as for :func:`hand_boxes`. As published, the square is cut at the border of the picture only when
    half of it reaches beyond, so it may stick out.
    """
    reaches = [
        factor * np.abs(points[NOSE] - points[point]).max()
        for factor, group in ((3.0, EYES), (1.5, EARS))
        for point in group
        if visible[point]
    ]
    if not visible[NOSE] or not reaches:
        return None
    half = max(reaches)
    x, y = np.maximum(points[NOSE] - half, 0)
    cuts = [edge - start for edge, start in ((size[1], x), (size[0], y)) if start + half > edge]
    side = min([2 * half, *cuts])
    return (int(x), int(y), int(side)) if side >= MIN_SIDE else None
