"""MagicPose's part of a job from files to a file: its weights, its size, its sampling."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch

from ..conditioning.picture import centre_fit, check_size
from ..model_loaders.catalogue import require_file
from ..model_loaders.magicpose import MagicPoseNetworks, load_magicpose, read_magicpose
from ..model_loaders.sd15 import SD15Parts
from ..runtime import current
from .driving import Driving
from .job import LOADING, Animate, Decode
from .magicpose import MagicPoseSettings, generate, num_steps, require_controlnet

SIDE = 512  # the only one that the published weights were trained at


@dataclass(frozen=True)
class MagicPoseFiles:
    """MagicPose's networks; files are looked for by name in the models folders (`choreo models`)."""

    model: Literal["magicpose"] = "magicpose"
    """Which system."""
    weights: str = "model_state-110000.th"
    """MagicPose's weights: a whole checkpoint, or one of stage 1."""
    controlnet: str | None = None
    """A pose ControlNet of Stable Diffusion 1.5 in place of the weights' own; those of stage 1 have none."""
    base: str | None = None
    """A Stable Diffusion 1.5 (single file or diffusers folder) whose UNet, VAE and text encoder are taken in place of
    the weights' own."""
    models: Path | None = None
    """A models folder to look in first."""

    @property
    def folders(self) -> tuple[Path, ...]:
        """The models folders to look in before the usual ones."""
        return () if self.models is None else (self.models,)

    def paths(self) -> tuple[Path, Path | None, Path | None]:
        """Weights, ControlNet and base as paths; FileNotFoundError names what is missing."""
        others = (None if name is None else require_file(name, self.folders) for name in (self.controlnet, self.base))
        return require_file(self.weights, self.folders), *others

    def load_parts(self) -> SD15Parts:
        """VAE and text encoder alone, on the CPU."""
        return read_magicpose(*self.paths()).build_parts()

    def load(self) -> tuple[MagicPoseNetworks, SD15Parts]:
        """The networks, on the CPU."""
        paths = self.paths()
        current().progress(LOADING, 0, 1)
        networks = load_magicpose(*paths)
        current().progress(LOADING, 1, 1)
        return networks


@dataclass(frozen=True)
class AnimateMagicPose(Animate):
    """Animate with MagicPose: every frame a picture of its own, redrawn in the pose."""

    resolution: int | None = None
    """Side of the result, a square; None is 512, which the published weights were trained at."""
    networks: MagicPoseFiles = field(default_factory=MagicPoseFiles)
    sampling: MagicPoseSettings = field(default_factory=MagicPoseSettings)

    STYLE: ClassVar[str] = "classic"
    REFERENCE_FRAMES: ClassVar[int] = 0

    def video_size(self, picture: np.ndarray) -> tuple[int, int]:
        """(height, width) of the result: a square unless a size is given; ValueError names sizes that fit."""
        width, height = self.size or 2 * (SIDE if self.resolution is None else self.resolution,)
        check_size(height, width)
        return height, width

    def fit(self, picture: np.ndarray) -> np.ndarray:
        """The largest central part of the reference picture in the shape of the video."""
        return centre_fit(picture, self.video_size(picture))

    def check(self, networks: Any, parts: Any) -> None:
        """Raise ValueError for weights without poses."""
        require_controlnet(networks)

    def check_memory(self, networks: Any, parts: Any, size: tuple[int, int], num_frames: int) -> None:
        """Nothing: frames go through the networks in batches that fit."""

    def num_steps(self, num_frames: int) -> int:
        """Steps after which latents are kept."""
        return num_steps(self.sampling, num_frames)

    def sampler(self, networks: Any, parts: Any, picture: np.ndarray, driving: Driving) -> Callable[..., torch.Tensor]:
        """What gives the latents of the clip."""
        frames = {"num_frames": driving.num_frames}
        return partial(generate, networks, parts, picture, driving.clip(), self.sampling, **frames)


@dataclass(frozen=True)
class DecodeMagicPose(Decode):
    """Write the video of latents that a job of MagicPose kept."""

    networks: MagicPoseFiles = field(default_factory=MagicPoseFiles)
