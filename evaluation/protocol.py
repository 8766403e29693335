"""How any system is judged on any data set; docs/evaluation.md describes the protocol."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from time import perf_counter
from types import MappingProxyType
from typing import Any, Protocol

import numpy as np

from ..datasets.clips import Clip, ClipSource
from ..pose.people import choose_people
from ..pose.poses import Poses
from ..runtime import Runtime, current, use
from .appearance import body_colours, similarity_matrix
from .disco import grey_ssim, l1_per_pixel, wrapped_psnr
from .distributions import Distributions
from .faces import Embed, face_likeness
from .ledger import Ledger
from .metrics import PARTS, as_float, border_jump, change_error, counted_points, l1, pck, psnr, ssim
from .report import ClipScores, Report

STAGE = "evaluating"
EQUAL_DB = 100.0  # what the PSNR of a frame counts at most, so that one equal frame does not make a mean infinite


@dataclass(frozen=True, eq=False)
class Task:
    """What a system is given to make a clip from: everything but the true frames.

    reference, pose_pictures, reference_pose, fps: as in :class:`..datasets.clips.Clip`.
    poses: the keypoints behind the pose pictures, for systems that draw their own; None where they are not known.
    seed:  for the system's noise.
    """

    reference: np.ndarray
    pose_pictures: np.ndarray
    reference_pose: np.ndarray | None
    poses: Poses | None
    fps: float
    seed: int


System = Callable[[Task], Iterable[np.ndarray]]
"""Makes one (H, W, 3) frame for every pose picture, uint8 or floating point in 0..1."""


class Detector(Protocol):
    """What finds poses again: :class:`..pose.detect.PoseDetector`."""

    def extract(self, frames: Iterable[np.ndarray], fps: float | None = None, total: int | None = None) -> Poses:
        """Poses of everybody in uint8 frames."""
        ...


@dataclass(frozen=True)
class Settings:
    """What is judged, and on how much."""

    clips: int = 32
    """Clips; the first ones of the data set."""
    frames: int = 24
    """Frames of each clip; a data set may have shorter ones."""
    size: tuple[int, int] = (128, 128)
    """(height, width) in pixels."""
    seed: int = 1
    """Chooses motion and reference where the data set leaves a choice, and the noise."""
    references: int = 8
    """Pictures that are animated with one motion, to see whether they keep their colours; 0 leaves that out."""
    threshold: float = 0.1
    """Distance up to which a keypoint is correct, as a share of the person's size."""

    def __post_init__(self) -> None:
        if self.clips < 1 or self.frames < 1:
            raise ValueError(f"There must be at least 1 clip of 1 frame, got {self.clips} of {self.frames}.")
        if self.references == 1 or self.references < 0:
            raise ValueError(f"references must be 0, or at least 2 to be told apart, got {self.references}.")
        if not 0 < self.threshold <= 1:
            raise ValueError(f"The threshold of PCK must be above 0 and at most 1, got {self.threshold}.")
        if self.seed < 0:
            raise ValueError(f"seed must not be negative, got {self.seed}.")


Show = Callable[[str, Clip, np.ndarray], None]
Measure = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""(found, true), frames each -> one number a frame."""


def evaluate(
    animate: System,
    source: ClipSource,
    settings: Settings = Settings(),
    detector: Detector | None = None,
    *,
    measures: Mapping[str, Measure] = MappingProxyType({}),
    distributions: Distributions | None = None,
    faces: Embed | None = None,
    borders: Callable[[int], Sequence[int]] = lambda num_frames: (),
    ledger: Ledger | None = None,
    show: Show = lambda key, clip, frames: None,
) -> Report:
    """Animate clips of a data set and judge the results by the truth; one clip is held at a time.

    detector: finds the poses again; without it there is no PCK.
    measures: more measures of pictures, by their names in `report.METRICS`.
    distributions: what is measured on all clips together.
    faces:    knows faces; their likeness is measured with it, where the data set has keypoints.
    borders:  for a number of frames, those at which one window of the system ends and the next one begins.
    ledger:   keeps what is finished; what it has already is not done again.
    show:     is called with "clip N" or "reference N", the clip, and the uint8 frames that the system made of it.
    Raises ValueError, naming the clip, for a result of another size or length, and when no clip can be used;
    FloatingPointError for NaN.
    """
    ledger = Ledger() if ledger is None else ledger
    judge = _Judge(
        animate, source, settings, detector, measures, distributions or Distributions({}), faces, borders, show
    )
    report = Report(settings.threshold)
    available = len(source)
    clips, references = min(settings.clips, available), min(settings.references, available)
    if clips < settings.clips:
        report.notes.append(f"The data set has only {clips} of {settings.clips} clips.")
    with _one_progress(clips + references) as progress:
        for index in range(clips):
            try:
                judged = ledger.recall(f"clip {index}", lambda index=index: judge.clip(index))
            except _Unusable as reason:
                report.skipped.append(str(reason))
            else:
                report.clips.append(ClipScores(**judged["scores"]))
                judge.distributions.add(judged["features"])
            progress(index + 1)
        shorter = sum(clip.frames < settings.frames for clip in report.clips)
        if shorter:
            report.notes.append(f"Clips of fewer than {settings.frames} frames: {shorter}.")
        if not report.clips:
            raise ValueError(" ".join(["There is nothing to judge: no clip can be used.", *report.skipped]))
        report.sets = judge.distributions.distances()
        if references > 1:
            report.colours = judge.colours(references, ledger, lambda done: progress(clips + done))
    if references > 1 and report.colours is None:
        report.notes.append("The colours of people are not compared: it takes 2 clips with keypoints.")
    return report


class _Unusable(Exception):
    """A clip that the data set cannot give."""


@dataclass(frozen=True, eq=False)
class _Judge:
    animate: System
    source: ClipSource
    settings: Settings
    detector: Detector | None
    measures: Mapping[str, Measure]
    distributions: Distributions
    faces: Embed | None
    borders: Callable[[int], Sequence[int]]
    show: Show

    def take(self, index: int) -> Clip:
        """A clip with at most one person in its poses."""
        settings = self.settings
        try:
            clip = self.source.clip(index, settings.frames, settings.size, settings.seed)
            if len(clip.frames) == 0:
                raise ValueError(f"{clip.name} has no frames.")
        except ValueError as error:
            raise _Unusable(str(error)) from error
        return clip if clip.poses is None else replace(clip, poses=choose_people(clip.poses, "largest"))

    def run(self, clip: Clip, number: int, key: str) -> tuple[np.ndarray, float]:
        """Frames of the system, uint8 and of the shape of the pose pictures, and the seconds they took."""
        seed = self.settings.seed + number
        task = Task(clip.reference, clip.pose_pictures, clip.reference_pose, clip.poses, clip.fps, seed)
        began = perf_counter()
        try:
            frames = _collect(self.animate(task), clip.pose_pictures.shape)
        except (FloatingPointError, ValueError) as error:
            raise type(error)(f"{key} ({clip.name}): {error}") from error
        seconds = perf_counter() - began
        self.show(key, clip, frames)
        return frames, seconds

    def clip(self, index: int) -> dict[str, Any]:
        """Everything that is measured on one clip, and its features for what is measured on all of them."""
        clip = self.take(index)
        result, seconds = self.run(clip, index, f"clip {index}")
        rows = {"result": result, "copied": np.broadcast_to(clip.reference, clip.frames.shape)}
        values = {row: self.pictures(frames, clip.frames) for row, frames in rows.items()} | {"truth": {}}
        jump = border_jump(result, clip.frames, self.borders(len(result)))
        if math.isfinite(jump):
            values["result"]["jump"] = jump
        if self.detector is not None and clip.poses is not None:
            still = self.detector.extract([clip.reference])
            found = {
                "result": self.detector.extract(result, clip.fps),
                "copied": still[[0] * len(result)],
                "truth": self.detector.extract(clip.frames, clip.fps),
            }
            for row, poses in found.items():
                values[row] |= self.poses(poses, clip.poses)
        if self.faces is not None and clip.poses is not None and clip.poses.num_people:
            for row, value in face_likeness(rows | {"truth": clip.frames}, clip.poses, self.faces).items():
                values[row]["faces"] = value
        scores = ClipScores(index, clip.name, len(result), seconds, values)
        return {"scores": asdict(scores), "features": self.distributions.packed(rows | {"truth": clip.frames})}

    def pictures(self, frames: np.ndarray, truth: np.ndarray) -> dict[str, float]:
        """Means over the frames of what is measured frame by frame."""
        values = {
            "psnr": np.minimum(psnr(frames, truth), EQUAL_DB),
            "ssim": ssim(frames, truth),
            "l1": l1(frames, truth),
            "disco_ssim": _each(grey_ssim, frames, truth),
            "disco_l1": _each(l1_per_pixel, frames, truth),
            "wrapped_psnr": np.minimum(_each(wrapped_psnr, frames, truth), EQUAL_DB),
            "change": change_error(frames, truth),
            **{name: measure(frames, truth) for name, measure in self.measures.items()},
        }
        return {name: float(value.mean()) for name, value in values.items() if len(value)}

    def poses(self, found: Poses, true: Poses) -> dict[str, float]:
        """PCK of each part that can be judged, and the share of frames in which anybody was found."""
        found = choose_people(found, "largest")
        counts = {part: pck(found, true, self.settings.threshold, part) for part in PARTS}
        shares = {f"pck_{part}": right / judged for part, (right, judged) in counts.items() if judged}
        return shares | {"found": float(found.present.any(axis=1).mean())}

    def colours(self, references: int, ledger: Ledger, progress: Callable[[int], None]) -> np.ndarray | None:
        """Likeness of references (columns) and of what one motion made of them (rows); None for fewer than two."""
        driving, usable = self._driving(references)
        if driving is None or len(usable) < 2:
            return None
        rows = []
        for done, index in enumerate(usable, start=1):
            rows.append(ledger.recall(f"reference {index}", lambda index=index: self.swap(index, driving)))
            progress(done)
        results, originals = (np.array([row[name] for row in rows]) for name in ("result", "reference"))
        return similarity_matrix(results, originals)

    def _driving(self, references: int) -> tuple[Clip | None, list[int]]:
        """Of the first clips the one that shows most of its joints, and the numbers of all that have keypoints."""
        best, most, usable = None, -1, []
        for index in range(references):
            try:
                clip = self.take(index)
            except _Unusable:
                continue
            if clip.poses is not None and clip.poses.num_people:
                usable.append(index)
                if (shown := int(counted_points(clip.poses).sum())) > most:
                    best, most = clip, shown
        return best, usable

    def swap(self, index: int, driving: Clip) -> dict[str, list]:
        """Colours of the body in clip `index`, and in what the system makes of its reference with another motion."""
        clip = self.take(index)
        task = replace(driving, reference=clip.reference, reference_pose=clip.reference_pose)
        result, _ = self.run(task, 0, f"reference {index}")
        return {
            "result": body_colours(result, driving.poses).tolist(),
            "reference": body_colours(clip.frames, clip.poses).tolist(),
        }


def _each(measure: Callable[[np.ndarray, np.ndarray], float], frames: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """(F,) a measure of single pictures."""
    return np.array([measure(*pair) for pair in zip(frames, truth, strict=True)])


def _collect(frames: Iterable[np.ndarray], shape: tuple[int, ...]) -> np.ndarray:
    """Frames of a system as uint8 of a shape (F, H, W, 3); ValueError for another size or number."""
    made = np.empty(shape, dtype=np.uint8)
    count = 0
    for index, frame in enumerate(frames):
        count = index + 1
        if count > len(made):
            break
        if np.shape(frame) != shape[1:]:
            raise ValueError(f"frame {index} of the system has the shape {np.shape(frame)}, asked was {shape[1:]}.")
        made[index] = _uint8(np.asarray(frame), index)
    if count != len(made):
        raise ValueError(f"the system made {'more' if count > len(made) else count} frames, asked were {len(made)}.")
    return made


def _uint8(frame: np.ndarray, index: int) -> np.ndarray:
    if frame.dtype == np.uint8:
        return frame
    return np.rint(as_float(frame, f"frame {index} of the system") * 255).astype(np.uint8)


class _Quiet(Runtime):
    """The runtime outside, but for the progress of stages: many short ones would bury that of the evaluation."""

    def __init__(self, outside: Runtime) -> None:
        super().__init__(outside.device, outside.dtype)
        self.check_cancelled = outside.check_cancelled


@contextmanager
def _one_progress(total: int) -> Iterator[Callable[[int], None]]:
    outside = current()
    outside.progress(STAGE, 0, total)
    with use(_Quiet(outside)):
        yield lambda done: outside.progress(STAGE, done, total)
