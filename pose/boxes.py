"""Boxes (x1, y1, x2, y2) in pixels: overlap, non-maximum suppression, boxes around points."""

from __future__ import annotations

import numpy as np


def overlaps(boxes: np.ndarray, others: np.ndarray, inclusive: bool = False) -> np.ndarray:
    """(n, m) intersection over union of boxes (n, 4) with others (m, 4).

    inclusive: corners are pixels that belong to the box, so that its width is x2 - x1 + 1 (the convention of the
    published suppression); otherwise corners are coordinates and the width is x2 - x1.
    """
    one = 1.0 if inclusive else 0.0
    boxes, others = (np.asarray(corners, dtype=np.float64) for corners in (boxes, others))
    boxes, others = boxes[:, None], others[None]
    sides = np.minimum(boxes[..., 2:], others[..., 2:]) - np.maximum(boxes[..., :2], others[..., :2]) + one
    shared = np.maximum(sides, 0).prod(-1)
    areas = (boxes[..., 2:] - boxes[..., :2] + one).prod(-1) + (others[..., 2:] - others[..., :2] + one).prod(-1)
    union = areas - shared
    return np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)


def suppress(boxes: np.ndarray, scores: np.ndarray, threshold: float) -> np.ndarray:
    """Indices kept by greedy non-maximum suppression, in order of falling score.

    A box goes when its overlap (inclusive corners) with a better one that stays is greater than the threshold.
    boxes (n, 4), scores (n).
    """
    order = np.argsort(-scores, kind="stable")
    kept = []
    while order.size:
        best, order = order[0], order[1:]
        kept.append(best)
        order = order[overlaps(boxes[best][None], boxes[order], inclusive=True)[0] <= threshold]
    return np.array(kept, dtype=np.int64)


def box_around(points: np.ndarray, expansion: float = 1.25) -> np.ndarray:
    """The box from the least to the greatest x and y of points (..., n, 2), grown about its centre: (..., 4)."""
    low, high = points.min(axis=-2), points.max(axis=-2)
    centre, half = (low + high) / 2, (high - low) / 2 * expansion
    return np.concatenate([centre - half, centre + half], axis=-1)
