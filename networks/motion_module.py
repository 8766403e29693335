"""The temporal module that published code of MagicPose carries: AnimateDiff's (arXiv 2307.04725), diffusers' class.

No released weights of MagicPose have one; docs/magicpose.md says what can be done with it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from diffusers.models.transformers.transformer_temporal import TransformerTemporalModel


def build_motion_module(
    channels: int, heads: int = 8, blocks: int = 1, positions: int = 24
) -> TransformerTemporalModel:
    """A motion module for features of so many channels; positions: the longest clip it can tell the order of."""
    from diffusers.models.transformers.transformer_temporal import TransformerTemporalModel

    return TransformerTemporalModel(
        num_attention_heads=heads,
        attention_head_dim=channels // heads,
        in_channels=channels,
        num_layers=blocks,
        positional_embeddings="sinusoidal",
        num_positional_embeddings=positions,
    )


def move(module: TransformerTemporalModel, features: torch.Tensor, num_frames: int) -> torch.Tensor:
    """The module's forward; features (B * frames, C, h, w), clip after clip -> the same.

    As published, every frame is normed for itself; diffusers' own forward norms a clip as a whole.
    Raises ValueError for clips that are longer than the module can tell the order of.
    """
    longest = module.transformer_blocks[0].pos_embed.pe.shape[1]
    if num_frames > longest:
        raise ValueError(f"The motion module knows the order of {longest} frames at most, got {num_frames}.")
    clips = module.norm(features).unflatten(0, (-1, num_frames))
    x = module.proj_in(clips.permute(0, 3, 4, 1, 2).flatten(0, 2))  # (B * h * w, frames, C)
    for block in module.transformer_blocks:
        x = block(x)
    x = module.proj_out(x).view(len(clips), *clips.shape[-2:], num_frames, -1)
    return x.permute(0, 3, 4, 1, 2).flatten(0, 1) + features
