"""Poses alone: found in a video or read from a file, cleaned, drawn, laid over the video, and saved."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from ..model_loaders.tiny import DETECTOR_FILE, POSE_FILE, TINY_FOLDER
from ..pose.draw import overlay
from ..pose.openpose_json import save_json
from ..pose.poses import Poses
from .driving import PoseCleaning, clean
from .inputs import DEFAULT_FPS, Clip, Detection, check_outputs, is_pose_data, load_poses, open_clip
from .latents_file import VideoFacts, write_video


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
    style: Literal["mimicmotion", "stableanimator", "classic", "followyourpose", "controlnet_aux"] = "mimicmotion"
    """Convention to draw in."""
    tiny: bool = False
    """Use the built-in detector, which only knows the figures of the demo."""
    models: Path | None = None
    """A models folder to look in first."""
    clip: Clip = field(default_factory=Clip)
    detection: Detection = field(default_factory=Detection)
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
        frames = zip(open_clip(job.source, job.clip), job.pose.draw(poses, poses.size, job.style), strict=False)
        write_video(job.overlay, (overlay(*pair) for pair in frames), poses.size, facts)
    return poses


def _detect(job: FindPoses) -> Poses:
    detection = job.detection
    folders = () if job.models is None else (job.models,)
    if job.tiny:
        detection = replace(detection, detector=DETECTOR_FILE, pose_model=POSE_FILE, provider="cpu")
        folders = (TINY_FOLDER,)
    source = open_clip(job.source, job.clip)
    with detection.open(folders) as detector:
        return detector.extract(source, None if source.fps is None else float(source.fps), source.num_frames)
