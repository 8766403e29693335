"""Where faces and hands are. Face masks, uint8 (H, W) with 255 on faces: from face boxes as StableAnimator makes them,
or from poses alone.

A picture without a face gives an entirely white mask, as published: nothing is singled out.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import cv2
import numpy as np

from .poses import FACE, VISIBLE, Poses

SHAPES = ("box", "hull")
MIN_POINTS = 8  # fewer visible face points do not tell where the face is
SIDE_MARGIN = 0.15  # of the box of the points: to the left, to the right and below
TOP_MARGIN = 0.35  # of its height: from the brows to the hairline
JAW_AND_BROWS = slice(0, 27)  # of the 68 points


def mask_from_boxes(boxes: np.ndarray, size: tuple[int, int], empty: int = 255) -> np.ndarray:
    """White rectangles on black; corners (n, 4) in pixels are cut to whole numbers and belong to the rectangle.

    size: (height, width). empty: the level everywhere when there is no box.
    """
    if len(boxes) == 0:
        return np.full(tuple(map(int, size)), empty, dtype=np.uint8)
    mask = np.zeros(tuple(map(int, size)), dtype=np.uint8)
    for x1, y1, x2, y2 in np.asarray(boxes, dtype=np.float64).astype(int).tolist():
        cv2.rectangle(mask, (x1, y1), (x2, y2), 255, cv2.FILLED)
    return mask


def box_of_mask(mask: np.ndarray) -> np.ndarray | None:
    """(4) whole-number box x1, y1, x2, y2 around the white pixels (255) of a mask (H, W); its corners are inside.

    None for a mask without white, and for one that is white all over, which says that no face was found.
    """
    white = np.asarray(mask) == 255
    rows, columns = np.flatnonzero(white.any(axis=1)), np.flatnonzero(white.any(axis=0))
    if not rows.size or white.all():
        return None
    return np.array([columns[0], rows[0], columns[-1], rows[-1]])


def boxes_of_masks(masks: Iterable[np.ndarray], size: tuple[int, int]) -> list[np.ndarray | None]:
    """:func:`box_of_mask` of masks of any size, in pixels of frames of `size` (height, width)."""
    height, width = size
    return [
        box_of_mask(
            mask if mask.shape == (height, width) else cv2.resize(mask, (width, height), None, 0, 0, cv2.INTER_NEAREST)
        )
        for mask in masks
    ]


def face_box(points: np.ndarray, scores: np.ndarray) -> np.ndarray | None:
    """(4) box of a face around its visible points, with margins; None when too few are visible.

    points (68, 2) and scores (68) of one face; the box is in the units of the points.
    """
    seen = points[scores > VISIBLE]
    if len(seen) < MIN_POINTS:
        return None
    low, high = seen.min(axis=0), seen.max(axis=0)
    width, height = high - low
    side, top, bottom = SIDE_MARGIN * width, TOP_MARGIN * height, SIDE_MARGIN * height
    return np.array([low[0] - side, low[1] - top, high[0] + side, high[1] + bottom])


def points_boxes(points: np.ndarray, size: tuple[int, int], margin: int) -> np.ndarray:
    """(..., 4) whole-number boxes x1, y1, x2, y2 in pixels around points, cut to whole pixels as MimicMotion's trainer
    does it for hands.

    points: (..., n, 2) shares of a picture of `size` (height, width). margin: pixels added on every side; boxes may
    reach beyond the picture.
    """
    pixels = np.asarray(points, dtype=np.float64) * (size[1], size[0])
    low, high = (np.trunc(edge).astype(np.int64) for edge in (pixels.min(axis=-2), pixels.max(axis=-2)))
    return np.concatenate([low - margin, high + margin], axis=-1)


def masks_from_poses(
    poses: Poses, shape: str = "box", size: tuple[int, int] | None = None, empty: int = 255
) -> Iterator[np.ndarray]:
    """One mask a frame with everybody's face, without a face network.

    shape: "box" as :func:`face_box`, or "hull", the filled hull of the jaw and the brows.
    size: (height, width) of the masks; that of the poses when None.
    """
    if shape not in SHAPES:
        raise ValueError(f'shape must be "box" or "hull", got {shape!r}')
    height, width = size or poses.size
    for frame in range(len(poses)):
        points, scores = poses.frame(frame)
        faces = list(zip(points[:, FACE] * (width, height), scores[:, FACE], strict=True))
        if shape == "box":
            boxes = [box for box in (face_box(*face) for face in faces) if box is not None]
            yield mask_from_boxes(np.array(boxes), (height, width), empty)
        else:
            yield _hulls(faces, (height, width), empty)


def _hulls(faces: list[tuple[np.ndarray, np.ndarray]], size: tuple[int, int], empty: int) -> np.ndarray:
    mask, drawn = np.zeros(size, dtype=np.uint8), False
    for points, scores in faces:
        outline = points[JAW_AND_BROWS][scores[JAW_AND_BROWS] > VISIBLE]
        if len(outline) >= MIN_POINTS:
            cv2.fillConvexPoly(mask, cv2.convexHull(np.rint(outline).astype(np.int32)), 255)
            drawn = True
    return mask if drawn else np.full(size, empty, dtype=np.uint8)
