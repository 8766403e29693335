"""What goes through Choreo's sockets: its own types, and the way from the host's values to the core's and back.

CHOREO_POSES is a :class:`Poses`; every input that takes it takes POSE_KEYPOINT too. CHOREO_DETECTOR is
:class:`DetectorFiles` and CHOREO_FACE_ANALYSER :class:`FaceFiles`: names of files, no open session, so that nothing
stays in memory after a run. CHOREO_FACE is :class:`FaceIdentity`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from comfy_api.latest import io

from ..host.progress import followed
from ..pose.openpose_json import from_openpose
from ..pose.poses import Poses

if TYPE_CHECKING:
    from ..pose.detect import PoseDetector
    from ..pose.face import FaceAnalyser

ChoreoPoses = io.Custom("CHOREO_POSES")
ChoreoDetector = io.Custom("CHOREO_DETECTOR")
ChoreoFace = io.Custom("CHOREO_FACE")
ChoreoFaceAnalyser = io.Custom("CHOREO_FACE_ANALYSER")
PoseKeypoint = io.Custom("POSE_KEYPOINT")
DEFAULT_FPS = 15.0  # the published playback rate, for clips that do not tell theirs


@dataclass(frozen=True)
class DetectorFiles:
    """Which networks find poses, and where onnxruntime runs them."""

    detector: Path
    pose_model: Path
    provider: str

    def open(self, detect_every: int = 1, nobody: str = "skip") -> PoseDetector:
        """The two networks, open; use it in a `with` block."""
        from ..pose.detect import PoseDetector

        return PoseDetector(self.detector, self.pose_model, self.provider, detect_every=detect_every, nobody=nobody)


@dataclass(frozen=True)
class FaceFiles:
    """Which networks find and recognise faces, and where onnxruntime runs them."""

    detector: Path
    recogniser: Path
    provider: str

    def open(self) -> FaceAnalyser:
        """The two networks, open; use it in a `with` block."""
        from ..pose.face import FaceAnalyser

        return FaceAnalyser(self.detector, self.recogniser, self.provider)


@dataclass(frozen=True, eq=False)
class FaceIdentity:
    """Somebody's face as ArcFace sees it, (512) float32, not normalised; zeros where no identity is to be kept."""

    embedding: np.ndarray


def poses_input(tooltip: str, name: str = "poses", *more: type, optional: bool = False) -> io.MultiType.Input:
    """An input for CHOREO_POSES or POSE_KEYPOINT (or the types `more`, which come first)."""
    return io.MultiType.Input(name, [*more, ChoreoPoses, PoseKeypoint], tooltip=tooltip, optional=optional)


def poses_output(tooltip: str, name: str = "poses") -> io.Output:
    """An output of CHOREO_POSES; its id differs from any input's, which ComfyUI 0.3 asks for."""
    return ChoreoPoses.Output(f"{name}_out", display_name=name, tooltip=tooltip)


def fps_output() -> io.Float.Output:
    """The output for the frame rate of poses."""
    return io.Float.Output("fps", display_name="fps", tooltip="Frames per second of the poses; 15 if unknown.")


def as_poses(value: Any) -> Poses:
    """Poses from CHOREO_POSES or POSE_KEYPOINT; ValueError for anything else."""
    if isinstance(value, Poses):
        return value
    if isinstance(value, dict):
        value = [value]
    if not isinstance(value, (list, tuple)):
        raise ValueError(f"Poses (CHOREO_POSES or POSE_KEYPOINT) are needed here, but this is {type(value).__name__}.")
    return from_openpose(value)


def check_images(images: torch.Tensor, what: str = "IMAGE input") -> torch.Tensor:
    """An IMAGE (frames, H, W, 3 or more) of at least one frame, as it is, or grey (1 channel) as three equal ones.

    Raises ValueError for anything else.
    """
    if images.ndim == 4 and images.shape[-1] == 1:
        images = images.expand(-1, -1, -1, 3)
    if images.ndim != 4 or images.shape[-1] < 3 or 0 in images.shape:
        raise ValueError(
            f"The {what} is empty or no pictures: expected frames x height x width x 3, got {tuple(images.shape)}."
        )
    return images


def to_frame(image: torch.Tensor) -> np.ndarray:
    """One picture (H, W, 3 or more) of floats 0..1 -> uint8 (H, W, 3) RGB, fresh."""
    return image[..., :3].float().clamp(0, 1).mul(255).round().to("cpu", torch.uint8).numpy()


def to_frames(images: torch.Tensor) -> Iterator[np.ndarray]:
    """An IMAGE batch -> uint8 (H, W, 3) RGB frames, one at a time."""
    return map(to_frame, images)


def to_images(frames: Iterable[np.ndarray], stage: str, total: int) -> torch.Tensor:
    """Frames uint8 (H, W, 3) RGB -> an IMAGE batch, float32 0..1; reports progress, can be stopped.

    total: how many to expect; there may be a few more or less, as headers of videos are not exact.
    """
    images, count = None, 0
    for frame in followed(frames, stage, total):
        if images is None:
            images = torch.empty((max(1, total), *frame.shape), dtype=torch.float32)
        elif count == len(images):
            images = torch.cat([images, torch.empty_like(images[: 1 + count // 8])])
        torch.div(torch.from_numpy(frame), 255, out=images[count])
        count += 1
    if images is None:
        raise ValueError("There is nothing to draw: the clip is empty.")
    return images[:count]
