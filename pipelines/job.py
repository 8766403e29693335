"""A whole job from files to a file: a picture and a driving clip in, a video out."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from hashlib import sha256
from itertools import chain
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch

from ..conditioning.picture import SIZE_MULTIPLE, check_size, cover_crop, video_size
from ..media.pictures import load_picture
from ..media.video import open_source
from ..model_loaders.catalogue import find_file, require_file
from ..model_loaders.mimicmotion import load_mimicmotion
from ..model_loaders.svd import SVDParts, load_svd_parts
from ..model_loaders.tiny import DETECTOR_FILE, POSE_FILE, TINY_FOLDER, load_tiny
from ..pose.openpose_json import save_json
from ..runtime import current
from ..samplers.windows import check_window
from .driving import Driving, PoseSettings
from .inputs import DEFAULT_FPS, Clip, Detection, DrivingInputs, check_outputs
from .latents_file import StepKeeper, VideoFacts, decode_to_video, latents_path, load_latents, write_video
from .mimicmotion import Settings, generate
from .preflight import check, report

log = logging.getLogger(__name__)

LOADING = "loading networks"
SAME_RATE = 1e-3  # sound is in step with pictures whose rate differs by a smaller share
RESOLUTION = {"mimicmotion": 576, "tiny": 128}
TINY_SAMPLING = Settings(guidance_first=1.0, guidance_last=1.0)  # its colours overshoot with guidance
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
    """Which system; "tiny" is built in, needs no files, and serves tests and demos only. "stableanimator" has options
    of its own: see `--model stableanimator --help`."""
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

    def weights_path(self) -> Path:
        """Where the weights lie; FileNotFoundError says where they were looked for."""
        return require_file(self.weights, self.folders)

    def svd_path(self) -> Path:
        """Where SVD's parts lie; FileNotFoundError says where they were looked for."""
        found = (name for name in SVD_NAMES if find_file(name, self.folders))
        return require_file(self.svd or next(found, SVD_NAMES[0]), self.folders)

    def paths(self) -> tuple[Path, Path | None, Path] | None:
        """Weights, PoseNet and SVD as paths, None for the tiny model; FileNotFoundError names what is missing."""
        if self.model == "tiny":
            return None
        pose_net = None if self.pose_net is None else require_file(self.pose_net, self.folders)
        return self.weights_path(), pose_net, self.svd_path()

    def load_own(self, weights: Path, pose_net: Path | None) -> Any:
        """The system's own networks, on the CPU."""
        return load_mimicmotion(weights, pose_net)

    def load(self) -> tuple[Any, SVDParts]:
        """The networks, on the CPU: the system's own, and SVD's."""
        paths = self.paths()
        current().progress(LOADING, 0, 1)
        if paths is None:
            networks = load_tiny()
        else:
            weights, pose_net, svd = paths
            networks = self.load_own(weights, pose_net), load_svd_parts(svd)
        current().progress(LOADING, 1, 1)
        return networks

    def load_parts(self) -> SVDParts:
        """SVD's networks alone, on the CPU."""
        return load_tiny()[1] if self.model == "tiny" else load_svd_parts(self.svd_path())


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
    side_by_side: bool = True
    """Also write picture, poses and result side by side, as NAME_side_by_side.mp4."""
    clip: Clip = field(default_factory=Clip)
    detection: Detection = field(default_factory=Detection)
    pose: PoseSettings = field(default_factory=PoseSettings)
    networks: Weights = field(default_factory=Weights)
    sampling: Settings = field(default_factory=Settings)

    STYLE: ClassVar[str] = "mimicmotion"
    """How poses are drawn for this system."""
    REFERENCE_FRAMES: ClassVar[int] = 1
    """Frames of the latents before the video begins: MimicMotion's first one is the reference itself."""

    def video_size(self, picture: np.ndarray) -> tuple[int, int]:
        """(height, width) of the result for a reference picture; ValueError names sizes that fit."""
        if self.size is not None:
            width, height = self.size
        else:
            resolution = RESOLUTION[self.networks.model] if self.resolution is None else self.resolution
            if resolution < SIZE_MULTIPLE:
                raise ValueError(f"resolution must be a multiple of {SIZE_MULTIPLE} pixels, got {resolution}.")
            height, width = video_size(*picture.shape[:2], resolution)
        check_size(height, width)
        return height, width

    @property
    def side_by_side_path(self) -> Path | None:
        """Where picture, poses and result are written side by side, or None."""
        return (
            self.output.with_name(f"{self.output.stem}_side_by_side{self.output.suffix}") if self.side_by_side else None
        )

    def fit(self, picture: np.ndarray) -> np.ndarray:
        """The reference picture at the size of the video."""
        return cover_crop(picture, self.video_size(picture))

    def check(self, networks: Any, parts: Any) -> None:
        """Raise ValueError for settings that cannot work with these networks."""
        check_window(self.sampling.window or networks.window, self.sampling.overlap)

    def check_memory(self, networks: Any, parts: Any, size: tuple[int, int], num_frames: int) -> None:
        """Say how much memory a clip of so many driving frames takes, where that can be told."""
        clip = {"size": size, "num_frames": num_frames + self.REFERENCE_FRAMES}
        report(check(networks, parts, **clip, window=self.sampling.window, chunk=self.sampling.decode_chunk))

    def further_inputs(self) -> Iterable[np.ndarray]:
        """What the latents depend on besides settings, the fitted reference and the pose pictures."""
        return ()

    def num_steps(self, num_frames: int) -> int:
        """Steps after which latents are kept."""
        return len(self.sampling.noise_levels()) - 1

    def sampler(self, networks: Any, parts: Any, picture: np.ndarray, driving: Driving) -> Callable[..., torch.Tensor]:
        """What gives the latents of the clip; takes `on_step` and `resume` as :func:`.mimicmotion.generate` does."""
        return partial(generate, networks, parts, picture, driving.pictures(), self.sampling)

    def driving_inputs(self) -> DrivingInputs:
        """The driving clip with what it takes to read it; the tiny model brings its own detector."""
        detection = self.detection
        if self.networks.model == "tiny":
            detection = replace(detection, detector=DETECTOR_FILE, pose_model=POSE_FILE, provider="cpu")
        return DrivingInputs(
            self.video, self.poses, self.reference_pose, self.clip, detection, self.pose, self.networks.folders
        )


@dataclass(frozen=True)
class AnimateTiny(Animate):
    """Animate a drawn puppet by the embedded tiny model."""

    sampling: Settings = field(default_factory=lambda: TINY_SAMPLING)


@dataclass(frozen=True)
class Decode:
    """Write the video of latents that a job kept because it could not write its video."""

    latents: Path
    """The .latents.safetensors file that the message named."""
    output: Path = Path("outputs/animation.mp4")
    """The video to write."""
    networks: Weights = field(default_factory=Weights)


def animate_to_file(job: Animate) -> Path:
    """Do a whole job and return the path of its video.

    Whatever can be checked is checked before minutes are spent. The latents are kept in a file beside the video
    after every step until it is complete: the same job then goes on from there, with the same result, whatever
    broke it off.
    """
    inputs = job.driving_inputs()
    inputs.check()
    check_outputs(
        (job.reference, job.video, job.poses),
        videos=(job.output, job.save_pose_video, job.side_by_side_path),
        files=(job.save_poses,),
    )
    picture = job.fit(load_picture(job.reference))
    networks, parts = job.networks.load()
    job.check(networks, parts)
    driving = inputs.drive(picture, job.STYLE)
    for note in driving.notes:
        log.info(note)
    facts = _facts(job, driving)
    _save_extras(job, driving, facts, picture.shape[:2])
    job.check_memory(networks, parts, picture.shape[:2], driving.num_frames)
    name = latents_path(job.output, _fingerprint(job, picture, driving))
    keeper = StepKeeper(name, facts, job.num_steps(driving.num_frames))
    try:
        kept = keeper.run(job.sampler(networks, parts, picture, driving))
        del networks
        decode_to_video(parts, kept, job.output)
    except BaseException:
        if keeper.path.is_file():
            log.warning("What was sampled is kept in %s: the same command goes on from there.", keeper.path)
        raise
    keeper.drop()
    if job.side_by_side_path is not None:
        write_video(job.side_by_side_path, _rows(picture, driving, job.output), _row_size(picture), facts)
    return job.output


def decode_to_file(job: Decode) -> Path:
    """Write the video of kept latents and return its path; the latents stay."""
    check_outputs((job.latents,), videos=(job.output,))
    kept = load_latents(job.latents)
    if kept.done < kept.steps:
        raise ValueError(
            f"{job.latents} holds step {kept.done} of {kept.steps} of a job that was broken off: start the same job "
            "again, it goes on from there."
        )
    decode_to_video(job.networks.load_parts(), kept, job.output)
    return job.output


def _fingerprint(job: Animate, picture: np.ndarray, driving: Driving) -> str:
    """Eight letters that differ between jobs whose latents may differ: networks, settings, picture and poses."""
    digest = sha256(repr((job.networks, job.sampling, current().dtype)).encode())
    for array in chain([picture], job.further_inputs(), driving.pictures()):
        digest.update(array.tobytes())
    return digest.hexdigest()[:8]


def _facts(job: Animate, driving: Driving) -> VideoFacts:
    """Rate and sound of the video; sound only where pictures keep their speed."""
    fps = job.clip.fps or driving.fps
    if fps is None:
        fps = DEFAULT_FPS
        log.info("Nothing tells the frame rate of the driving clip; the video plays at %d frames per second.", fps)
    audio = driving.audio_path
    if audio is not None and driving.fps is not None and abs(fps / driving.fps - 1) > SAME_RATE:
        log.info("The video has no sound, because it plays at another speed than the driving clip.")
        audio = None
    return VideoFacts(
        fps,
        job.sampling.decode_chunk,
        job.REFERENCE_FRAMES,
        audio_path=None if audio is None else str(audio),
        audio_start=driving.audio_start,
        truncated_frames=job.sampling.quirks.truncated_frames,
    )


def _rows(picture: np.ndarray, driving: Driving, video: Path) -> Iterator[np.ndarray]:
    """Picture, pose and result of every frame side by side."""
    poses = driving.clip()
    return (np.hstack([picture, pose, result]) for pose, result in zip(poses, open_source(video), strict=False))


def _row_size(picture: np.ndarray) -> tuple[int, int]:
    return picture.shape[0], 3 * picture.shape[1]


def _save_extras(job: Animate, driving: Driving, facts: VideoFacts, size: tuple[int, int]) -> None:
    if job.save_poses is not None:
        if driving.poses is None:
            raise ValueError("There are no keypoints to save (--save-poses): the driving poses are skeleton pictures.")
        save_json(job.save_poses, driving.poses)
    if job.save_pose_video is not None:
        write_video(job.save_pose_video, driving.clip(), size, replace(facts, audio_path=None))
