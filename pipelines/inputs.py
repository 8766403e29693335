"""What a job reads: the reference picture, the driving clip in any of its forms, and the pose of the reference."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

from ..media.clips import FrameSource
from ..media.files import check_name
from ..media.frame_sampling import effective_stride
from ..media.pictures import PICTURE_SUFFIXES, load_picture
from ..media.video import open_source
from ..media.write import check_writable
from ..model_loaders.catalogue import find_file, require_file
from ..pose.align import onto_canvas
from ..pose.detect import PoseDetector
from ..pose.openpose_json import load_json
from ..pose.people import choose_people
from ..pose.poses import Poses
from ..pose.skeletons import prepare_skeletons
from .driving import Driving, PoseSettings, drive_by_poses, drive_by_skeletons, has_person

CHOICES = ("auto", "detect", "first")  # of the pose of the reference picture, besides a file
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
    source_fps: float | None = None
    """Frame rate of a folder of pictures, or of poses whose files do not tell it."""
    source_size: tuple[int, int] | None = None
    """Width and height of the pictures that poses were found in, for files that do not tell them."""

    def __post_init__(self) -> None:
        if not 0 <= self.start < math.inf:
            raise ValueError(f"start must be 0 seconds or more, got {self.start}.")
        if self.duration is not None and not 0 < self.duration < math.inf:
            raise ValueError(f"duration must be above 0 seconds, got {self.duration}.")
        for name in ("fps", "source_fps"):
            value = getattr(self, name)
            if value is not None and not 0 < value <= 1000:
                raise ValueError(f"{name} must be above 0 and at most 1000 frames per second, got {value}.")
        for name in ("stride", "max_frames"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be 1 or more, got {value}.")
        if self.source_size is not None and min(self.source_size) < 1:
            raise ValueError(f"source_size must be a width and a height in pixels, got {self.source_size}.")


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
    """A frame in which no person is found: leave it to the gap policy, or take the whole image for a person, as
    published."""
    detect_every: int = 1
    """Look for people in every n-th frame and follow them in between."""
    pose_batch: int | None = None
    """People that go through the pose network together; None is 8 on a GPU and 1 on the CPU."""

    def __post_init__(self) -> None:
        for name in ("detect_every", "pose_batch"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be 1 or more, got {value}.")

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
    fps = clip.source_fps if path.is_dir() else None
    source = open_source(path, clip.start, clip.duration, stride=clip.stride or 1, fps=fps, max_frames=clip.max_frames)
    if clip.source_fps is not None and source.kind in ("video", "animation"):
        raise ValueError(f"{path} has a frame rate of its own; source_fps is for folders of pictures and for poses.")
    if clip.stride is None and source.kind == "video" and source.fps >= PUBLISHED_STRIDE_FROM:
        stride = effective_stride(source.fps, PUBLISHED_STRIDE)
        return open_source(path, clip.start, clip.duration, stride=stride, max_frames=clip.max_frames)
    return source


def load_poses(path: Path, clip: Clip) -> Poses:
    """The chosen frames of poses from JSON."""
    size = None if clip.source_size is None else clip.source_size[::-1]
    return cut_poses(load_json(path, clip.source_fps, size), clip)


def cut_poses(poses: Poses, clip: Clip) -> Poses:
    """The chosen frames of a clip of poses; start and duration need its frame rate."""
    stride = clip.stride or 1
    if (clip.start or clip.duration is not None) and poses.fps is None:
        raise ValueError("These poses have no frame rate: give source_fps to use start and duration.")
    first = round(clip.start * (poses.fps or 0))
    last = len(poses) if clip.duration is None else first + max(1, round(clip.duration * poses.fps))
    chosen = poses[first:last:stride][: clip.max_frames]
    if len(chosen) == 0:
        raise ValueError(f"No frame is left: the poses have {len(poses)} frames, the first one asked for is {first}.")
    return replace(chosen, fps=None if poses.fps is None else poses.fps / stride)


def is_pose_data(path: Path) -> bool:
    """Whether a path holds keypoints (a JSON file, or a folder of them) rather than pictures."""
    if path.is_dir():
        suffixes = {file.suffix.lower() for file in path.iterdir()}
        return ".json" in suffixes and not suffixes & PICTURE_SUFFIXES
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

    def check(self) -> None:
        """Raise ValueError or FileNotFoundError for what can be told from the paths alone."""
        if (self.video is None) == (self.poses is None):
            raise ValueError("Give either a driving video (--video) or poses (--poses), one of the two.")
        clip = self.video or self.poses
        if not clip.exists():
            raise FileNotFoundError(f"The driving clip {clip} does not exist.")
        if self.video is not None and is_pose_data(self.video):
            raise ValueError(f"{self.video} holds poses, not pictures: give it as poses (--poses).")
        if self.reference_pose in CHOICES:
            return
        path = Path(self.reference_pose)
        if not path.exists():
            raise FileNotFoundError(
                f"The reference pose {path} does not exist: give a file, or one of {', '.join(CHOICES)}."
            )
        if not is_pose_data(path) and (self.poses is None or is_pose_data(self.poses)):
            raise ValueError(
                f"The reference pose {path} is a picture, but the driving poses are keypoints: give its keypoints as "
                'JSON, or "detect", or "first".'
            )

    def drive(self, reference: np.ndarray, style: str) -> Driving:
        """Pose pictures for a reference picture, uint8 (H, W, 3) at its final size."""
        self.check()
        size = reference.shape[:2]
        if self.poses is None:
            return self._drive_by_video(reference, style)
        if is_pose_data(self.poses):
            poses = load_poses(self.poses, self.clip)
            return drive_by_poses(poses, self._reference_poses(reference), size, style, self.pose)
        source = open_clip(self.poses, self.clip)
        given, detected = self._reference_drawing(reference, style)
        driving = drive_by_skeletons(
            source.__iter__, source.num_frames, _rate(source), size, style, given=given, detected=detected
        )
        return replace(driving, audio_path=source.audio_path, audio_start=source.audio_start)

    def _drive_by_video(self, reference: np.ndarray, style: str) -> Driving:
        source = open_clip(self.video, self.clip)
        with self.detection.open(self.folders) as detector:
            reference_poses = self._reference_poses(reference, detector)  # first: a mistake here costs seconds only
            poses = detector.extract(source, _rate(source), source.num_frames)
        driving = drive_by_poses(poses, reference_poses, reference.shape[:2], style, self.pose)
        return replace(driving, audio_path=source.audio_path, audio_start=source.audio_start)

    def _reference_poses(self, reference: np.ndarray, detector: PoseDetector | None = None) -> Poses | None:
        """Pose of the reference picture as data, or None: the first driving pose is to stand for it."""
        if self.reference_pose == "first":
            return None
        if self.reference_pose in CHOICES:
            return self._find_reference_poses(reference, detector)
        size = None if self.clip.source_size is None else self.clip.source_size[::-1]
        poses = load_json(self.reference_pose, size=size)[0]
        if not has_person(poses):
            raise ValueError(f"{self.reference_pose} shows no person in its first frame; give another pose.")
        return onto_canvas(poses, reference.shape[:2])

    def _find_reference_poses(self, reference: np.ndarray, detector: PoseDetector | None) -> Poses | None:
        asked = self.reference_pose == "detect"
        if detector is None and not asked and not self.detection.available(self.folders):
            return None
        with nullcontext(detector) if detector is not None else self.detection.open(self.folders) as opened:
            poses = opened.extract([reference])
        if asked and not has_person(poses):
            raise ValueError(
                "No person was found in the reference picture: use a picture that shows one, or let the first driving "
                'pose stand for it (--reference-pose first, or "auto").'
            )
        return poses

    def _reference_drawing(self, reference: np.ndarray, style: str) -> tuple[np.ndarray | None, np.ndarray | None]:
        """Skeleton picture of the reference at the final size: (as the user gave it, as it was found), None if not."""
        size = reference.shape[:2]
        if self.reference_pose not in CHOICES and not is_pose_data(Path(self.reference_pose)):
            picture = load_picture(self.reference_pose, background=(0, 0, 0))
            return next(iter(prepare_skeletons([picture], size, style).frames)), None
        poses = self._reference_poses(reference)
        if poses is None or not has_person(poses):
            return None, None
        drawing = next(self.pose.draw(choose_people(poses, "largest"), size, style))
        return (None, drawing) if self.reference_pose in CHOICES else (drawing, None)


def _rate(source: FrameSource) -> float | None:
    return None if source.fps is None else float(source.fps)


def check_outputs(
    inputs: Iterable[Path | None], videos: Iterable[Path | None] = (), files: Iterable[Path | None] = ()
) -> None:
    """Raise what writing these would raise, before the work; ValueError where one replaces an input or another."""
    videos, files = ([path for path in paths if path is not None] for paths in (videos, files))
    taken = {path.resolve() for path in inputs if path is not None}
    for path in (*videos, *files):
        if path.resolve() in taken:
            raise ValueError(f"{path} is to be written, but it is read, or written a second time, in the same job.")
        taken.add(path.resolve())
    for path in videos:
        check_writable(path)
    for path in files:
        check_name(path)
