"""Which frames of a video are good enough to learn from."""

from __future__ import annotations

import numpy as np

from ..pose.people import find_breaks
from ..pose.poses import BODY, FACE, LEFT_HAND, RIGHT_HAND, Poses

LEAST_SCORE = 0.5
FAINT_PARTS = 2


def keep_frames(
    body: np.ndarray,
    hands: np.ndarray,
    face: np.ndarray,
    least_score: float = LEAST_SCORE,
    faint_parts: int = FAINT_PARTS,
) -> np.ndarray:
    """(frames,) bool: kept unless at least `faint_parts` of the three mean scores are below `least_score`.

    The published filter, with its values as defaults. body, hands, face: (frames,) mean score of all points of a part.
    """
    return sum((score < least_score).astype(int) for score in (body, hands, face)) < faint_parts


def keep_poses(poses: Poses, least_score: float = LEAST_SCORE, faint_parts: int = FAINT_PARTS) -> np.ndarray:
    """(frames,) bool: :func:`keep_frames` on the people of each frame; a frame without anybody is not kept."""
    people = poses.present.sum(axis=1)
    scores = np.where(poses.present[..., None], poses.scores, 0.0)
    hands = scores[..., LEFT_HAND.start : RIGHT_HAND.stop]
    means = [
        part.mean(axis=2).sum(axis=1) / np.maximum(people, 1) for part in (scores[..., BODY], hands, scores[..., FACE])
    ]
    return keep_frames(*means, least_score, faint_parts) & (people > 0)


def find_shots(poses: Poses) -> np.ndarray:
    """Numbers of the frames with which a new shot begins: nobody there continues anybody of the frames before."""
    breaks = find_breaks(poses)
    new = (breaks | ~poses.present).all(axis=1) & poses.present.any(axis=1)
    return np.flatnonzero(new)[1:]
