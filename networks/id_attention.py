"""StableAnimator's identity adapter (arXiv 2411.17697, "distribution-aware ID Adapter"), as attention processors.

The UNet's context is the picture's CLIP token followed by face tokens. Every spatial cross-attention attends to both
parts apart and adds the face's share after it got mean and deviation of the picture's; every temporal cross-attention
sees the picture's token alone. docs/stableanimator.md has the formulas.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.nn import functional

from .svd_unet import SVD_XT, build_unet

if TYPE_CHECKING:
    from diffusers import UNetSpatioTemporalConditionModel
    from diffusers.models.attention_processor import Attention

NUM_FACE_TOKENS = 4
EPSILON = 1e-5


class IDAttention(nn.Module):
    """Processor of a spatial cross-attention: to_out(a + scale * align(b, a)), b being attention to the face tokens.

    num_tokens: face tokens at the end of the context; scale: their strength, 1 as trained, 0 leaves them out.
    A fresh adapter attends to faces as the layer does to pictures: training starts there.
    """

    def __init__(self, attention: Attention, num_tokens: int = NUM_FACE_TOKENS, scale: float = 1.0) -> None:
        super().__init__()
        self.num_tokens, self.scale = num_tokens, scale
        for name, layer in (("id_to_k", attention.to_k), ("id_to_v", attention.to_v)):
            weight = layer.weight.detach()
            own = nn.Linear(weight.shape[1], weight.shape[0], bias=False, device=weight.device, dtype=weight.dtype)
            own.weight.data.copy_(weight)
            setattr(self, name, own)

    def forward(
        self,
        attention: Attention,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        temb: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """hidden_states (N, tokens, C), encoder_hidden_states (N, picture tokens + num_tokens, D) -> (N, tokens, C)."""
        picture, face = split_context(encoder_hidden_states, self.num_tokens)
        if attention_mask is not None:
            raise ValueError("The identity adapter has no use for an attention mask.")
        query = _by_head(attention.to_q(hidden_states), attention.heads)
        a = _attend(query, attention.to_k(picture), attention.to_v(picture))
        b = _attend(query, self.id_to_k(face), self.id_to_v(face))
        out = attention.to_out[1](attention.to_out[0](a + self.scale * aligned(b, a)))
        out = out + hidden_states if attention.residual_connection else out
        return out / attention.rescale_output_factor


class PictureTokens:
    """Processor of a temporal cross-attention: plain attention to the context without its face tokens."""

    def __init__(self, num_tokens: int = NUM_FACE_TOKENS) -> None:
        from diffusers.models.attention_processor import AttnProcessor2_0

        self.num_tokens = num_tokens
        self.plain = AttnProcessor2_0()

    def __call__(
        self,
        attention: Attention,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        temb: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """As of :class:`IDAttention`."""
        picture, _ = split_context(encoder_hidden_states, self.num_tokens)
        return self.plain(attention, hidden_states, picture, attention_mask, temb)


def split_context(context: torch.Tensor | None, num_tokens: int) -> tuple[torch.Tensor, torch.Tensor]:
    """(picture tokens, face tokens) of a context (N, tokens, D)."""
    tokens = 0 if context is None else context.shape[1]
    if tokens <= num_tokens:
        raise ValueError(
            f"StableAnimator's context is the picture's token and {num_tokens} face tokens, got {tokens} in all; "
            "without a face give zeros."
        )
    return context[:, :-num_tokens], context[:, -num_tokens:]


def aligned(b: torch.Tensor, a: torch.Tensor) -> torch.Tensor:
    """b with the mean and standard deviation of a, over tokens and channels of each item; (N, tokens, C) both.

    The statistics are float32 in any dtype.
    """
    (std_a, mean_a), (std_b, mean_b) = (torch.std_mean(x.float(), (1, 2), correction=0, keepdim=True) for x in (a, b))
    ratio = std_a / (std_b + EPSILON)
    return ((b.float() - mean_b) * ratio + mean_a).to(b.dtype)


def _by_head(x: torch.Tensor, heads: int) -> torch.Tensor:
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)


def _attend(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """Attention of a query (N, heads, tokens, d) to key and value (N, tokens, C) -> (N, tokens, C)."""
    heads = query.shape[1]
    out = functional.scaled_dot_product_attention(query, _by_head(key, heads), _by_head(value, heads))
    return out.transpose(1, 2).flatten(2)


def install_id_adapter(module: nn.Module, num_tokens: int = NUM_FACE_TOKENS) -> None:
    """Put the processors on every cross-attention of diffusers' spatio-temporal UNet, or of a transformer of it.

    The adapter's weights are then part of the state dict, as `...attn2.processor.id_to_k.weight`; works on the meta
    device too.
    """
    for part in module.modules():
        if type(part).__name__ == "TransformerSpatioTemporalModel":
            for block in part.transformer_blocks:
                block.attn2.set_processor(IDAttention(block.attn2, num_tokens))
            for block in part.temporal_transformer_blocks:
                block.attn2.set_processor(PictureTokens(num_tokens))


def build_id_unet(
    config: Mapping[str, Any] = SVD_XT, num_tokens: int = NUM_FACE_TOKENS
) -> UNetSpatioTemporalConditionModel:
    """StableAnimator's UNet of a configuration: :func:`.svd_unet.build_unet` with the identity adapter."""
    unet = build_unet(config)
    install_id_adapter(unet, num_tokens)
    return unet


def id_adapters(unet: nn.Module) -> list[IDAttention]:
    """The identity adapter of a UNet, layer by layer."""
    return [module for module in unet.modules() if isinstance(module, IDAttention)]


@contextmanager
def identity_strength(unet: nn.Module, strength: float) -> Iterator[None]:
    """The face tokens act with this strength inside the block; 0 leaves them out."""
    before = [(adapter, adapter.scale) for adapter in id_adapters(unet)]
    try:
        for adapter, scale in before:
            adapter.scale = scale * strength
        yield
    finally:
        for adapter, scale in before:
            adapter.scale = scale


class IDConstants:
    """What a layer's attention to one picture token and its face tokens needs, made once per run and context.

    Attention over one token is the constant to_v(picture). The query meets only T face tokens a head, so both its
    projection and the output's shrink to C x heads T: logits = x (to_q keys), out = weights (values to_out). The
    weights of a query sum to 1, so b's variance is a quadratic form of them with centred values, free of cancellation.
    """

    def __init__(self, attention: Attention, context: torch.Tensor) -> None:
        adapter, heads = attention.processor, attention.heads
        picture, face = split_context(context, adapter.num_tokens)
        keys, values = (_by_head(to(face), heads).float() for to in (adapter.id_to_k, adapter.id_to_v))
        to_q = attention.to_q.weight.float().unflatten(0, (heads, -1))
        to_out = attention.to_out[0].weight.float().unflatten(1, (heads, -1))
        self.heads, self.head_size, self.scale = heads, keys.shape[-1], adapter.scale
        keys = torch.einsum("hdc,bhtd->bcht", to_q, keys) * self.head_size**-0.5
        self.keys = keys.flatten(2).to(context.dtype)  # (B, C, heads T)
        self.outputs = torch.einsum("chd,bhtd->bhtc", to_out, values).flatten(1, 2)  # (B, heads T, C)
        self.means = values.mean(-1)  # (B, heads, T), of each value
        centred = values - self.means[..., None]
        self.products = centred @ centred.mT  # (B, heads, T, T)
        a = attention.to_v(picture)
        self.ones_out = to_out.sum((1, 2))  # to_out of a vector of ones, without bias
        self.deviation_a, mean_a = torch.std_mean(a.float(), (1, 2), correction=0)
        self.base = attention.to_out[0](a).float() + self.scale * mean_a.view(-1, 1, 1) * self.ones_out  # (B, 1, C)

    def add(self, x: torch.Tensor, normed: torch.Tensor) -> None:
        """Add the attention of the queries `normed` to x in place; both (B * frames, pixels, C), x contiguous."""
        batch = len(self.keys)
        queries = normed.reshape(batch, -1, normed.shape[-1])
        weights = (queries @ self.keys).float().unflatten(-1, (self.heads, -1)).softmax(-1)
        weights = weights.unflatten(1, (len(x) // batch, -1))  # (B, frames, pixels, heads, T)
        mean, deviation = self._statistics(weights)
        ratio = self.scale * self.deviation_a[:, None] / (deviation + EPSILON)
        weights = (weights * ratio[..., None, None, None]).flatten(3).flatten(1, 2)
        x.view(queries.shape).baddbmm_(weights.to(x.dtype), self.outputs.to(x.dtype))
        offset = self.base - (ratio * mean)[..., None] * self.ones_out  # (B, frames, C)
        x += offset.reshape(len(x), 1, -1).to(x.dtype)

    def _statistics(self, weights: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean and standard deviation (B, frames) of b over pixels and channels."""
        share = weights.mean(2)
        mean = (share * self.means[:, None]).sum((-1, -2)) / self.heads
        by_head = weights.permute(0, 1, 3, 4, 2)  # (B, frames, heads, T, pixels)
        moments = by_head @ by_head.mT / weights.shape[2]
        offsets = self.means[:, None] - mean[..., None, None]
        products = self.products[:, None] + self.head_size * offsets[..., None] * offsets[..., None, :]
        variance = (moments * products).sum((-1, -2, -3)) / (self.heads * self.head_size)
        return mean, variance.clamp(min=0).sqrt()
