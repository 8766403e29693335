"""Poses alone: found in a video, cleaned, aligned to a picture, drawn, laid over the video; each from file to file."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np

from ..conditioning.picture import check_picture
from ..media.pictures import load_picture
from ..model_loaders.tiny import DETECTOR_FILE, POSE_FILE, TINY_FOLDER
from ..pose.align import onto_canvas
from ..pose.detect import PoseDetector
from ..pose.draw import overlay
from ..pose.openpose_json import save_json
from ..pose.poses import Poses
from .driving import PoseCleaning, clean, fit_to_reference
from .inputs import DEFAULT_FPS, Clip, Detection, check_outputs, is_pose_data, load_poses, open_clip
from .latents_file import VideoFacts, write_video

Style = Literal["mimicmotion", "stableanimator", "classic", "followyourpose", "controlnet_aux"]


@dataclass(frozen=True)
class Detector:
    """Which networks find the poses."""

    tiny: bool = False
    """Use the built-in detector, which only knows the figures of the demo."""
    models: Path | None = None
    """A models folder to look in first."""
    detection: Detection = field(default_factory=Detection)

    @contextmanager
    def open(self) -> Iterator[PoseDetector]:
        """The networks, open inside the block."""
        if self.tiny:
            tiny = replace(self.detection, detector=DETECTOR_FILE, pose_model=POSE_FILE, provider="cpu")
            opened = tiny.open((TINY_FOLDER,))
        else:
            opened = self.detection.open(() if self.models is None else (self.models,))
        with opened as detector:
            yield detector


@dataclass(frozen=True)
class FindPoses:
    """Find the poses of a video (or take them from JSON), clean them, and save or draw them."""

    source: Path
    """Video, animated picture, picture, folder of pictures, or poses as JSON."""
    output: Path | None = None
    """Write the poses as JSON, which can drive an animation."""
    flavour: Literal["scored", "openpose"] = "scored"
    """"scored" keeps all scores; "openpose" is what other OpenPose tools write: every confidence 0 or 1."""
    drawing: Path | None = None
    """Write a video of the drawn poses."""
    overlay: Path | None = None
    """Write a video of the poses over the source, for checking."""
    style: Style = "mimicmotion"
    """Convention to draw in."""
    clip: Clip = field(default_factory=Clip)
    detector: Detector = field(default_factory=Detector)
    pose: PoseCleaning = field(default_factory=lambda: PoseCleaning(people="all"))


def find_poses(job: FindPoses) -> Poses:
    """Do the job and return the cleaned poses."""
    from_file = is_pose_data(job.source)
    if job.overlay is not None and from_file:
        raise ValueError("--overlay needs the pictures that the poses were found in, but the source holds poses.")
    check_outputs((job.source,), videos=(job.drawing, job.overlay), files=(job.output,))
    poses = clean(load_poses(job.source, job.clip) if from_file else _detect(job), job.pose)
    if job.output is not None:
        save_json(job.output, poses, job.flavour)
    facts = VideoFacts(job.clip.fps or poses.fps or DEFAULT_FPS, decode_chunk=1)
    if job.drawing is not None:
        write_video(job.drawing, job.pose.draw(poses, poses.size, job.style), poses.size, facts)
    if job.overlay is not None:
        frames = _overlays(open_clip(job.source, job.clip), job.pose.draw(poses, poses.size, job.style))
        write_video(job.overlay, frames, poses.size, facts)
    return poses


def _detect(job: FindPoses) -> Poses:
    source = open_clip(job.source, job.clip)
    with job.detector.open() as detector:
        return detector.extract(source, None if source.fps is None else float(source.fps), source.num_frames)


@dataclass(frozen=True)
class AlignPoses:
    """Fit the poses of a clip to the person of a picture."""

    poses: Path
    """Poses of the clip as JSON."""
    reference: Path
    """The picture, or the pose of its person as JSON."""
    output: Path
    """Write the fitted poses as JSON."""
    align: Literal["mimicmotion", "stableanimator", "robust", "limbs", "none"] = "mimicmotion"
    """How; see docs/alignment.md."""
    detector: Detector = field(default_factory=Detector)
    clip: Clip = field(default_factory=Clip)


def align_poses(job: AlignPoses) -> str:
    """Do the job and return what the user should know, or ""."""
    check_outputs((job.poses, job.reference), files=(job.output,))
    poses = load_poses(job.poses, job.clip)
    if is_pose_data(job.reference):
        reference = load_poses(job.reference, Clip())[0]
    else:
        picture = load_picture(job.reference)
        check_picture(picture)
        with job.detector.open() as detector:
            reference = detector.extract([picture])
    fitted, _, note = fit_to_reference(poses, reference, reference.size, job.align)
    save_json(job.output, fitted)
    return note


@dataclass(frozen=True)
class DrawPoses:
    """Draw the poses of a clip as a video."""

    poses: Path
    """Poses as JSON."""
    output: Path
    """The video to write."""
    style: Style = "mimicmotion"
    """Convention to draw in."""
    size: tuple[int, int] | None = None
    """Width and height of the video; None is the size that the poses were found on."""
    clip: Clip = field(default_factory=Clip)
    pose: PoseCleaning = field(default_factory=lambda: PoseCleaning(people="all", gaps="blank"))


def draw_poses(job: DrawPoses) -> int:
    """Do the job and return the number of frames."""
    check_outputs((job.poses,), videos=(job.output,))
    poses = clean(load_poses(job.poses, job.clip), job.pose)
    size = poses.size if job.size is None else job.size[::-1]
    if min(size) < 1:
        raise ValueError(f"size must be a width and a height in pixels, got {job.size}.")
    drawings = job.pose.draw(onto_canvas(poses, size), size, job.style)
    write_video(job.output, drawings, size, VideoFacts(job.clip.fps or poses.fps or DEFAULT_FPS, decode_chunk=1))
    return len(poses)


@dataclass(frozen=True)
class ShowPoses:
    """Lay poses over the video that they were found in, for checking; the same part of it must be chosen."""

    poses: Path
    """Poses as JSON."""
    source: Path
    """Video, animated picture, or folder of pictures."""
    output: Path
    """The video to write."""
    style: Style = "mimicmotion"
    """Convention to draw in."""
    clip: Clip = field(default_factory=Clip)


def show_poses(job: ShowPoses) -> int:
    """Do the job and return the number of frames."""
    check_outputs((job.poses, job.source), videos=(job.output,))
    source, poses = open_clip(job.source, job.clip), load_poses(job.poses, Clip())
    fps = job.clip.fps or source.fps or poses.fps or DEFAULT_FPS
    drawings = PoseCleaning().draw(onto_canvas(poses, source.size), source.size, job.style)
    frames = _overlays(source, drawings)
    write_video(job.output, frames, source.size, VideoFacts(float(fps), decode_chunk=1))
    return len(poses)


def _overlays(pictures: Iterable[np.ndarray], drawings: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    return (overlay(picture, drawing) for picture, drawing in zip(pictures, drawings, strict=False))
