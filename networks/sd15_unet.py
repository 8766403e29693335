"""The UNet of Stable Diffusion 1.5 and a ControlNet beside it (diffusers' classes), and one call of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from diffusers import ControlNetModel, UNet2DConditionModel

SD15_UNET = {
    "sample_size": 64,
    "in_channels": 4,
    "out_channels": 4,
    "down_block_types": (*3 * ("CrossAttnDownBlock2D",), "DownBlock2D"),
    "up_block_types": ("UpBlock2D", *3 * ("CrossAttnUpBlock2D",)),
    "block_out_channels": (320, 640, 1280, 1280),
    "layers_per_block": 2,
    "cross_attention_dim": 768,
    "attention_head_dim": 8,  # the number of heads: diffusers keeps the old name
    "norm_num_groups": 32,
}
HINT_CHANNELS = (16, 32, 96, 256)
OF_CONTROLNET = (
    "in_channels",
    "down_block_types",
    "block_out_channels",
    "layers_per_block",
    "cross_attention_dim",
    "attention_head_dim",
    "norm_num_groups",
)


def build_sd15_unet(config: Mapping[str, Any] = SD15_UNET) -> UNet2DConditionModel:
    """The UNet of a configuration, with fresh weights; works under `torch.device("meta")` too.

    config: as diffusers saves it in `config.json`; entries that SD15_UNET does not have are ignored.
    """
    from diffusers import UNet2DConditionModel

    return UNet2DConditionModel(**{key: config[key] for key in SD15_UNET if key in config})


def build_controlnet(config: Mapping[str, Any] = SD15_UNET) -> ControlNetModel:
    """The ControlNet beside a UNet of a configuration, with fresh weights."""
    from diffusers import ControlNetModel

    shared = {key: config[key] for key in OF_CONTROLNET if key in config}
    return ControlNetModel(**shared, conditioning_embedding_out_channels=HINT_CHANNELS)


def predict_noise(
    unet: UNet2DConditionModel,
    sample: torch.Tensor,
    timestep: torch.Tensor | int,
    text: torch.Tensor,
    residuals: tuple[Sequence[torch.Tensor], torch.Tensor] | None = None,
) -> torch.Tensor:
    """The UNet's prediction of the noise in sample (B, 4, h, w).

    text: (B, tokens, D). residuals: as :func:`pose_residuals` gives them; None is without pose.
    """
    down, middle = (None, None) if residuals is None else residuals
    return unet(
        sample,
        timestep,
        text,
        down_block_additional_residuals=down,
        mid_block_additional_residual=middle,
        return_dict=False,
    )[0]


def encode_hint(controlnet: ControlNetModel, hint: torch.Tensor) -> torch.Tensor:
    """Features (B, C, H/8, W/8) of drawn poses (B, 3, H, W) RGB in [0, 1]; they serve every step."""
    return controlnet.controlnet_cond_embedding(hint)


def pose_residuals(
    controlnet: ControlNetModel,
    sample: torch.Tensor,
    timestep: torch.Tensor | int,
    text: torch.Tensor,
    features: torch.Tensor,
) -> tuple[Sequence[torch.Tensor], torch.Tensor]:
    """What the ControlNet adds to the UNet's skip connections, in the order of execution, and to its middle.

    features: (B, C, h, w) of :func:`encode_hint`. Raises ValueError when they have another size than the sample.
    """
    if features.shape[-2:] != sample.shape[-2:]:
        height, width = (8 * side for side in sample.shape[-2:])
        raise ValueError(f"The pose pictures must be {width}x{height} pixels, as the video is.")
    embedding = controlnet.controlnet_cond_embedding
    embedding.forward = _as_it_is
    try:
        return controlnet(sample, timestep, text, features, return_dict=False)
    finally:
        del embedding.forward


def _as_it_is(features: torch.Tensor) -> torch.Tensor:
    return features
