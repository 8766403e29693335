"""Who a clip shows, by the colours of skin and clothes at known places of the body; see docs/evaluation.md."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from ..pose.poses import VISIBLE, Poses
from .metrics import floats, person_sizes

# Pairs of body joints (OpenPose-18) between which a region lies; both sides of the body are one region.
REGIONS: dict[str, tuple[tuple[int, int], ...]] = {
    "face": ((0, 0), (14, 15)),
    "torso": ((1, 8), (1, 11)),
    "upper arms": ((2, 3), (5, 6)),
    "lower arms": ((3, 4), (6, 7)),
    "thighs": ((8, 9), (11, 12)),
    "shins": ((9, 10), (12, 13)),
}
ALONG = np.linspace(0.3, 0.7, 5)  # where between the two joints colours are taken
PATCH = 0.03  # side of a patch as a share of the person's size


def body_colours(frames: Iterable[np.ndarray], poses: Poses, min_score: float = VISIBLE) -> np.ndarray:
    """(regions, 3) mean RGB colour in 0..1 of each of :data:`REGIONS` over a clip; NaN for one that is never seen.

    frames: (F, H, W, 3), uint8 or floating point in 0..1; poses: one person, F frames.
    In every frame, at five places between each pair of joints (30 to 70 % of the way), the mean of a square patch as
    wide as 3 % of the person; a pair counts where both joints have a score above min_score, a patch where its centre
    lies in the picture.
    """
    import cv2

    totals, counts = np.zeros((len(REGIONS), 3)), np.zeros((len(REGIONS), 1))
    sizes, height_width = person_sizes(poses, min_score), None
    for f, frame in enumerate(floats(frames)):
        height_width = frame.shape[:2]
        points = poses.points[f, 0] * height_width[::-1]
        seen = (poses.scores[f, 0] > min_score) & poses.present[f, 0]
        side = max(1, round(PATCH * sizes[f])) | 1
        smooth = cv2.blur(frame, (side, side))
        for region, pairs in enumerate(REGIONS.values()):
            places = _places(points, [pair for pair in pairs if seen[list(pair)].all()], height_width)
            totals[region] += smooth[places[:, 1], places[:, 0]].sum(axis=0)
            counts[region] += len(places)
    with np.errstate(invalid="ignore"):
        return totals / np.where(counts > 0, counts, np.nan)


def _places(points: np.ndarray, pairs: Sequence[tuple[int, int]], size: tuple[int, int]) -> np.ndarray:
    """(n, 2) whole pixels x, y inside a picture of (height, width) along some pairs of joints."""
    if not pairs:
        return np.zeros((0, 2), dtype=int)
    start, end = (points[[pair[i] for pair in pairs], None] for i in (0, 1))
    places = np.floor(start + (end - start) * ALONG[:, None]).reshape(-1, 2).astype(int)
    return places[((places >= 0) & (places < size[::-1])).all(axis=1)]


def colour_similarity(one: np.ndarray, other: np.ndarray) -> float:
    """Likeness of two :func:`body_colours`: minus the mean distance over the regions that both have, -sqrt(3)..0.

    NaN when there is no such region.
    """
    distances = np.linalg.norm(one - other, axis=1)
    return -float(np.nanmean(distances)) if np.isfinite(distances).any() else float("nan")


def similarity_matrix(results: Sequence[np.ndarray], references: Sequence[np.ndarray]) -> np.ndarray:
    """(results, references) :func:`colour_similarity` of :func:`body_colours`."""
    return np.array([[colour_similarity(result, reference) for reference in references] for result in results])


def diagonal_rows(matrix: np.ndarray) -> int:
    """In how many rows of a square matrix the diagonal is larger than everything else; NaN is never larger."""
    others = matrix.copy()
    np.fill_diagonal(others, -np.inf)
    with np.errstate(invalid="ignore"):
        return int((np.diag(matrix)[:, None] > others).all(axis=1).sum())
