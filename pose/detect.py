"""Finding the poses of everybody in a stream of pictures: YOLOX finds people, DWPose their 133 points.

The published systems run frame by frame and person by person. Here the crops of many frames and people go
through the pose network together; the poses are the same.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from functools import partial
from pathlib import Path

import numpy as np

from ..runtime import current, with_smaller_batches
from . import simcc, yolox
from .boxes import box_around, overlaps
from .gaps import frame_ranges
from .onnx_kinds import DWPOSE, YOLO_NAS, YOLOX
from .onnx_models import OnnxModel, open_model
from .poses import VISIBLE, Poses
from .wholebody import openpose_134

NOBODY = ("whole image", "skip")
STAGE = "finding poses"
NUM_POINTS = 133  # of the network
GPU_BATCH = 8
TRACK_MIN_POINTS = 8  # visible points that a track needs to carry on
TRACK_MIN_AREA = 1000  # square pixels of its box, as rtmlib's tracker asks
TRACK_MAX_OVERLAP = 0.7  # two tracks that share more than this may have fallen onto one person


class PoseDetector:
    """The two networks of DWPose, open; a context manager that frees them at the end.

    detector_path: yolox_l.onnx or a YOLO-NAS export; pose_path: dw-ll_ucoco_384.onnx or the same of another size.
    provider, strict: see :func:`.onnx_models.open_model`.
    batch_size: crops that go through the pose network together; poses do not depend on it. None: 8 on a GPU, and 1
        on the CPU, where larger batches only take more memory.
    detect_every: look for people in every n-th frame, and in between take the box around each person's last
        points, enlarged 1.25 times. When somebody is lost, people are looked for in the same frame; newcomers
        wait for the n-th. Above 1, frames depend on each other, so crops are batched over people only.
    nobody: a frame in which nobody is found is taken as one person as large as the picture ("whole image", as
        published: nonsense with low scores), or has no people ("skip").
    min_score: people of a lower detection score are passed over.
    """

    def __init__(
        self,
        detector_path: str | Path,
        pose_path: str | Path,
        provider: str = "auto",
        *,
        batch_size: int | None = None,
        detect_every: int = 1,
        nobody: str = "whole image",
        min_score: float = yolox.PERSON_SCORE,
        strict: bool = False,
    ) -> None:
        if nobody not in NOBODY:
            raise ValueError(f"nobody must be one of {', '.join(map(repr, NOBODY))}; got {nobody!r}")
        for name, value in (("batch_size", batch_size), ("detect_every", detect_every)):
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        self.detect_every, self.nobody, self.min_score = detect_every, nobody, min_score
        self.detector = open_model(detector_path, provider, strict, expect=(YOLOX, YOLO_NAS))
        self.crops = CropQueue(open_model(pose_path, provider, strict, expect=DWPOSE), batch_size)

    def close(self) -> None:
        """Free both networks."""
        self.detector.close()
        self.crops.model.close()

    def __enter__(self) -> PoseDetector:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def find_people(self, picture: np.ndarray) -> np.ndarray:
        """(n, 4) boxes of the people in a picture (H, W, 3) uint8 RGB, in pixels, best first; n may be 0."""
        side = next(iter(self.detector.inputs.values()))[-1] or 640
        ratio, _ = yolox.fit(*picture.shape[:2], side)
        nas = self.detector.kind is YOLO_NAS
        inputs = yolox.network_input(yolox.letterbox(picture, side), np.uint8 if nas else np.float32)
        outputs = with_smaller_batches(lambda _: self.detector.run(inputs), (1, 1), "looking for people")
        if nas:
            return yolox.find_people_nas(*outputs[1:], ratio, self.min_score)
        return yolox.find_people(outputs[0], ratio, side, self.min_score)

    def boxes_for_nobody(self, picture: np.ndarray) -> np.ndarray:
        """What :attr:`nobody` puts in place of an empty result: (1, 4), the whole picture, or (0, 4)."""
        height, width = picture.shape[:2]
        return np.array([[0.0, 0.0, width, height]])[: self.nobody == "whole image"]

    def find_points(self, picture: np.ndarray, boxes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The network's 133 points (n, 133, 2) in pixels of the picture, and their scores (n, 133), for n boxes."""
        found = self.crops.add(picture, boxes)
        self.crops.flush()
        return found

    def extract(self, frames: Iterable[np.ndarray], fps: float | None = None, total: int | None = None) -> Poses:
        """Poses of everybody in a stream of frames (H, W, 3) uint8 RGB, all of one size.

        People are in order of detection score, highest first; while they are followed they keep their places.
        One frame and one batch of crops are held at a time. total: how many frames to expect, for progress only.
        Raises ValueError for no frame, a wrong type or a change of size, MemoryError when not even a small batch
        of crops fits.
        """
        total = len(frames) if total is None and hasattr(frames, "__len__") else total or 0
        size, age = None, -1
        found: list[tuple[np.ndarray, np.ndarray]] = []
        empty: list[int] = []
        try:
            for index, frame in enumerate(frames):
                current().check_cancelled()
                size = _checked_size(frame, index, size)
                age = (age + 1) % self.detect_every
                pose = self._tracked(frame, *found[-1]) if age else None
                if pose is None:
                    age, boxes = 0, self.find_people(frame)
                    if len(boxes) == 0:
                        empty.append(index)
                        boxes = self.boxes_for_nobody(frame)
                    pose = self.crops.add(frame, boxes)
                found.append(pose)
                if not self.crops.waiting:
                    current().show(partial(_with_people, frame, pose))
                current().progress(STAGE, index + 1, max(total, index + 1))
            self.crops.flush()
        finally:
            self.crops.clear()
        if size is None:
            raise ValueError("There is no frame to find poses in: the video or the folder of pictures is empty.")
        if empty and len(found) > 1:  # of a single picture the caller says it in better words
            ranges = frame_ranges(np.array(empty))
            message = f"Nobody was found in {len(empty)} of {len(found)} frames ({ranges})."
            warnings.warn(message, RuntimeWarning, stacklevel=2)
        return _as_poses(found, size, fps)

    def _tracked(
        self, frame: np.ndarray, last_points: np.ndarray, last_scores: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray] | None:
        self.crops.flush()
        boxes = follow(last_points, last_scores)
        if boxes is None:
            return None
        found = self.find_points(frame, boxes)
        return found if follow(*found) is not None else None


class CropQueue:
    """Crops of people waiting for the pose network, which sees a batch of them together.

    The network always sees batches of few different sizes: a GPU tunes itself anew for every size. Filling a batch
    up with copies does not change the others' results.
    """

    def __init__(self, model: OnnxModel, batch_size: int | None = None) -> None:
        batch, _, height, width = next(iter(model.inputs.values()))
        self.model = model
        self.input_size = (width or simcc.INPUT_SIZE[0], height or simcc.INPUT_SIZE[1])
        self.fixed_batch = batch
        self.batch_size = batch or batch_size or (1 if model.provider == "cpu" else GPU_BATCH)
        self.waiting: list[tuple[np.ndarray, ...]] = []

    def add(self, picture: np.ndarray, boxes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Cut the crops of n boxes out of a picture; full batches run at once.

        Returns points (n, 133, 2) in pixels and scores (n, 133) that are filled in by the next :meth:`flush`.
        """
        points, scores = np.zeros((len(boxes), NUM_POINTS, 2)), np.zeros((len(boxes), NUM_POINTS))
        centres, scales = simcc.centres_and_scales(boxes, self.input_size)
        for person, (centre, scale) in enumerate(zip(centres, scales, strict=True)):
            matrix = simcc.crop_matrix(centre, scale, self.input_size)
            crop = simcc.crop(picture, matrix, self.input_size)
            self.waiting.append((crop, centre, scale, points[person], scores[person]))
            if len(self.waiting) >= self.batch_size:
                self.flush()
        return points, scores

    def flush(self) -> None:
        """Run everything that waits."""
        if self.waiting:
            smaller = max(1, self.batch_size // 4)
            sizes = [self.batch_size] if self.fixed_batch or smaller == self.batch_size else [self.batch_size, smaller]
            with_smaller_batches(self._run, sizes, STAGE)
            self.waiting.clear()

    def clear(self) -> None:
        """Forget everything that waits, after a job that was broken off."""
        self.waiting.clear()

    def _run(self, batch_size: int) -> None:
        for start in range(0, len(self.waiting), batch_size):
            crops, centres, scales, points, scores = zip(*self.waiting[start : start + batch_size], strict=True)
            inputs = simcc.normalise(self._padded(crops, batch_size))
            locations, values = simcc.decode(*self.model.run(inputs))
            n = len(crops)
            found = simcc.to_picture(locations[:n], np.stack(centres), np.stack(scales), self.input_size)
            for i in range(n):
                points[i][:], scores[i][:] = found[i], values[i]
        self.batch_size = batch_size  # what did not fit once is not tried again

    def _padded(self, crops: tuple[np.ndarray, ...], batch_size: int) -> np.ndarray:
        n = size = len(crops)
        if self.fixed_batch:
            size = self.fixed_batch
        elif self.model.provider != "cpu":
            size = min(batch_size, 1 << (n - 1).bit_length())
        return np.stack(crops + crops[-1:] * (size - n))


def follow(points: np.ndarray, scores: np.ndarray) -> np.ndarray | None:
    """Boxes (n, 4) in the next frame of people with these points (n, 133, 2), all in pixels, and scores (n, 133).

    The box around each person's visible points, enlarged 1.25 times; None when there is nobody, or anybody is lost:
    too few points seen, too small, or on top of somebody else.
    """
    visible = scores > VISIBLE
    if len(points) == 0 or visible.sum(axis=1).min() < TRACK_MIN_POINTS:
        return None
    boxes = np.stack([box_around(one[seen]) for one, seen in zip(points, visible, strict=True)])
    shared = overlaps(boxes, boxes)
    np.fill_diagonal(shared, 0)
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
    return None if areas.min() < TRACK_MIN_AREA or shared.max() > TRACK_MAX_OVERLAP else boxes


def _checked_size(frame: np.ndarray, index: int, size: tuple[int, int] | None) -> tuple[int, int]:
    if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3:
        raise ValueError(f"frame {index} must be (height, width, 3) of uint8 in RGB, got {frame.shape} {frame.dtype}")
    if size not in (None, frame.shape[:2]):
        raise ValueError(
            f"frame {index} has {frame.shape[1]} x {frame.shape[0]} pixels, but those before it {size[1]} x {size[0]}: "
            "bring all frames to one size first."
        )
    return frame.shape[:2]


def _with_people(frame: np.ndarray, pose: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    """A frame (H, W, 3) with what was found in it drawn over it."""
    from .draw import draw_clip, overlay

    size = frame.shape[:2]
    return overlay(frame, next(draw_clip(_as_poses([pose], size, None), size, "classic")))


def _as_poses(found: list[tuple[np.ndarray, np.ndarray]], size: tuple[int, int], fps: float | None) -> Poses:
    frames = [openpose_134(points, scores) for points, scores in found]
    return Poses.from_frames([(points / (size[1], size[0]), scores) for points, scores in frames], size, fps)
