"""Face optimisation in a job: its options, where faces are, and the function that refines a step's prediction."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import nn

from ..conditioning.picture import to_signed
from ..model_loaders.arcface import load_arcface
from ..model_loaders.catalogue import find_file, require_file
from ..pose.face import FaceAnalyser
from ..pose.identity import largest_box
from ..pose.masks import boxes_of_masks, masks_from_poses
from ..pose.poses import Poses
from ..samplers.face_optimisation import Box, FaceOptimisation, FaceOptimiser, FaceTarget, reference_embedding
from .faces import Identity, find_network
from .preflight import check_faces, report

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class OptimiseFaces:
    """StableAnimator's face optimisation; see docs/face_optimisation.md."""

    optimise_faces: bool = False
    """Move what each step predicts until its faces are the reference's; such steps take many times longer."""
    arcface: str = "glintr100_torch.pth"
    """ArcFace as a torch file; without it the face recogniser's ONNX file is converted, for which the package onnx must
    be installed."""
    face_steps: tuple[int, int] = (0, 20)
    """The first and the last step that is optimised, from 0."""
    face_iterations: int = 3
    """How often each of them is optimised."""
    face_rate: float = 0.1
    """How far an iteration goes at the first step; it falls to 0 towards the last one."""
    face_chunk: int = 4
    """Frames decoded together; part of the result."""
    face_dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Precision of the decoder; the shorter ones need half the memory."""
    face_offload: bool = False
    """Keep what the gradient needs in main memory: slower, with the least memory of the device."""

    def __post_init__(self) -> None:
        self.settings()

    def settings(self) -> FaceOptimisation:
        """The same for the sampler; ValueError for what cannot work."""
        values = self.face_iterations, self.face_rate, self.face_chunk, self.face_dtype, self.face_offload
        return FaceOptimisation(*self.face_steps, *values)

    def check(self, identity: Identity, folders: Sequence[Path]) -> None:
        """Raise FileNotFoundError when a network is missing."""
        if self.optimise_faces:
            self.arcface_path(identity, folders)
            _require(identity.face_detector, folders)

    def arcface_path(self, identity: Identity, folders: Sequence[Path]) -> Path:
        """The file that ArcFace is read from."""
        converted = find_network(identity.face_recogniser, folders)
        return find_file(self.arcface, folders) or converted or require_file(self.arcface, folders)

    def optimiser(
        self,
        vae: Any,
        picture: np.ndarray,
        poses: Poses | None,
        *,
        steps: int,
        identity: Identity,
        folders: Sequence[Path],
        provider: str = "auto",
        away: Sequence[nn.Module] = (),
    ) -> FaceOptimiser:
        """What refines predictions, for :func:`.stableanimator.generate`.

        picture: the reference at the size of the video, uint8 (H, W, 3). poses: aligned to it, one for each frame.
        steps, away: as of :class:`..samplers.face_optimisation.FaceOptimiser`.
        Raises ValueError where nothing tells where faces are.
        """
        if poses is None:
            raise ValueError("Face optimisation needs keypoints: skeleton pictures do not tell where faces are.")
        size = picture.shape[:2]
        with FaceAnalyser(_require(identity.face_detector, folders), None, provider) as analyser:
            box = _largest_face(picture, analyser)
        boxes = boxes_of_masks(masks_from_poses(poses, size=size), size)
        log.info("Faces are optimised in %d of %d frames.", sum(found is not None for found in boxes), len(boxes))
        recogniser = load_arcface(self.arcface_path(identity, folders)).float()
        pixels = to_signed(torch.from_numpy(np.array(picture)).permute(2, 0, 1))
        report(check_faces(vae.decoder, recogniser, self.settings(), size, len(boxes)))
        target = FaceTarget(boxes, reference_embedding(recogniser, pixels, box))
        return FaceOptimiser(vae, recogniser, target, settings=self.settings(), steps=steps, away=away)


def _require(name: str, folders: Sequence[Path]) -> Path:
    return find_network(name, folders) or require_file(name, folders)


def _largest_face(picture: np.ndarray, analyser: FaceAnalyser) -> Box:
    box = largest_box(picture, analyser)
    if box is None:
        raise ValueError(
            "No face was found in the part of the reference picture that the video shows, so none can be optimised."
        )
    return box
