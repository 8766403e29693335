"""Clips of colour-coded figures and the networks that see them, as the host's sockets carry them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from ..figures import DETECTOR, POSE_NETWORK, Figure, draw
from ..make_media import make_video
from .harness import Host, Value

SIZE = (192, 256)  # height, width
ONE = Figure((100, 96), 150)
OTHER = Figure((190, 100), 100, tint=1)
STEP = 4.0  # pixels to the right from frame to frame
TINY = "tiny (built in)"
_FOUND: dict[str, Value] = {}


def frames(num_frames: int, figures: Sequence[Figure] = (ONE,), empty: Sequence[int] = ()) -> list[np.ndarray]:
    """uint8 (H, W, 3); in the frames of `empty` nobody is there."""
    return [draw(SIZE, [] if i in empty else [f.moved(STEP * i) for f in figures]) for i in range(num_frames)]


def images(pictures: Sequence[np.ndarray]) -> torch.Tensor:
    """An IMAGE batch."""
    return torch.from_numpy(np.stack(pictures)).float() / 255


def video_file(path: Path, pictures: Sequence[np.ndarray], fps: int = 20) -> Path:
    """A video of exactly these pictures, and no sound."""
    options = {"codec": "ffv1", "pix_fmt": "bgr0", "matrix": None}
    return make_video(path, num_frames=len(pictures), fps=fps, picture=lambda i: pictures[i], **options)


def detector(host: Host, provider: str = "cpu") -> Value:
    """CHOREO_DETECTOR: the networks that see the figures."""
    return Value(host.module("nodes.sockets").DetectorFiles(DETECTOR, POSE_NETWORK, provider))


def poses(host: Host, pictures: Sequence[np.ndarray]) -> Value:
    """CHOREO_POSES found in pictures; the same pictures are looked at once only."""
    key = hashlib.sha256(b"".join(picture.tobytes() for picture in pictures)).hexdigest()
    if key not in _FOUND:
        _FOUND[key] = _find(host, pictures)
    return _FOUND[key]


def _find(host: Host, pictures: Sequence[np.ndarray]) -> Value:
    return Value(host.run("ChoreoExtractPoses", frames=Value(images(pictures)), detector=detector(host))[0])


def joints(figure: Figure) -> np.ndarray:
    """(14, 2) pixels of the true body joints that COCO and OpenPose-18 share, nose first, in the latter's order."""
    return figure.joints()[[0, 6, 8, 10, 5, 7, 9, 12, 14, 16, 11, 13, 15, 2]]


SHARED_JOINTS = [0, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14]  # the same in OpenPose-18
