"""The smallest networks that the loaders take, with weights from a seed, in the layouts of the real files.

    python -m choreo.model_loaders.untrained FOLDER [mimicmotion | stableanimator]

writes them, for trying out tools and for tests. Their videos are noise; the embedded tiny model is trained.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch import nn

from ..networks.face_encoder import FusionFaceId
from ..networks.id_attention import build_id_unet
from ..networks.image_tower import CLIP_VIT_H_14, build_image_tower
from ..networks.pose_net import PoseNet
from ..networks.svd_unet import SVD_XT, build_unet
from ..networks.video_vae import SVD_VAE, build_video_vae
from .random_weights import random_weights
from .svd import CLIP_FOLDER, VAE_FOLDER, write_svd_part
from .tiny import STABLEANIMATOR_FOLDER, SVD_FOLDER, UNET_FILE, WINDOW

SEED = 1

# A level of 32 channels alone would lose the time embedding: 32 groups normalise every channel for itself.
UNTRAINED_UNET = SVD_XT | {
    "sample_size": 16,
    "down_block_types": ("CrossAttnDownBlockSpatioTemporal", "DownBlockSpatioTemporal"),
    "up_block_types": ("UpBlockSpatioTemporal", "CrossAttnUpBlockSpatioTemporal"),
    "block_out_channels": (32, 64),
    "layers_per_block": 1,
    "addition_time_embed_dim": 32,
    "projection_class_embeddings_input_dim": 96,
    "cross_attention_dim": 32,
    "num_attention_heads": (1, 2),
    "num_frames": WINDOW,
}
UNTRAINED_VAE = SVD_VAE | {"block_out_channels": (32, 32, 32, 32), "layers_per_block": 1, "sample_size": 128}
UNTRAINED_IMAGE_TOWER = CLIP_VIT_H_14 | {
    "hidden_size": 32,
    "intermediate_size": 64,
    "projection_dim": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "patch_size": 32,
}


UNTRAINED_FACE_ENCODER = {
    "cross_attention_dim": 32,
    "id_embeddings_dim": 512,
    "clip_embeddings_dim": 32,
    "inner_dim": 64,
    "depth": 2,
}


def write_untrained(folder: str | Path, seed: int = SEED, system: str = "mimicmotion") -> None:
    """Write the untrained networks of a system and SVD's parts (diffusers folder), float16.

    system: "mimicmotion" (one file), or "stableanimator" (three in the folder STABLEANIMATOR_FOLDER).
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    {"mimicmotion": _write_mimicmotion, "stableanimator": _write_stableanimator}[system](folder, seed)
    parts = (
        (VAE_FOLDER, build_video_vae, UNTRAINED_VAE),
        (CLIP_FOLDER, build_image_tower, UNTRAINED_IMAGE_TOWER),
    )
    for offset, (part, build, config) in enumerate(parts, start=2):
        write_svd_part(folder / SVD_FOLDER, part, config, random_weights(partial(build, config), seed + offset))


def _write_mimicmotion(folder: Path, seed: int) -> None:
    unet, pose_net = _unet(build_unet, seed), _pose_net(seed + 1)
    weights = {f"unet.{name}": tensor for name, tensor in unet.items()}
    _save(folder / UNET_FILE, weights | {f"pose_net.{name}": tensor for name, tensor in pose_net.items()}, WINDOW)


def _write_stableanimator(folder: Path, seed: int) -> None:
    folder /= STABLEANIMATOR_FOLDER
    folder.mkdir(exist_ok=True)
    _save(folder / "unet.safetensors", _unet(build_id_unet, seed), WINDOW)
    _save(folder / "pose_net.safetensors", _pose_net(seed + 1))
    build = partial(FusionFaceId, **UNTRAINED_FACE_ENCODER)
    _save(folder / "face_encoder.safetensors", random_weights(build, seed + 4))


def _unet(build: Callable[..., nn.Module], seed: int) -> dict[str, torch.Tensor]:
    return random_weights(partial(build, UNTRAINED_UNET), seed)


def _pose_net(seed: int) -> dict[str, torch.Tensor]:
    return random_weights(partial(PoseNet, UNTRAINED_UNET["block_out_channels"][0]), seed, gain=2.0)


def _save(path: Path, weights: dict[str, torch.Tensor], window: int | None = None) -> None:
    """Write weights; with those of a UNet, which come with a window, its configuration."""
    from safetensors.torch import save_file

    config = {} if window is None else {"config": json.dumps({"unet": UNTRAINED_UNET, "window": window})}
    save_file(weights, path, {"format": "pt", **config})


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3):
        sys.exit("usage: python -m choreo.model_loaders.untrained FOLDER [mimicmotion | stableanimator]")
    write_untrained(sys.argv[1], system=sys.argv[2] if len(sys.argv) == 3 else "mimicmotion")
