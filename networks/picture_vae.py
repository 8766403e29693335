"""The VAE of Stable Diffusion 1.5 (diffusers' class): one picture, one latent."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from diffusers import AutoencoderKL

SD15_VAE = {
    "in_channels": 3,
    "out_channels": 3,
    "down_block_types": 4 * ("DownEncoderBlock2D",),
    "up_block_types": 4 * ("UpDecoderBlock2D",),
    "block_out_channels": (128, 256, 512, 512),
    "layers_per_block": 2,
    "latent_channels": 4,
    "norm_num_groups": 32,
    "sample_size": 512,
    "scaling_factor": 0.18215,
}


def build_picture_vae(config: Mapping[str, Any] = SD15_VAE) -> AutoencoderKL:
    """AutoencoderKL of a configuration, with fresh weights; works under `torch.device("meta")` too.

    config: as diffusers saves it in `config.json`; entries that SD15_VAE does not have are ignored.
    Latents are unscaled; multiply by `vae.config.scaling_factor` for the UNet.
    """
    from diffusers import AutoencoderKL

    return AutoencoderKL(**{key: config[key] for key in SD15_VAE if key in config})
