"""The VAE of Stable Video Diffusion with its temporal decoder (diffusers' class)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from diffusers import AutoencoderKLTemporalDecoder

SVD_VAE = {
    "in_channels": 3,
    "out_channels": 3,
    "down_block_types": 4 * ("DownEncoderBlock2D",),
    "block_out_channels": (128, 256, 512, 512),
    "layers_per_block": 2,
    "latent_channels": 4,
    "sample_size": 768,
    "scaling_factor": 0.18215,
    "force_upcast": True,
}


def build_video_vae(config: Mapping[str, Any] = SVD_VAE) -> AutoencoderKLTemporalDecoder:
    """AutoencoderKLTemporalDecoder of a configuration, with fresh weights; works under `torch.device("meta")` too.

    config: as diffusers saves it in `config.json`; entries that SVD_VAE does not have are ignored.
    Latents are unscaled; multiply by `vae.config.scaling_factor` for the UNet.
    """
    from diffusers import AutoencoderKLTemporalDecoder

    return AutoencoderKLTemporalDecoder(**{key: config[key] for key in SVD_VAE if key in config})
