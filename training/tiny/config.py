"""The architecture of the tiny set: the real classes with small numbers."""

from __future__ import annotations

from ...networks.image_tower import CLIP_VIT_H_14
from ...networks.svd_unet import SVD_XT
from ...networks.video_vae import SVD_VAE

WINDOW = 16
SIZE = 128  # pixels of the square pictures it is trained on

# GroupNorm has 32 groups everywhere: a level of 32 channels would normalise every channel for itself and lose what is
# constant over a picture, such as its colours and the time embedding. So no level is narrower than 64.
UNET = SVD_XT | {
    "sample_size": SIZE // 8,
    "down_block_types": ("DownBlockSpatioTemporal", "CrossAttnDownBlockSpatioTemporal"),
    "up_block_types": ("CrossAttnUpBlockSpatioTemporal", "UpBlockSpatioTemporal"),
    "block_out_channels": (64, 96),
    "layers_per_block": 1,
    "addition_time_embed_dim": 32,
    "projection_class_embeddings_input_dim": 96,
    "cross_attention_dim": 64,
    "num_attention_heads": (1, 2),
    "num_frames": WINDOW,
}
VAE = SVD_VAE | {"block_out_channels": (64, 64, 64, 64), "layers_per_block": 1, "sample_size": SIZE}
IMAGE_TOWER = CLIP_VIT_H_14 | {
    "hidden_size": 96,
    "intermediate_size": 192,
    "projection_dim": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "patch_size": 32,
}
