"""The published tables of a frame (candidate, subset, hands, faces) as points and scores, and back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict

import numpy as np
from choreo.pose.poses import BODY, FACE, LEFT_HAND, NUM_POINTS, RIGHT_HAND, VISIBLE
from choreo.pose.wholebody import published_pose

Frame = tuple[np.ndarray, np.ndarray]


def frame_from_tables(tables: Mapping[str, np.ndarray], prefix: str, body_score: str = "score") -> Frame:
    """(points (n, 134, 2), scores (n, 134)) of `<prefix>candidate`, `<prefix>subset`, ...

    Scores that were not recorded are 1. The subset is not needed, it follows from the scores; where it does not,
    the case cannot be told in points and scores, which is an error.
    """
    candidate = tables[f"{prefix}candidate"]
    people = len(candidate) // 18
    points, scores = np.zeros((people, NUM_POINTS, 2)), np.ones((people, NUM_POINTS))
    points[:, BODY] = candidate.reshape(people, 18, 2)
    points[:, FACE] = tables[f"{prefix}faces"]
    points[:, LEFT_HAND], points[:, RIGHT_HAND] = np.split(tables[f"{prefix}hands"], 2)
    if f"{prefix}{body_score}" in tables:
        scores[:, BODY] = tables[f"{prefix}{body_score}"]
        scores[:, FACE] = tables[f"{prefix}faces_score"]
        scores[:, LEFT_HAND], scores[:, RIGHT_HAND] = np.split(tables[f"{prefix}hands_score"], 2)
    if f"{prefix}subset" in tables:
        follows = (tables[f"{prefix}subset"] >= 0) == (scores[:, BODY] > VISIBLE)
        if not follows.all():
            raise ValueError(f"{prefix}subset hides joints whose scores are above {VISIBLE}, or the other way round")
    return points, scores


def tables_from_frame(frame: Frame, prefix: str) -> dict[str, np.ndarray]:
    """The tables of a frame under their recorded names."""
    return {f"{prefix}{name}": table for name, table in asdict(published_pose(*frame)).items()}
