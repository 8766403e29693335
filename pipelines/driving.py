"""From a reference picture and something that moves to the pose pictures a network is driven with.

What moves is one of three: frames of people (poses are detected in them), poses as data, or ready skeleton
pictures. All end as one :class:`Driving`: drawn poses, the first of which is the pose of the reference picture.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Literal

import numpy as np

from ..pose.align import align, onto_canvas
from ..pose.draw import draw_clip
from ..pose.gaps import fill_gaps
from ..pose.people import choose_people
from ..pose.poses import BODY, VISIBLE, Poses
from ..pose.skeletons import prepare_skeletons, with_pose_zero
from ..pose.smooth import drop_low_scores, smooth

FIRST_POSE = "The first driving pose stands for the pose of the reference picture"
POSE_ZERO = {
    "given": "The pose of the reference picture is the one that was given.",
    "detected": "The pose of the reference picture was found in it.",
    "first skeleton": f"{FIRST_POSE}.",
}
MIN_JOINTS = 3  # with fewer visible body joints a detection is taken for a picture without a person


@dataclass(frozen=True)
class PoseCleaning:
    """Whose poses are taken, how they are cleaned, and what of them is drawn; see docs/pose.md."""

    people: Literal["largest", "centre", "index", "tracked", "all"] = "largest"
    """Which people of the driving clip drive the result."""
    person: int = 0
    """For people "index" and "tracked": which one, from 0."""
    gaps: Literal["hold", "interpolate", "blank", "raise"] = "hold"
    """What to do in frames where nobody is found."""
    smooth: Literal["none", "one-euro", "gaussian", "median"] = "none"
    """Smoothing of the motion over time."""
    min_score: float = 0.0
    """Points found with less confidence than this (0..1) count as not found."""
    body: bool = True
    """Draw body limbs and joints."""
    hands: bool = True
    """Draw hands."""
    face: bool = True
    """Draw the face."""

    def __post_init__(self) -> None:
        if self.person < 0:
            raise ValueError(f"person is {self.person}, but people are counted from 0.")
        if not 0 <= self.min_score < math.inf:
            raise ValueError(f"min_score must be a number that is not negative, got {self.min_score}.")

    def draw(self, poses: Poses, size: tuple[int, int], style: str) -> Iterator[np.ndarray]:
        """Pictures of the poses, uint8 (height, width, 3) RGB, with the parts that are switched on."""
        return draw_clip(poses, size, style, body=self.body, hands=self.hands, face=self.face)


@dataclass(frozen=True)
class PoseSettings(PoseCleaning):
    """How driving poses are cleaned, fitted to the reference and drawn; see docs/pose.md."""

    align: Literal["mimicmotion", "stableanimator", "robust", "limbs", "none"] = "mimicmotion"
    """How the motion is fitted to the person of the reference picture; see docs/alignment.md."""


@dataclass(frozen=True)
class Driving:
    """Pose pictures that drive a network, made one at a time.

    pictures:   call it for an iterator of uint8 (H, W, 3) RGB pictures; the first is the reference's own pose.
    num_frames: how many driving frames there are (`pictures` yields one more).
    fps:        frames per second of the driving frames, or None when nothing tells.
    poses:      the fitted poses behind the pictures, or None for ready skeleton pictures.
    notes:      what was decided on the way, in sentences for the user.
    audio_path, audio_start: the file whose sound belongs to the clip and the second in it, when there is any.
    """

    pictures: Callable[[], Iterator[np.ndarray]]
    num_frames: int
    fps: float | None
    poses: Poses | None = None
    notes: tuple[str, ...] = ()
    audio_path: Path | None = None
    audio_start: float = 0.0

    def clip(self) -> Iterator[np.ndarray]:
        """The pictures of the driving frames alone."""
        return islice(self.pictures(), 1, None)


def has_person(poses: Poses, frame: int = 0) -> bool:
    """Whether a frame shows anybody: at least :data:`MIN_JOINTS` visible body joints (score above 0.3)."""
    _, scores = poses.frame(frame)
    return bool((np.sum(scores[:, BODY] > VISIBLE, axis=1) >= MIN_JOINTS).any())


def clean(poses: Poses, settings: PoseCleaning) -> Poses:
    """Choose people, drop faint points, fill gaps and smooth, in this order."""
    poses = choose_people(poses, settings.people, settings.person)
    if settings.min_score > 0:
        poses = drop_low_scores(poses, settings.min_score)
    return smooth(fill_gaps(poses, settings.gaps), settings.smooth)


def fit_to_reference(
    poses: Poses, reference: Poses | None, size: tuple[int, int], method: str
) -> tuple[Poses, Poses, str]:
    """(driving poses, pose of the reference picture, note for the user or ""), both on the reference's canvas.

    reference, size: see :func:`drive_by_poses`; the largest person counts. method: see :func:`..pose.align.align`.
    """
    if reference is not None and has_person(reference):
        reference = choose_people(reference, "largest")
        alignment = align(poses, reference, method)
        return alignment.poses, reference, alignment.note
    poses = onto_canvas(poses, size)
    why = "" if reference is None else "No person was found in the reference picture. "
    first = next((frame for frame in range(len(poses)) if has_person(poses, frame)), 0)
    return poses, poses[first], f"{why}{FIRST_POSE}, and nothing is aligned."


def drive_by_poses(
    poses: Poses, reference: Poses | None, size: tuple[int, int], style: str, settings: PoseSettings
) -> Driving:
    """Pose pictures drawn from the poses of a clip.

    poses: the driving clip.
    reference: the pose of the reference picture (one frame); without a person in it, or when it is None, the first
    driving pose that shows somebody stands for it and nothing is aligned.
    size: (height, width) of the reference picture and of the pose pictures.
    """
    poses, reference, note = fit_to_reference(clean(poses, settings), reference, size, settings.align)

    def pictures() -> Iterator[np.ndarray]:
        return chain(settings.draw(reference, size, style), settings.draw(poses, size, style))

    return Driving(pictures, len(poses), poses.fps, poses, (note,) if note else ())


def drive_by_skeletons(
    skeletons: Callable[[], Iterable[np.ndarray]],
    num_frames: int,
    fps: float | None,
    size: tuple[int, int],
    style: str,
    *,
    given: np.ndarray | None = None,
    detected: np.ndarray | None = None,
) -> Driving:
    """Pose pictures that somebody else has drawn, brought to the size and the colours the network knows.

    skeletons: call it for uint8 (h, w, 3) RGB pictures, all of one size.
    given, detected: the drawn pose of the reference picture at the final size, from the user or from keypoints found
    there; without either the first skeleton stands for it.
    """

    def prepared() -> tuple[Iterator[np.ndarray], str, str]:
        skeleton = prepare_skeletons(skeletons(), size, style)
        return *with_pose_zero(skeleton.frames, given, detected), skeleton.note

    _, source, note = prepared()
    return Driving(lambda: prepared()[0], num_frames, fps, None, (note, POSE_ZERO[source]))
