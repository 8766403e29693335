"""Frames in which somebody, or everybody, was not found (docs/pose.md)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from .people import find_breaks
from .poses import Poses

POLICIES = ("hold", "interpolate", "blank", "raise")
MOST_JOINT_GAP = 10  # frames; a joint that is lost for longer is out of sight rather than overlooked
DECAY, LEAST = 0.95, 0.5  # factor on interpolated scores for each frame away from a found one, and its least value


def fill_gaps(poses: Poses, policy: str = "hold") -> Poses:
    """Fill frames without a person; slots should be people (`people.track_people` or `choose_people`).

    policy: "hold": repeat the last pose. "interpolate": move evenly from the last pose to the next, with scores
        that fall towards the middle of the gap. "blank": leave the frames empty. "raise": ValueError that names the
        frames without anybody.

    Which gaps are filled: between two appearances of a person, that person's; in frames that still show nobody,
    everybody of the frame before (or after, at the beginning). So one person is there in every frame, but of several
    people nobody is made up before they come or after they leave while others are in sight. Nothing is interpolated
    across a cut (`people.find_breaks`): the last pose is held up to it. A point found at only one end of a gap
    stays missing.

    Single points (score 0 or less in a person who was found) are filled by "interpolate" only, where the same
    uninterrupted person has the point before and after and it is missing for at most 10 frames: a point held in
    place would come off a body that moves, and one that is missing for long is out of sight.

    Raises ValueError when nobody was found in the whole clip, except with "blank".
    """
    if policy not in POLICIES:
        raise ValueError(f"Unknown way to fill gaps {policy!r}; choose one of {', '.join(POLICIES)}.")
    if policy == "blank":
        return poses
    empty = np.flatnonzero(~poses.present.any(axis=1))
    if len(empty) == len(poses):
        raise ValueError(
            f"No person was found in any of the {len(poses)} frames: check that the clip shows people, "
            'or set gaps to "blank" to go on without poses.'
        )
    if policy == "raise":
        if len(empty):
            raise ValueError(
                f"No person was found in {len(empty)} of {len(poses)} frames ({frame_ranges(empty)}): choose another "
                "gap policy (hold, interpolate, blank) to go on."
            )
        return poses
    return _fill(poses, policy == "interpolate")


def _fill(poses: Poses, interpolate: bool) -> Poses:
    points, scores, present = poses.points.copy(), poses.scores.copy(), poses.present.copy()
    breaks = find_breaks(poses)
    for slot in range(poses.num_people):
        person = points[:, slot], scores[:, slot]
        for before, after in _gaps(poses.present[:, slot]):
            if interpolate and not breaks[after, slot]:
                _interpolate(*person, before, after)
            else:
                for array in person:
                    array[before + 1 : after] = array[before]
            present[before + 1 : after, slot] = True
        if interpolate:
            _fill_joints(*person, present[:, slot], breaks[:, slot])
    there = np.flatnonzero(present.any(axis=1))
    for frame in np.flatnonzero(~present.any(axis=1)):
        source = there[max(np.searchsorted(there, frame) - 1, 0)]
        for array in (points, scores, present):
            array[frame] = array[source]
    return replace(poses, points=points, scores=scores, present=present)


def _gaps(there: np.ndarray) -> Iterator[tuple[int, int]]:
    """Pairs of neighbouring frames that are there with others between them that are not."""
    frames = np.flatnonzero(there)
    for gap in np.flatnonzero(np.diff(frames) > 1):
        yield int(frames[gap]), int(frames[gap + 1])


def _interpolate(points: np.ndarray, scores: np.ndarray, before: int, after: int) -> None:
    """Fill the frames between two of points (frames, n, 2) and scores (frames, n), in place."""
    inside = np.arange(before + 1, after)
    away = np.minimum(inside - before, after - inside)
    share = ((inside - before) / (after - before))[:, None]
    first, last = scores[before] > 0, scores[after] > 0
    start = np.where(first[:, None], points[before], points[after])
    end = np.where(last[:, None], points[after], points[before])
    points[inside] = start + (end - start) * share[..., None]
    fading = np.maximum(DECAY**away, LEAST)[:, None]
    values = scores[before] + (scores[after] - scores[before]) * share
    scores[inside] = np.where(first & last, values * fading, 0.0)


def _fill_joints(points: np.ndarray, scores: np.ndarray, present: np.ndarray, breaks: np.ndarray) -> None:
    """Fill short gaps of single points of one person, in place."""
    shot = np.cumsum(breaks | ~present)  # another number in frames that do not belong together
    for joint in np.flatnonzero((scores[present] <= 0).any(axis=0)):
        one = points[:, [joint]], scores[:, [joint]]
        for before, after in _gaps(present & (scores[:, joint] > 0)):
            if shot[before] == shot[after] and after - before - 1 <= MOST_JOINT_GAP:
                _interpolate(*one, before, after)
        points[:, [joint]], scores[:, [joint]] = one


def frame_ranges(frames: np.ndarray) -> str:
    """Frame numbers in short: 3-5, 9."""
    runs = np.split(frames, np.flatnonzero(np.diff(frames) > 1) + 1)
    shown = [f"{run[0]}-{run[-1]}" if len(run) > 1 else str(run[0]) for run in runs]
    return "frames " + ", ".join(shown[:10]) + (", ..." if len(shown) > 10 else "")
