"""Motion modules in AnimateDiff's files, under its names or those of MagicPose's published code."""

from __future__ import annotations

import re
from collections import defaultdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from ..networks.motion_module import build_motion_module
from .assemble import assemble
from .ldm_keys import Names, Weights, rename
from .recognise import not_what_was_expected, recognise
from .weights import read_weights

if TYPE_CHECKING:
    from diffusers.models.transformers.transformer_temporal import TransformerTemporalModel

INSIDE = "temporal_transformer."
LAYERS: Names = {
    "attention_blocks.0.pos_encoder": "pos_embed",
    "attention_blocks.0": "attn1",
    "attention_blocks.1": "attn2",
    "norms.0": "norm1",
    "norms.1": "norm2",
    "ff_norm": "norm3",
}
SECOND_TABLE = "attention_blocks.1.pos_encoder."  # the same as the first
PER_BLOCK = {"input": ("down_blocks", 2), "output": ("up_blocks", 3)}
HEADS = 8


def read_motion_modules(path: str | Path) -> dict[str, dict[str, torch.Tensor]]:
    """The modules of a file: their places `down_blocks.<level>.motion_modules.<index>` -> weights, diffusers' names.

    Raises FileNotFoundError, or ValueError for files without motion modules.
    """
    weights = read_weights(path)
    modules: dict[str, dict[str, torch.Tensor]] = defaultdict(dict)
    for name, tensor in weights.items():
        before, found, inside = name.partition(INSIDE)
        if found:
            modules[_place(before.rstrip("."))][found + inside] = tensor
    if not modules:
        raise not_what_was_expected(path, recognise(weights), "motion modules of AnimateDiff")
    return {place: module_weights(found) for place, found in modules.items()}


def _place(name: str) -> str:
    """AnimateDiff's name of a place; MagicPose's code counts through all levels."""
    if found := re.fullmatch(r"model\.diffusion_model\.(in|out)put_blocks_motion_module\.(\d+)\.0", name):
        blocks, each = PER_BLOCK[f"{found[1]}put"]
        level, index = divmod(int(found[2]), each)
        return f"{blocks}.{level}.motion_modules.{index}"
    return name


def module_weights(weights: Weights) -> dict[str, torch.Tensor]:
    """The weights of one module from AnimateDiff's names (with `temporal_transformer.`) to diffusers'."""
    renamed = {}
    for name, tensor in weights.items():
        inside = name.removeprefix(INSIDE)
        if found := re.fullmatch(r"(transformer_blocks\.\d+)\.(.+)", inside):
            if found[2].startswith(SECOND_TABLE):
                continue
            inside = f"{found[1]}.{rename(found[2], LAYERS)}"
        renamed[inside] = tensor
    return renamed


def load_motion_module(weights: Weights, source: str | Path, heads: int = HEADS) -> TransformerTemporalModel:
    """One motion module from its weights (diffusers' names); its sizes follow from them. source: named in errors."""
    channels = len(weights["norm.weight"])
    blocks = 1 + max(int(name.split(".")[1]) for name in weights if name.startswith("transformer_blocks."))
    positions = weights["transformer_blocks.0.pos_embed.pe"].shape[1]
    build = partial(build_motion_module, channels, heads, blocks, positions)
    return assemble(build, weights, f"a motion module of {channels} channels", source)
