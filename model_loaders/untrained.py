"""The smallest networks that the loaders take, with weights from a seed, in the layouts of the real files.

    python -m choreo.model_loaders.untrained FOLDER

writes them, for trying out tools and for tests. Their videos are noise; the embedded tiny model is trained.
"""

from __future__ import annotations

import json
import sys
from functools import partial
from pathlib import Path

import torch

from ..networks.image_tower import CLIP_VIT_H_14, build_image_tower
from ..networks.pose_net import PoseNet
from ..networks.svd_unet import SVD_XT, build_unet
from ..networks.video_vae import SVD_VAE, build_video_vae
from .random_weights import random_weights
from .svd import CLIP_FOLDER, VAE_FOLDER, write_svd_part
from .tiny import SVD_FOLDER, UNET_FILE, WINDOW

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


def write_untrained(folder: str | Path, seed: int = SEED) -> None:
    """Write the untrained networks in the layouts of MimicMotion (one file) and SVD (diffusers folder), float16."""
    from safetensors.torch import save_file

    folder = Path(folder)
    unet = random_weights(partial(build_unet, UNTRAINED_UNET), seed)
    pose_net = random_weights(partial(PoseNet, UNTRAINED_UNET["block_out_channels"][0]), seed + 1, gain=2.0)
    folder.mkdir(parents=True, exist_ok=True)
    save_file(
        _prefixed("unet.", unet) | _prefixed("pose_net.", pose_net),
        folder / UNET_FILE,
        {"format": "pt", "config": json.dumps({"unet": UNTRAINED_UNET, "window": WINDOW})},
    )
    parts = (
        (VAE_FOLDER, build_video_vae, UNTRAINED_VAE),
        (CLIP_FOLDER, build_image_tower, UNTRAINED_IMAGE_TOWER),
    )
    for offset, (part, build, config) in enumerate(parts, start=2):
        write_svd_part(folder / SVD_FOLDER, part, config, random_weights(partial(build, config), seed + offset))


def _prefixed(prefix: str, weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {prefix + name: tensor for name, tensor in weights.items()}


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m choreo.model_loaders.untrained FOLDER")
    write_untrained(sys.argv[1])
