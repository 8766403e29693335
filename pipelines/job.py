"""A whole job from files to a file: a picture and a driving clip in, a video out."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from ..conditioning.picture import check_size, cover_crop, video_size
from ..media.pictures import load_picture
from ..media.write import check_writable
from ..model_loaders.catalogue import find_file, require_file
from ..model_loaders.mimicmotion import MimicMotionNetworks, load_mimicmotion
from ..model_loaders.svd import SVDParts, load_svd_parts
from ..model_loaders.tiny import DETECTOR_FILE, POSE_FILE, TINY_FOLDER, load_tiny
from ..pose.openpose_json import save_json
from .driving import Driving, PoseSettings
from .inputs import DEFAULT_FPS, Clip, Detection, DrivingInputs
from .latents_file import VideoFacts, decode_to_video, latents_path, load_latents, save_latents, write_video
from .mimicmotion import Settings, generate

log = logging.getLogger(__name__)

STYLE = "mimicmotion"
RESOLUTION = {"mimicmotion": 576, "tiny": 128}
SVD_NAMES = (
    "stable-video-diffusion-img2vid-xt-1-1",
    "svd_xt_1_1.safetensors",
    "stable-video-diffusion-img2vid-xt",
    "svd_xt.safetensors",
)


@dataclass(frozen=True)
class Weights:
    """The networks of a system; files are looked for by name in the models folders (`choreo models`)."""

    model: Literal["mimicmotion", "tiny"] = "mimicmotion"
    """Which system; "tiny" is built in, needs no files, and serves tests and demos only."""
    weights: str = "MimicMotion_1-1.pth"
    """MimicMotion's weights: full checkpoint, UNet alone, or a trainer's checkpoint folder."""
    pose_net: str | None = None
    """PoseNet of a UNet alone; None looks beside it."""
    svd: str | None = None
    """SVD's VAE and image tower: a diffusers folder or a single file; None takes the first one found."""
    models: Path | None = None
    """A models folder to look in first."""

    @property
    def folders(self) -> tuple[Path, ...]:
        """The models folders to look in before the usual ones."""
        tiny = (TINY_FOLDER,) if self.model == "tiny" else ()
        return tiny if self.models is None else (self.models, *tiny)

    def paths(self) -> tuple[Path, Path | None, Path] | None:
        """Weights, PoseNet and SVD as paths, None for the tiny model; FileNotFoundError names what is missing."""
        if self.model == "tiny":
            return None
        svd = self.svd or next((name for name in SVD_NAMES if find_file(name, self.folders)), SVD_NAMES[0])
        pose_net = None if self.pose_net is None else require_file(self.pose_net, self.folders)
        return require_file(self.weights, self.folders), pose_net, require_file(svd, self.folders)

    def load(self) -> tuple[MimicMotionNetworks, SVDParts]:
        """The networks, on the CPU."""
        paths = self.paths()
        if paths is None:
            return load_tiny()
        weights, pose_net, svd = paths
        return load_mimicmotion(weights, pose_net), load_svd_parts(svd)


@dataclass(frozen=True)
class Animate:
    """Animate the person of a picture with the motion of a video, of poses, or of ready skeleton pictures."""

    reference: Path
    """Picture of the person."""
    video: Path | None = None
    """Driving video (or animated picture, or folder of pictures) that shows a person."""
    poses: Path | None = None
    """Instead of a video: poses as JSON, or ready skeleton pictures (a folder or a video)."""
    reference_pose: str = "auto"
    """Pose of the reference picture: "detect", "first" (the first driving pose), or a file: keypoints as JSON, or with
    skeleton pictures a picture. "auto" detects it when the detector's files are there, and takes the first if not."""
    output: Path = Path("outputs/animation.mp4")
    """The video to write."""
    size: tuple[int, int] | None = None
    """Width and height of the result, multiples of 64; None follows --resolution."""
    resolution: int | None = None
    """Short side of the result, the long side in the ratio 16:9; None is 576, and 128 for the tiny model."""
    save_poses: Path | None = None
    """Also write the fitted poses as JSON."""
    save_pose_video: Path | None = None
    """Also write the pose pictures as a video."""
    clip: Clip = field(default_factory=Clip)
    detection: Detection = field(default_factory=Detection)
    pose: PoseSettings = field(default_factory=PoseSettings)
    networks: Weights = field(default_factory=Weights)
    sampling: Settings = field(default_factory=Settings)

    def video_size(self, picture: np.ndarray) -> tuple[int, int]:
        """(height, width) of the result for a reference picture; ValueError names sizes that fit."""
        if self.size is not None:
            width, height = self.size
        else:
            resolution = self.resolution or RESOLUTION[self.networks.model]
            height, width = video_size(*picture.shape[:2], resolution)
        check_size(height, width)
        return height, width

    def driving_inputs(self) -> DrivingInputs:
        """The driving clip with what it takes to read it; the tiny model brings its own detector."""
        detection = self.detection
        if self.networks.model == "tiny":
            detection = replace(detection, detector=DETECTOR_FILE, pose_model=POSE_FILE, provider="cpu")
        return DrivingInputs(
            self.video, self.poses, self.reference_pose, self.clip, detection, self.pose, self.networks.folders
        )


@dataclass(frozen=True)
class Decode:
    """Decode latents that a job left behind when its video could not be written."""

    latents: Path
    """The .latents.safetensors file that the message named."""
    output: Path = Path("outputs/animation.mp4")
    """The video to write."""
    networks: Weights = field(default_factory=Weights)


def animate_to_file(job: Animate) -> Path:
    """Do a whole job and return the path of its video.

    Whatever can be checked is checked before minutes are spent. The latents are kept in a file beside the video
    until it is complete, so that a full disk or a failing decoder costs no sampling (:class:`Decode`).
    """
    check_writable(job.output)
    picture = load_picture(job.reference)
    picture = cover_crop(picture, job.video_size(picture))
    job.networks.paths()
    driving = job.driving_inputs().drive(picture, STYLE)
    for note in driving.notes:
        log.info(note)
    fps = job.clip.fps or driving.fps or DEFAULT_FPS
    _save_extras(job, driving, VideoFacts(fps, job.sampling.decode_chunk), picture.shape[:2])
    networks, parts = job.networks.load()
    latents = generate(networks, parts, picture, driving.pictures(), job.sampling)
    del networks
    audio = None if driving.audio_path is None else str(driving.audio_path)
    facts = VideoFacts(fps, job.sampling.decode_chunk, 1, audio, driving.audio_start)
    kept = latents_path(job.output)
    save_latents(kept, latents, facts)
    _decode(parts, latents, facts, job.output, kept)
    return job.output


def decode_to_file(job: Decode) -> Path:
    """Write the video of kept latents and return its path; the latents stay."""
    check_writable(job.output)
    latents, facts = load_latents(job.latents)
    _, parts = job.networks.load()
    decode_to_video(parts, latents, facts, job.output)
    return job.output


def _decode(parts: SVDParts, latents: torch.Tensor, facts: VideoFacts, video: Path, kept: Path) -> None:
    try:
        decode_to_video(parts, latents, facts, video)
    except Exception:
        log.warning(f"Nothing that was sampled is lost: `choreo decode --latents {kept}` goes on from there.")
        raise
    kept.unlink()


def _save_extras(job: Animate, driving: Driving, facts: VideoFacts, size: tuple[int, int]) -> None:
    if job.save_poses is not None:
        if driving.poses is None:
            raise ValueError("--save-poses needs keypoints, but the driving poses are ready skeleton pictures.")
        save_json(job.save_poses, driving.poses)
    if job.save_pose_video is not None:
        write_video(job.save_pose_video, islice(driving.pictures(), 1, None), size, facts)
