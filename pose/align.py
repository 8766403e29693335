"""Bringing the poses of a driving clip onto the figure of the reference picture (docs/alignment.md)."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from .poses import BODY, VISIBLE, Poses
from .retarget import retarget_limbs

METHODS = ("mimicmotion", "stableanimator", "robust", "limbs", "none")
# OpenPose-18 joints that the published fit uses: no elbows and no wrists
FIT_JOINTS = (0, 1, 2, 5, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17)
SCALE_RANGE = (0.2, 5.0)  # vertical scales that a robust fit believes
_LEAST_SPREAD = 1e-3  # share of the picture height that joints must differ by to tell a scale


class _NoFitError(ValueError):
    """A fit is impossible; the message says why."""


@dataclass(frozen=True)
class Alignment:
    """Poses brought onto a reference.

    poses:  the driving poses, now shares of the reference picture (its size is theirs).
    a, b:   the fit, (x, y): reference share = a * driving share + b. With "limbs" it places only the root.
    method: what was used in the end; differs from what was asked for when that was impossible.
    note:   what the user should know, or "" when all went as asked.
    """

    poses: Poses
    a: np.ndarray
    b: np.ndarray
    method: str
    note: str = ""


def align(poses: Poses, reference: Poses, method: str = "mimicmotion") -> Alignment:
    """Move and scale driving poses to the person of a reference picture.

    poses:     the driving clip; every person of every frame is transformed.
    reference: poses of the reference picture; the first person of frame 0 counts.
    method:    "mimicmotion": the published fit, one affine map for the clip from frames with exactly one person,
               seen and unseen joints alike, equal pixel scale on both axes. "stableanimator": the same with the frame
               ratio taken for that of the reference, so right only where both agree. "robust": the fit on joints
               seen in both, weighted by the lower score, for one person. "limbs": the reference's bone lengths with
               the motion of the driver. "none": the figure keeps its place, and its proportions where the pictures
               differ in ratio.

    Where a method is impossible the next simpler one is used (published fit, robust fit, same height in the middle
    of the picture); the result's note says so. Raises ValueError for unknown methods.
    """
    if method not in METHODS:
        raise ValueError(f"Unknown alignment {method!r}; choose one of {', '.join(METHODS)}.")
    if method == "none":
        return _transformed(poses, reference, same_height(poses.size, reference.size), method, "")
    if method in ("mimicmotion", "stableanimator"):
        result = _align_published(poses, reference, method)
    else:
        result = _align_robust(poses, reference)
    if method == "limbs" and result.method == "robust":
        slot = _main_slot(poses)
        points, missing = retarget_limbs(poses, reference, result.a, result.b, slot)
        note = f"The reference does not show {missing}; sizes there follow the rest of the body." if missing else ""
        result = replace(result, poses=result.poses.with_points(points), method="limbs", note=note)
    return result


def onto_canvas(poses: Poses, size: tuple[int, int]) -> Poses:
    """Poses as shares of another canvas, (height, width): see :func:`same_height`."""
    a, b = same_height(poses.size, size)
    return replace(poses, points=poses.points * a + b, size=size)


def pixel_ratio(frame_size: tuple[int, int], size: tuple[int, int]) -> float:
    """a_x / a_y of a map between canvases (height, width) that has the same scale on both axes in pixels."""
    (frame_height, frame_width), (height, width) = frame_size, size
    return 1 / ((frame_height / frame_width) / (height / width))


def same_height(frame_size: tuple[int, int], size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """(a, b) that keeps heights as shares of the picture, the figure's proportions, and the middle in the middle."""
    a = np.array([pixel_ratio(frame_size, size), 1.0])
    return a, (1 - a) / 2


def _transformed(
    poses: Poses, reference: Poses, fit: tuple[np.ndarray, np.ndarray], method: str, note: str
) -> Alignment:
    a, b = fit
    return Alignment(replace(poses, points=poses.points * a + b, size=reference.size), a, b, method, note)


def _align_published(poses: Poses, reference: Poses, method: str) -> Alignment:
    ratio = 1.0 if method == "stableanimator" else pixel_ratio(poses.size, reference.size)
    try:
        a, b = fit_published(poses, reference, ratio)
    except _NoFitError as problem:
        simpler = _align_robust(poses, reference)
        used = "a robust fit of one person was used" if simpler.method == "robust" else "no fit was used"
        note = simpler.note or f"The published {method} fit is impossible: {problem}; {used} instead."
        return replace(simpler, note=note)
    low, high = SCALE_RANGE
    note = ""
    if not low <= a[1] <= high:
        note = (
            f"The published {method} fit scales the figure by {a[1]:.3g}, which is hardly meant; check the reference "
            'and the first frames, or align with "robust" or "limbs".'
        )
    return _transformed(poses, reference, (a, b), method, note)


def _align_robust(poses: Poses, reference: Poses) -> Alignment:
    try:
        return _transformed(poses, reference, fit_robust(poses, reference), "robust", "")
    except _NoFitError as problem:
        note = f"No fit to the reference: {problem}; the driver keeps its height and stays in the middle."
        return _transformed(poses, reference, same_height(poses.size, reference.size), "same height", note)


def fit_published(poses: Poses, reference: Poses, ratio: float) -> tuple[np.ndarray, np.ndarray]:
    """(a, b) of MimicMotion's published fit, with a_x = a_y * ratio; ValueError when there is nothing to fit."""
    points, scores = _reference_person(reference)
    joints = [joint for joint in FIT_JOINTS if scores[joint] > VISIBLE]
    if not joints:
        raise _NoFitError("the reference shows none of the joints of the fit")
    single = np.flatnonzero(poses.present.sum(axis=1) == 1)
    if not len(single):
        raise _NoFitError("no frame has exactly one person")
    slots = poses.present[single].argmax(axis=1)
    found = poses.points[single, slots][:, joints].reshape(-1, 2)
    wanted = np.tile(points[joints], (len(single), 1))
    if np.ptp(found[:, 1]) == 0:
        raise _NoFitError("all joints of the fit have the same height")
    scale, offset = np.polyfit(found[:, 1], wanted[:, 1], 1)
    a = np.array([scale * ratio, scale])
    return a, np.array([np.mean(wanted[:, 0] - found[:, 0] * a[0]), offset])


def fit_robust(poses: Poses, reference: Poses) -> tuple[np.ndarray, np.ndarray]:
    """(a, b) with equal pixel scales from joints seen on both sides, weighted by the lower score.

    One person is followed: the slot that is seen best. Needs two joints of different height and a vertical scale
    within `SCALE_RANGE`; ValueError otherwise.
    """
    points, scores = _reference_person(reference)
    slot = _main_slot(poses)
    if slot is None:
        raise _NoFitError("no frame shows a person")
    joints = list(FIT_JOINTS)
    found, found_scores = poses.points[:, slot, joints], poses.scores[:, slot, joints]
    both = (found_scores > VISIBLE) & (scores[joints] > VISIBLE) & poses.present[:, slot, None]
    common = int(both.any(axis=0).sum())
    if common < 2:
        raise _NoFitError(f"driver and reference share {common} of the joints of the fit, 2 are needed")
    wanted = np.broadcast_to(points[joints], found.shape)[both]
    weight = np.minimum(found_scores, scores[joints])[both]
    found = found[both]
    if min(np.ptp(found[:, 1]), np.ptp(wanted[:, 1])) < _LEAST_SPREAD:
        raise _NoFitError("the joints that driver and reference share all have the same height")
    found_mean, wanted_mean = np.average(found, axis=0, weights=weight), np.average(wanted, axis=0, weights=weight)
    away = found[:, 1] - found_mean[1]
    scale = (weight * away * (wanted[:, 1] - wanted_mean[1])).sum() / (weight * away**2).sum()
    low, high = SCALE_RANGE
    if not low <= scale <= high:
        raise _NoFitError(f"the joints suggest a scale of {scale:.3g}, outside {low:g} to {high:g}")
    a = np.array([scale * pixel_ratio(poses.size, reference.size), scale])
    return a, wanted_mean - a * found_mean


def _reference_person(reference: Poses) -> tuple[np.ndarray, np.ndarray]:
    if not len(reference) or not reference.present[0].any():
        raise _NoFitError("no person was found in the reference")
    points, scores = reference.frame(0)
    return points[0], scores[0]


def _main_slot(poses: Poses) -> int | None:
    """The slot with the most seen body joints over the clip; None where nobody is."""
    seen = ((poses.scores[:, :, BODY] > VISIBLE) & poses.present[:, :, None]).sum(axis=(0, 2))
    return int(seen.argmax()) if seen.size and seen.max() > 0 else None
