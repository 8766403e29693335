"""The architecture of the tiny set: the real classes with small numbers."""

from __future__ import annotations

WINDOW = 16
SIZE = 128  # pixels of the square pictures it is trained on

# GroupNorm has 32 groups everywhere: a level of 32 channels would normalise every channel for itself and lose what is
# constant over a picture, such as its colours and the time embedding. So no level is narrower than 64.
UNET = {
    "sample_size": 16,
    "in_channels": 8,
    "out_channels": 4,
    "down_block_types": ("DownBlockSpatioTemporal", "CrossAttnDownBlockSpatioTemporal"),
    "up_block_types": ("CrossAttnUpBlockSpatioTemporal", "UpBlockSpatioTemporal"),
    "block_out_channels": (64, 96),
    "layers_per_block": 1,
    "addition_time_embed_dim": 32,
    "projection_class_embeddings_input_dim": 96,
    "cross_attention_dim": 64,
    "transformer_layers_per_block": 1,
    "num_attention_heads": (1, 2),
    "num_frames": WINDOW,
}
VAE = {
    "in_channels": 3,
    "out_channels": 3,
    "down_block_types": 4 * ("DownEncoderBlock2D",),
    "block_out_channels": (64, 64, 64, 64),
    "layers_per_block": 1,
    "latent_channels": 4,
    "sample_size": SIZE,
    "scaling_factor": 0.18215,
    "force_upcast": True,
}
IMAGE_TOWER = {
    "hidden_size": 96,
    "intermediate_size": 192,
    "projection_dim": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_channels": 3,
    "image_size": 224,
    "patch_size": 32,
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-5,
}
