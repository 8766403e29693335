"""The appearance bank of MagicPose (arXiv 2311.12052, section 4.1): what a second UNet sees of the reference picture.

The appearance network is a copy of the UNet that looks at the reference's latents. Its bank is the input of each of
its self-attentions (the normed hidden states) in the order of execution. The denoising UNet reads it: its
self-attentions take keys and values of their own tokens and of the bank's, by their own projections.
docs/magicpose.md has the formulas.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.nn import functional

from .sd15_unet import SD15_UNET, build_sd15_unet

if TYPE_CHECKING:
    from diffusers import UNet2DConditionModel
    from diffusers.models.attention_processor import Attention

Bank = Sequence[torch.Tensor]
HEAD = ("conv_norm_out", "conv_out")


def build_appearance(config: Mapping[str, Any] = SD15_UNET) -> UNet2DConditionModel:
    """The appearance network: the UNet of a configuration without its head.

    Nothing behind the norm of the last self-attention reaches the bank, so the last transformer block ends there; it
    keeps the weights behind it, because published files hold them (see :func:`dead_weights`).
    """
    network = build_sd15_unet(config)
    for name in HEAD:
        setattr(network, name, nn.Identity())
    transformer_blocks(network)[-1].__class__ = _ending_block()
    return network


@cache
def _ending_block() -> type[nn.Module]:
    from diffusers.models.attention import BasicTransformerBlock

    class EndingBlock(BasicTransformerBlock):
        """A transformer block that ends behind the norm of its self-attention."""

        def forward(self, hidden_states: torch.Tensor, *_: Any, **__: Any) -> torch.Tensor:
            """(B, tokens, C) -> the same, normed."""
            return self.norm1(hidden_states)

    return EndingBlock


def dead_weights(network: nn.Module) -> set[str]:
    """Names of the appearance network's weights that have no effect, hence no gradient."""
    modules = {module: name for name, module in network.named_modules()}
    block = transformer_blocks(network)[-1]
    last = modules[block]
    transformer = last.removesuffix(".transformer_blocks.0")
    dead = (f"{transformer}.proj_out.", *(f"{last}.{part}." for part, _ in block.named_children() if part != "norm1"))
    return {name for name, _ in network.named_parameters() if name.startswith(dead)}


def transformer_blocks(network: nn.Module) -> list[nn.Module]:
    """The blocks with a self-attention `attn1` behind a norm `norm1`, in the order of execution: down, middle, up.

    network: a UNet of diffusers, or one transformer.
    """
    if hasattr(network, "transformer_blocks"):
        return list(network.transformer_blocks)
    blocks = [*network.down_blocks, network.mid_block, *network.up_blocks]
    return [
        block
        for part in blocks
        for transformer in getattr(part, "attentions", ())
        for block in transformer.transformer_blocks
    ]


@contextmanager
def writing(network: nn.Module) -> Iterator[list[torch.Tensor]]:
    """Inside the block, each call of the network fills the list with its bank: one (B, tokens, C) tensor a block."""
    blocks = transformer_blocks(network)
    bank: list[Any] = [None] * len(blocks)

    def keep(place: int) -> Any:
        def hook(_module: nn.Module, _inputs: tuple, output: torch.Tensor) -> None:
            bank[place] = output

        return hook

    handles = [block.norm1.register_forward_hook(keep(place)) for place, block in enumerate(blocks)]
    try:
        yield bank
    finally:
        for handle in handles:
            handle.remove()


def compute_bank(
    network: nn.Module, latents: torch.Tensor, timestep: torch.Tensor | int, text: torch.Tensor
) -> list[torch.Tensor]:
    """The bank of reference latents (B, 4, h, w), scaled: one (B, tokens, C) tensor a self-attention.

    timestep: of the denoising step, (B,) or one for all. text: (B, tokens, D), that of the denoising UNet.
    """
    with writing(network) as bank:
        network(latents, timestep, text, return_dict=False)
    return bank


@contextmanager
def reading(network: nn.Module, bank: Bank | None) -> Iterator[None]:
    """Inside the block, the network's self-attentions read a bank; None leaves them as they are.

    The bank's keys and values are made once, on entry, for all calls inside. Its tensors are (B, tokens, C) with the
    batch of the calls, or (1, tokens, C) for any batch. Gradients pass through; the block must then also hold the
    backward pass when activations are recomputed in it.
    """
    if bank is None:
        yield
        return
    attentions = [block.attn1 for block in transformer_blocks(network)]
    if len(attentions) != len(bank):
        raise ValueError(
            f"The bank has {len(bank)} entries, but the UNet has {len(attentions)} self-attentions; both networks "
            "must have the same architecture."
        )
    readers = [
        _Reader(attention.to_k(entry), attention.to_v(entry)) for attention, entry in zip(attentions, bank, strict=True)
    ]
    before = [attention.processor for attention in attentions]
    try:
        for attention, reader in zip(attentions, readers, strict=True):
            attention.set_processor(reader)
        yield
    finally:
        for attention, processor in zip(attentions, before, strict=True):
            attention.set_processor(processor)


class _Reader:
    """An attention processor of diffusers: own tokens first, then the bank's."""

    def __init__(self, key: torch.Tensor, value: torch.Tensor) -> None:
        self.key, self.value = key, value

    def __call__(self, attention: Attention, hidden_states: torch.Tensor, *_: Any, **__: Any) -> torch.Tensor:
        """(B, tokens, C) -> the same."""
        batch = len(hidden_states)

        def heads(tokens: torch.Tensor) -> torch.Tensor:
            return tokens.unflatten(-1, (attention.heads, -1)).transpose(1, 2)

        query = attention.to_q(hidden_states)
        key = torch.cat([attention.to_k(hidden_states), self.key.expand(batch, -1, -1)], dim=1)
        value = torch.cat([attention.to_v(hidden_states), self.value.expand(batch, -1, -1)], dim=1)
        out = functional.scaled_dot_product_attention(heads(query), heads(key), heads(value))
        return attention.to_out[0](out.transpose(1, 2).flatten(2))
