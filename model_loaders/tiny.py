"""The embedded tiny model: every network in small, in the layouts of the real ones.

    python -m choreo.model_loaders.tiny FOLDER

writes the untrained one to a folder. `assets/tiny/README.md` describes it.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import torch

from ..networks.image_tower import build_image_tower
from ..networks.pose_net import PoseNet
from ..networks.svd_unet import build_unet
from ..networks.video_vae import build_video_vae
from .mimicmotion import MimicMotionNetworks, MimicMotionWeights, load_mimicmotion, read_mimicmotion
from .random_weights import random_weights
from .svd import SVDParts, SVDWeights, load_svd_parts, read_svd_parts

TINY_FOLDER = Path(__file__).resolve().parent.parent / "assets" / "tiny"
UNET_FILE = "MimicMotion_tiny.safetensors"
SVD_FOLDER = "svd"
DETECTOR_FILE, POSE_FILE = "yolox_tiny.onnx", "dw_tiny.onnx"
FACE_FILE, RECOGNISER_FILE = "scrfd_tiny.onnx", "glintr_tiny.onnx"
SEED = 1
WINDOW = 16

# A level of 32 channels alone would lose the time embedding: 32 groups normalise every channel for itself.
TINY_UNET = {
    "sample_size": 16,
    "in_channels": 8,
    "out_channels": 4,
    "down_block_types": ("CrossAttnDownBlockSpatioTemporal", "DownBlockSpatioTemporal"),
    "up_block_types": ("UpBlockSpatioTemporal", "CrossAttnUpBlockSpatioTemporal"),
    "block_out_channels": (32, 64),
    "layers_per_block": 1,
    "addition_time_embed_dim": 32,
    "projection_class_embeddings_input_dim": 96,
    "cross_attention_dim": 32,
    "transformer_layers_per_block": 1,
    "num_attention_heads": (1, 2),
    "num_frames": WINDOW,
}
TINY_VAE = {
    "in_channels": 3,
    "out_channels": 3,
    "down_block_types": 4 * ("DownEncoderBlock2D",),
    "block_out_channels": (32, 32, 32, 32),
    "layers_per_block": 1,
    "latent_channels": 4,
    "sample_size": 128,
    "scaling_factor": 0.18215,
    "force_upcast": True,
}
TINY_IMAGE_TOWER = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "projection_dim": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_channels": 3,
    "image_size": 224,
    "patch_size": 32,
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-5,
}


def tiny_is_trained() -> bool:
    """Whether trained weights are embedded; without them videos of the tiny model are noise."""
    return (TINY_FOLDER / UNET_FILE).is_file()


def load_tiny() -> tuple[MimicMotionNetworks, SVDParts]:
    """The tiny MimicMotion with its VAE and image tower, through the loaders of the real ones.

    Until trained weights are embedded they are made from a seed, the same on every machine.
    """
    with _tiny_folder() as folder:
        return load_mimicmotion(folder / UNET_FILE), load_svd_parts(folder / SVD_FOLDER)


def read_tiny() -> tuple[MimicMotionWeights, SVDWeights]:
    """The weights of :func:`load_tiny` without the networks."""
    with _tiny_folder() as folder:
        return read_mimicmotion(folder / UNET_FILE), read_svd_parts(folder / SVD_FOLDER)


@contextmanager
def _tiny_folder() -> Iterator[Path]:
    if tiny_is_trained():
        yield TINY_FOLDER
        return
    with tempfile.TemporaryDirectory(prefix="choreo-", ignore_cleanup_errors=True) as folder:
        write_tiny(folder)
        yield Path(folder)


def tiny_onnx() -> tuple[Path, Path]:
    """The hand-built tiny person detector and pose network; they see the colour-coded figures of the tests."""
    return TINY_FOLDER / DETECTOR_FILE, TINY_FOLDER / POSE_FILE


def write_tiny(folder: str | Path, seed: int = SEED) -> None:
    """Write the untrained tiny model in the layouts of MimicMotion (one file) and SVD (diffusers folder), float16."""
    from safetensors.torch import save_file

    folder = Path(folder)
    unet = random_weights(partial(build_unet, TINY_UNET), seed)
    pose_net = random_weights(partial(PoseNet, TINY_UNET["block_out_channels"][0]), seed + 1, gain=2.0)
    folder.mkdir(parents=True, exist_ok=True)
    save_file(
        _prefixed("unet.", unet) | _prefixed("pose_net.", pose_net),
        folder / UNET_FILE,
        {"format": "pt", "config": json.dumps({"unet": TINY_UNET, "window": WINDOW})},
    )
    parts = (
        ("vae", "diffusion_pytorch_model.fp16.safetensors", build_video_vae, TINY_VAE, "AutoencoderKLTemporalDecoder"),
        (
            "image_encoder",
            "model.fp16.safetensors",
            build_image_tower,
            TINY_IMAGE_TOWER,
            "CLIPVisionModelWithProjection",
        ),
    )
    for offset, (name, file, build, config, class_name) in enumerate(parts, start=2):
        part = folder / SVD_FOLDER / name
        part.mkdir(parents=True, exist_ok=True)
        save_file(random_weights(partial(build, config), seed + offset), part / file, {"format": "pt"})
        text = json.dumps({"_class_name": class_name, **config}, indent=2)
        (part / "config.json").write_text(text + "\n", encoding="utf-8")


def _prefixed(prefix: str, weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {prefix + name: tensor for name, tensor in weights.items()}


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m choreo.model_loaders.tiny FOLDER")
    write_tiny(sys.argv[1])
