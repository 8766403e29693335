"""The CLIP image tower that gives SVD its picture embedding (transformers' class)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import torch

if TYPE_CHECKING:
    from transformers import CLIPVisionModelWithProjection

ModuleT = TypeVar("ModuleT", bound=torch.nn.Module)

CLIP_VIT_H_14 = {
    "hidden_size": 1280,
    "intermediate_size": 5120,
    "projection_dim": 1024,
    "num_hidden_layers": 32,
    "num_attention_heads": 16,
    "num_channels": 3,
    "image_size": 224,
    "patch_size": 14,
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-5,
}


def build_image_tower(config: Mapping[str, Any] = CLIP_VIT_H_14) -> CLIPVisionModelWithProjection:
    """CLIPVisionModelWithProjection of a configuration, with fresh weights.

    config: as transformers saves it in `config.json`; entries that CLIP_VIT_H_14 does not have are ignored.
    Under `torch.device("meta")` only its parameters are without memory: the table of positions, which no file
    holds, is always made.
    """
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    architecture = {key: config[key] for key in CLIP_VIT_H_14 if key in config}
    return with_positions(CLIPVisionModelWithProjection(CLIPVisionConfig(**architecture)))


def with_positions(network: ModuleT) -> ModuleT:
    """A CLIP tower whose tables of positions have memory, also when its parameters are on the meta device."""
    for module in network.modules():
        positions = module._buffers.get("position_ids")
        if positions is not None and positions.is_meta:
            module._buffers["position_ids"] = torch.arange(positions.shape[-1], device="cpu").expand((1, -1))
    return network
