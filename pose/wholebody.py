"""What the published systems make of the 133 points of the network: 134 points, and their exchange formats."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .poses import BODY, FACE, LEFT_HAND, RIGHT_HAND, VISIBLE

_SHOULDERS = [5, 6]
_NECK = 17  # where the neck goes before the body is reordered
_OPENPOSE_BODY = [0, 17, 6, 8, 10, 5, 7, 9, 12, 14, 16, 11, 13, 15, 2, 1, 4, 3]  # OpenPose-18 out of COCO-17 + neck
FACE_EYES = [14, 15]  # body joints that controlnet_aux and OpenPose append to the face


def openpose_134(keypoints: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Insert the neck and bring the body into OpenPose order (docs/pose.md).

    keypoints (..., 133, 2) in any unit, scores (..., 133), in the order of COCO-WholeBody ->
    (..., 134, 2) and (..., 134), float64. The neck is the middle of the shoulders, with score 1 when both are
    visible, otherwise 0.
    """
    points, scores = np.asarray(keypoints, np.float64), np.asarray(scores, np.float64)
    if points.shape[-2:] != (133, 2) or scores.shape != points.shape[:-1]:
        raise ValueError(f"expected keypoints (..., 133, 2) with scores (..., 133), got {points.shape}, {scores.shape}")
    points = np.insert(points, _NECK, points[..., _SHOULDERS, :].mean(axis=-2), axis=-2)
    scores = np.insert(scores, _NECK, (scores[..., _SHOULDERS] > VISIBLE).all(axis=-1), axis=-1)
    order = np.r_[_OPENPOSE_BODY, 18:134]
    return points[..., order, :], scores[..., order]


@dataclass(frozen=True)
class Convention:
    """How a published system reports the people of a frame: whom it keeps, and whether faint points are hidden."""

    people: str  # "all", "first" (highest detection score) or "best" (highest mean body score)
    hide_faint: bool  # hand and face points below 0.3 become (-1, -1)


CONVENTIONS = {
    "mimicmotion": Convention("all", hide_faint=False),  # StableAnimator's aligned detector is the same
    "classic": Convention("all", hide_faint=True),  # DWPose, ControlNet, MagicPose, StableAnimator's plain detector
    "one person": Convention("first", hide_faint=False),  # StableAnimator's OnlyOnePerson
    "moore": Convention("best", hide_faint=True),
}


@dataclass(frozen=True)
class PublishedPose:
    """The n people of one frame in the format that DWPose's annotator and its descendants hand around."""

    candidate: np.ndarray  # (18n, 2) body joints, person after person
    subset: np.ndarray  # (n, 18) row of a joint in candidate, -1 when it is not visible
    score: np.ndarray  # (n, 18)
    hands: np.ndarray  # (2n, 21, 2) all left hands, then all right hands
    hands_score: np.ndarray  # (2n, 21)
    faces: np.ndarray  # (n, 68, 2)
    faces_score: np.ndarray  # (n, 68)


def published_pose(points: np.ndarray, scores: np.ndarray, convention: str = "mimicmotion") -> PublishedPose:
    """One frame in a published format; `convention` names one of :data:`CONVENTIONS`.

    points (n, 134, 2) as shares of width and height, scores (n, 134).
    """
    rules = CONVENTIONS[convention]
    points, scores = np.asarray(points, np.float64), np.asarray(scores, np.float64)
    if rules.people == "first":
        points, scores = points[:1], scores[:1]
    elif rules.people == "best" and len(points):
        best = best_person(scores)
        points, scores = points[[best]], scores[[best]]
    rows = np.arange(len(points) * 18).reshape(-1, 18)
    shown = np.where(scores[..., None] < VISIBLE, -1.0, points) if rules.hide_faint else points
    return PublishedPose(
        candidate=points[:, BODY].reshape(-1, 2),
        subset=np.where(scores[:, BODY] > VISIBLE, rows, -1).astype(np.float64),
        score=scores[:, BODY],
        hands=np.concatenate([shown[:, LEFT_HAND], shown[:, RIGHT_HAND]]),
        hands_score=np.concatenate([scores[:, LEFT_HAND], scores[:, RIGHT_HAND]]),
        faces=shown[:, FACE],
        faces_score=scores[:, FACE],
    )


def best_person(scores: np.ndarray) -> int:
    """Index of the person with the highest mean body score; scores (n, 134) of at least one person."""
    return int(np.mean(scores[:, BODY], axis=1).argmax())


@dataclass(frozen=True)
class PersonRecord:
    """One person as controlnet_aux keeps it.

    A part is (k, 4) rows of x, y, score and the slot inside the part; a row of a missing point is all NaN. The
    face has 70 points: 68 and the two eyes of the body, which keep their body slots 14 and 15.
    """

    body: np.ndarray  # (18, 4)
    left_hand: np.ndarray | None  # (21, 4), None when no point was found
    right_hand: np.ndarray | None
    face: np.ndarray | None  # (70, 4)
    total_score: float  # sum of the scores of the visible body joints
    total_parts: int = 18


def person_record(points: np.ndarray, scores: np.ndarray) -> PersonRecord:
    """One person (134, 2) with scores (134) as controlnet_aux keeps it: points below 0.3 are missing."""
    slots = np.zeros(len(points))
    for part in (BODY, FACE, LEFT_HAND, RIGHT_HAND):
        slots[part] = np.arange(part.stop - part.start)
    rows = np.column_stack([np.asarray(points, np.float64), np.asarray(scores, np.float64), slots])
    rows[~(rows[:, 2] >= VISIBLE)] = np.nan
    body, face = rows[BODY], np.concatenate([rows[FACE], rows[FACE_EYES]])

    def found(part: np.ndarray) -> np.ndarray | None:
        return None if np.isnan(part).all() else part

    return PersonRecord(
        body, found(rows[LEFT_HAND]), found(rows[RIGHT_HAND]), found(face), float(np.nansum(body[:, 2]))
    )
