"""The CLIP text encoder of Stable Diffusion 1.5 (transformers' class)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from .image_tower import with_positions

if TYPE_CHECKING:
    from transformers import CLIPTextModel

CLIP_VIT_L_14_TEXT = {
    "vocab_size": 49408,
    "hidden_size": 768,
    "intermediate_size": 3072,
    "projection_dim": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "max_position_embeddings": 77,
    "hidden_act": "quick_gelu",
    "layer_norm_eps": 1e-5,
}


def build_text_encoder(config: Mapping[str, Any] = CLIP_VIT_L_14_TEXT) -> CLIPTextModel:
    """CLIPTextModel of a configuration, with fresh weights.

    config: as transformers saves it in `config.json`; entries that CLIP_VIT_L_14_TEXT does not have are ignored.
    The last two words of the vocabulary open and close a text. Under `torch.device("meta")` only its parameters are
    without memory: the table of positions, which no file holds, is always made.
    """
    from transformers import CLIPTextConfig, CLIPTextModel

    architecture = {key: config[key] for key in CLIP_VIT_L_14_TEXT if key in config}
    opening, closing = special_tokens(config)
    text_config = CLIPTextConfig(**architecture, bos_token_id=opening, eos_token_id=closing)
    return with_positions(CLIPTextModel(text_config))


def special_tokens(config: Mapping[str, Any]) -> tuple[int, int]:
    """The tokens that open and close a text: the last two of the vocabulary. The closing one also fills it up."""
    return config["vocab_size"] - 2, config["vocab_size"] - 1
