"""The identity of the person in a reference picture, as StableAnimator's training takes it."""

from __future__ import annotations

import hashlib
from functools import cached_property
from pathlib import Path

import numpy as np

from ..pose.face import FaceAnalyser
from ..pose.identity import find_faces


class LargestFace:
    """The raw ArcFace embedding of the largest face of a picture; the networks open at first use.

    detector, recogniser: scrfd_10g_bnkps.onnx and glintr100.onnx of antelopev2.
    """

    def __init__(self, detector: Path, recogniser: Path, provider: str = "auto") -> None:
        self.detector, self.recogniser, self.provider = detector, recogniser, provider

    @cached_property
    def _analyser(self) -> FaceAnalyser:
        return FaceAnalyser(self.detector, self.recogniser, self.provider)

    def __call__(self, picture: np.ndarray) -> np.ndarray | None:
        """(512,) float32 of a uint8 (H, W, 3) RGB picture; None without a face."""
        faces = find_faces(picture, self._analyser)
        return self._analyser.embed(picture, faces.landmarks[faces.largest()]) if len(faces) else None

    def fingerprint(self) -> str:
        """A short name for the two files."""
        state = hashlib.sha256()
        for path in (self.detector, self.recogniser):
            state.update(path.read_bytes())
        return state.hexdigest()[:16]
