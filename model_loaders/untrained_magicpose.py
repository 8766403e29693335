"""The smallest MagicPose that the loaders take, with weights from a seed, in one file as the real one is.

    python -m choreo.model_loaders.untrained_magicpose FOLDER

writes it, for trying out tools and for tests.
"""

from __future__ import annotations

import json
import sys
from functools import partial
from pathlib import Path

import torch

from ..networks.picture_vae import SD15_VAE
from ..networks.sd15_unet import SD15_UNET
from ..networks.text_encoder import CLIP_VIT_L_14_TEXT
from .magicpose import MagicPoseNetworks, to_checkpoint
from .random_weights import random_weights
from .sd15 import BUILDERS, SD15Parts

MAGICPOSE_FILE = "MagicPose_untrained.safetensors"
SEED = 1

# As for SVD: with one channel a group the norm would take the time embedding away.
UNTRAINED_SD15_UNET = SD15_UNET | {
    "sample_size": 8,
    "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
    "block_out_channels": (64, 64),
    "layers_per_block": 1,
    "cross_attention_dim": 32,
}
UNTRAINED_SD15_VAE = SD15_VAE | {"block_out_channels": (32, 32, 32, 32), "layers_per_block": 1, "sample_size": 64}
UNTRAINED_TEXT_ENCODER = CLIP_VIT_L_14_TEXT | {
    "hidden_size": 32,
    "intermediate_size": 64,
    "projection_dim": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
}
UNTRAINED_CONFIG = {
    "unet": UNTRAINED_SD15_UNET,
    "vae": UNTRAINED_SD15_VAE,
    "text_encoder": UNTRAINED_TEXT_ENCODER,
}


def untrained_magicpose(seed: int = SEED) -> tuple[MagicPoseNetworks, SD15Parts]:
    """MagicPose with random weights in float32; all its layers act, also those that start at zero."""

    def network(name: str, offset: int) -> torch.nn.Module:
        build = partial(BUILDERS[name], UNTRAINED_CONFIG.get(name, UNTRAINED_SD15_UNET))
        module = build()
        module.load_state_dict(random_weights(build, seed + offset, torch.float32), strict=False)
        return module.eval().requires_grad_(False)

    names = ("unet", "appearance", "controlnet", "vae", "text_encoder")
    unet, appearance, controlnet, vae, text = (network(name, offset) for offset, name in enumerate(names))
    return MagicPoseNetworks(unet, appearance, controlnet), SD15Parts(vae, text)


def write_untrained_magicpose(folder: str | Path, seed: int = SEED) -> Path:
    """Write it as the published file is, float16 with its configuration; returns the path."""
    from safetensors.torch import save_file

    path = Path(folder) / MAGICPOSE_FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    weights = {name: t.half().contiguous() for name, t in to_checkpoint(*untrained_magicpose(seed)).items()}
    save_file(weights, path, {"format": "pt", "config": json.dumps(UNTRAINED_CONFIG)})
    return path


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m choreo.model_loaders.untrained_magicpose FOLDER")
    print(write_untrained_magicpose(sys.argv[1]))
