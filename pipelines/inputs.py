"""What a job reads: the reference picture, the driving clip in any of its forms, and the pose of the reference."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

from ..media.clips import FrameSource
from ..media.frame_sampling import effective_stride
from ..media.pictures import load_picture
from ..media.video import open_source
from ..model_loaders.catalogue import find_file, require_file
from ..pose.align import onto_canvas
from ..pose.detect import PoseDetector
from ..pose.openpose_json import load_json
from ..pose.poses import Poses
from ..pose.skeletons import prepare_skeletons
from .driving import Driving, PoseSettings, drive_by_poses, drive_by_skeletons, has_person

DEFAULT_FPS = 15  # the published playback rate, for clips that do not tell theirs
PUBLISHED_STRIDE = 2
PUBLISHED_STRIDE_FROM = 20  # frames per second; slower clips keep all their frames


@dataclass(frozen=True)
class Clip:
    """Which part of the driving clip is used, and how fast the result plays."""

    start: float = 0.0
    """Seconds from the beginning."""
    duration: float | None = None
    """Seconds to use; None is up to the end."""
    stride: int | None = None
    """Use every n-th frame. None is the published rule for videos of 20 and more frames per second (every second
    one, of faster videos fewer: 12 to 24 come out) and every frame of anything else."""
    fps: float | None = None
    """Frame rate of the result. None keeps the speed of the motion: driving rate / stride."""
    max_frames: int | None = None
    """Use at most so many frames."""


@dataclass(frozen=True)
class Detection:
    """The networks that find poses; see docs/pose.md."""

    detector: str = "yolox_l.onnx"
    """Person detector, an ONNX file."""
    pose_model: str = "dw-ll_ucoco_384.onnx"
    """Pose network of 133 points, an ONNX file."""
    provider: Literal["auto", "tensorrt", "cuda", "migraphx", "rocm", "directml", "openvino", "coreml", "cpu"] = "auto"
    """Where onnxruntime computes."""
    nobody: Literal["skip", "whole image"] = "skip"
    """A frame in which no person is found: leave it to --gaps, or take the whole image for a person, as published."""
    detect_every: int = 1
    """Look for people in every n-th frame and follow them in between."""
    pose_batch: int | None = None
    """People that go through the pose network together; None is 8 on a GPU and 1 on the CPU."""

    @contextmanager
    def open(self, folders: tuple[Path, ...] = ()) -> Iterator[PoseDetector]:
        """The two networks, looked for by name in `folders` and the usual models folders, open inside the block."""
        paths = [require_file(name, folders) for name in (self.detector, self.pose_model)]
        options = {"batch_size": self.pose_batch, "detect_every": self.detect_every, "nobody": self.nobody}
        with PoseDetector(*paths, self.provider, **options) as detector:
            yield detector

    def available(self, folders: tuple[Path, ...] = ()) -> bool:
        """Whether both files are there."""
        return all(find_file(name, folders) for name in (self.detector, self.pose_model))


def open_clip(path: Path, clip: Clip) -> FrameSource:
    """The chosen frames of a video, animated picture or folder of pictures."""
    source = open_source(path, clip.start, clip.duration, stride=clip.stride or 1, max_frames=clip.max_frames)
    if clip.stride is None and source.kind == "video" and source.fps >= PUBLISHED_STRIDE_FROM:
        stride = effective_stride(source.fps, PUBLISHED_STRIDE)
        return open_source(path, clip.start, clip.duration, stride=stride, max_frames=clip.max_frames)
    return source


def cut_poses(poses: Poses, clip: Clip) -> Poses:
    """The chosen frames of a clip of poses; start and duration need its frame rate."""
    stride = clip.stride or 1
    if (clip.start or clip.duration is not None) and poses.fps is None:
        raise ValueError("These poses have no frame rate, so start and duration cannot be used; use --max-frames.")
    first = round(clip.start * (poses.fps or 0))
    last = len(poses) if clip.duration is None else first + max(1, round(clip.duration * poses.fps))
    chosen = poses[first:last:stride][: clip.max_frames]
    if len(chosen) == 0:
        raise ValueError(f"No frame is left: the poses have {len(poses)} frames, the first one asked for is {first}.")
    return replace(chosen, fps=None if poses.fps is None else poses.fps / stride)


def is_pose_data(path: Path) -> bool:
    """Whether a path holds keypoints (a JSON file, or a folder of them) rather than pictures."""
    if path.is_dir():
        return any(path.glob("*.json")) and not any(path.glob("*.png"))
    return path.suffix.lower() == ".json"


@dataclass(frozen=True)
class DrivingInputs:
    """Everything that becomes a :class:`.driving.Driving`, as paths and settings; see :class:`.job.Animate`."""

    video: Path | None
    poses: Path | None
    reference_pose: str
    clip: Clip
    detection: Detection
    pose: PoseSettings
    folders: tuple[Path, ...] = ()

    def drive(self, reference: np.ndarray, style: str) -> Driving:
        """Pose pictures for a reference picture, uint8 (H, W, 3) at its final size."""
        if (self.video is None) == (self.poses is None):
            raise ValueError("Give either a driving video (--video) or poses (--poses), one of the two.")
        size = reference.shape[:2]
        if self.poses is not None and not is_pose_data(self.poses):
            source = open_clip(self.poses, self.clip)
            given = self._given_drawing(size, style)
            detected = None if given is not None else self._detected_drawing(reference, style)
            fps = None if source.fps is None else float(source.fps)
            driving = drive_by_skeletons(
                source.__iter__, source.num_frames, fps, size, style, given=given, detected=detected
            )
            return replace(driving, audio_path=source.audio_path, audio_start=source.audio_start)
        if self.poses is not None:
            poses = cut_poses(load_json(self.poses), self.clip)
            return drive_by_poses(poses, self._reference_poses(reference), size, style, self.pose)
        return self._drive_by_video(reference, style)

    def _drive_by_video(self, reference: np.ndarray, style: str) -> Driving:
        source = open_clip(self.video, self.clip)
        with self.detection.open(self.folders) as detector:
            fps = None if source.fps is None else float(source.fps)
            poses = detector.extract(source, fps, source.num_frames)
            reference_poses = self._reference_poses(reference, detector)
        driving = drive_by_poses(poses, reference_poses, reference.shape[:2], style, self.pose)
        return replace(driving, audio_path=source.audio_path, audio_start=source.audio_start)

    def _reference_poses(self, reference: np.ndarray, detector: PoseDetector | None = None) -> Poses | None:
        """Pose of the reference picture as data, or None: the first driving pose is to stand for it."""
        if self.reference_pose == "first":
            return None
        if self.reference_pose in ("auto", "detect"):
            return self._find_reference_poses(reference, detector)
        path = Path(self.reference_pose)
        if not is_pose_data(path):
            raise ValueError(
                f"The reference pose {path} is a picture, but the driving poses are keypoints: give its keypoints as "
                'JSON, or "detect", or "first".'
            )
        return onto_canvas(load_json(path)[0], reference.shape[:2])

    def _find_reference_poses(self, reference: np.ndarray, detector: PoseDetector | None) -> Poses | None:
        asked = self.reference_pose == "detect"
        if detector is None and not asked and not self.detection.available(self.folders):
            return None
        with nullcontext(detector) if detector is not None else self.detection.open(self.folders) as opened:
            poses = opened.extract([reference])
        if asked and not has_person(poses):
            raise ValueError(
                "No person was found in the reference picture: use a picture that shows one, or --reference-pose first."
            )
        return poses

    def _given_drawing(self, size: tuple[int, int], style: str) -> np.ndarray | None:
        """The skeleton picture that the user gave for the reference, at the final size, or None."""
        if self.reference_pose in ("auto", "detect", "first") or is_pose_data(Path(self.reference_pose)):
            return None
        picture = load_picture(self.reference_pose, background=(0, 0, 0))
        return next(iter(prepare_skeletons([picture], size, style).frames))

    def _detected_drawing(self, reference: np.ndarray, style: str) -> np.ndarray | None:
        """Pose of the reference picture (found, or given as keypoints), drawn; None when there is nobody."""
        poses = self._reference_poses(reference)
        if poses is None or not has_person(poses):
            return None
        return next(self.pose.draw(poses, reference.shape[:2], style))
