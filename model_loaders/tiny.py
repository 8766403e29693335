"""The embedded tiny model: every network in small, in the layouts of the real ones, trained on drawn puppets.

`assets/tiny/README.md` describes it; training/README.md says how it is made.
"""

from __future__ import annotations

from pathlib import Path

from .mimicmotion import MimicMotionNetworks, MimicMotionWeights, load_mimicmotion, read_mimicmotion
from .svd import SVDParts, SVDWeights, load_svd_parts, read_svd_parts

TINY_FOLDER = Path(__file__).resolve().parent.parent / "assets" / "tiny"
UNET_FILE = "MimicMotion_tiny.safetensors"
SVD_FOLDER = "svd"
STABLEANIMATOR_FOLDER = "stableanimator"
DETECTOR_FILE, POSE_FILE = "yolox_tiny.onnx", "dw_tiny.onnx"
FACE_FILE, RECOGNISER_FILE = "scrfd_tiny.onnx", "glintr_tiny.onnx"
WINDOW = 16


def load_tiny() -> tuple[MimicMotionNetworks, SVDParts]:
    """The tiny MimicMotion with its VAE and image tower, through the loaders of the real ones."""
    return load_mimicmotion(TINY_FOLDER / UNET_FILE), load_svd_parts(TINY_FOLDER / SVD_FOLDER)


def read_tiny() -> tuple[MimicMotionWeights, SVDWeights]:
    """The weights of :func:`load_tiny` without the networks."""
    return read_mimicmotion(TINY_FOLDER / UNET_FILE), read_svd_parts(TINY_FOLDER / SVD_FOLDER)


def tiny_onnx() -> tuple[Path, Path]:
    """The tiny person detector and pose network; they see drawn puppets."""
    return TINY_FOLDER / DETECTOR_FILE, TINY_FOLDER / POSE_FILE
