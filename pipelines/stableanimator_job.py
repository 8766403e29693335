"""A whole job with StableAnimator: what differs from :class:`.job.Animate`, whose files and order it keeps."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch

from ..conditioning.picture import lanczos_fit
from ..media.pictures import load_picture
from ..model_loaders.catalogue import find_file, require_file
from ..model_loaders.stableanimator import RELEASE, StableAnimatorNetworks, load_stableanimator
from .driving import Driving
from .face_job import OptimiseFaces
from .faces import Identity
from .job import Animate, Decode, Weights
from .stableanimator import Settings, generate

log = logging.getLogger(__name__)

TRAINED_SIZES = ((512, 512), (1024, 576))  # height, width
OTHER_NAMES = ("Animation/unet.pth", "StableAnimator")  # under which the release lies where it is not RELEASE


def find_release(folders: Iterable[str | Path] = ()) -> Path | None:
    """StableAnimator's release in the models folders, under any of the names that people have it under."""
    folders = list(folders)
    return next((path for name in (RELEASE, *OTHER_NAMES) if (path := find_file(name, folders))), None)


@dataclass(frozen=True)
class StableAnimatorFiles(Weights):
    """The networks of StableAnimator; files are looked for by name in the models folders (`choreo models`)."""

    model: Literal["stableanimator"] = "stableanimator"
    """Which system."""
    weights: str = RELEASE
    """StableAnimator's weights: a folder of the release, its unet.pth, or a trainer's checkpoint folder."""
    pose_net: str | None = None
    """PoseNet of the UNet; None looks beside it."""
    face_encoder: str | None = None
    """Face encoder of the UNet; None looks beside it."""

    def weights_path(self) -> Path:
        """Where the weights lie; FileNotFoundError says where they were looked for."""
        found = find_release(self.folders) if self.weights == RELEASE else None
        return found or super().weights_path()

    def load_own(self, weights: Path, pose_net: Path | None) -> StableAnimatorNetworks:
        """StableAnimator's own networks."""
        face_encoder = None if self.face_encoder is None else require_file(self.face_encoder, self.folders)
        return load_stableanimator(weights, pose_net, face_encoder)


@dataclass(frozen=True)
class AnimateStableAnimator(Animate):
    """Animate the person of a picture with the motion of a video, of poses, or of ready skeleton pictures."""

    reference_pose: str = "auto"
    """Pose of the reference picture, which the motion is aligned to: "detect", "first" (nothing is aligned), or
    keypoints as JSON. "auto" detects it when the detector's files are there, and aligns nothing if not."""
    size: tuple[int, int] | None = None
    """Width and height of the result, multiples of 64; None is 512 512 or 576 1024, which the weights know."""
    resolution: int | None = None
    """Short side of the result in place of these sizes, the long side in the ratio 16:9."""
    networks: StableAnimatorFiles = field(default_factory=StableAnimatorFiles)
    sampling: Settings = field(default_factory=Settings)
    identity: Identity = field(default_factory=Identity)
    faces: OptimiseFaces = field(default_factory=OptimiseFaces)

    STYLE: ClassVar[str] = "stableanimator"
    REFERENCE_FRAMES: ClassVar[int] = 0

    def video_size(self, picture: np.ndarray) -> tuple[int, int]:
        """(height, width) of the result for a reference picture; ValueError names sizes that fit."""
        if self.size is not None or self.resolution is not None:
            return super().video_size(picture)
        ratio = math.log(picture.shape[0] / picture.shape[1])
        return min(TRAINED_SIZES, key=lambda size: abs(math.log(size[0] / size[1]) - ratio))

    def fit(self, picture: np.ndarray) -> np.ndarray:
        """The part of the reference picture that the VAE sees, at the size of the video."""
        return lanczos_fit(picture, self.video_size(picture), stretch=self.sampling.quirks.stretched_reference)

    @cached_property
    def original(self) -> np.ndarray:
        """The whole reference picture, for CLIP and for the face."""
        return load_picture(self.reference)

    @cached_property
    def embedding(self) -> np.ndarray | None:
        """Whose face it is; see :meth:`.faces.Identity.embedding`."""
        return self.identity.embedding(
            self.original, self.networks.folders, self.detection.provider, self.sampling.quirks
        )

    def check(self, networks: Any, parts: Any) -> None:
        """As of :class:`Animate`; whether there is a face is found out before anything takes long, too."""
        super().check(networks, parts)
        self.faces.check(self.identity, self.networks.folders)
        _ = self.embedding

    def further_inputs(self) -> Iterator[np.ndarray]:
        """The whole reference, the identity, and how faces are optimised."""
        yield self.original
        yield np.frombuffer(repr(self.faces).encode(), np.uint8)
        if self.embedding is not None:
            yield self.embedding

    def sampler(self, networks: Any, parts: Any, picture: np.ndarray, driving: Driving) -> Callable[..., torch.Tensor]:
        """As of :class:`Animate`; the pose of the reference only served to align the others to it."""
        given = {"identity": self.embedding, "size": picture.shape[:2]}
        run = partial(generate, networks, parts, self.original, driving.clip(), self.sampling, **given)
        if not self.faces.optimise_faces:
            return run
        refine = self.faces.optimiser(
            parts.vae,
            picture,
            driving.poses,
            steps=self.num_steps(driving.num_frames),
            identity=self.identity,
            folders=self.networks.folders,
            provider=self.detection.provider,
            away=[networks.unet],
        )

        def optimised(**progress: Any) -> torch.Tensor:
            latents = run(refine=refine, **progress)
            log.info(refine.report())
            return latents

        return optimised


@dataclass(frozen=True)
class DecodeStableAnimator(Decode):
    """Write the video of latents that a job kept because it could not write its video."""

    networks: StableAnimatorFiles = field(default_factory=StableAnimatorFiles)
