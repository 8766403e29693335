"""Exact speed-ups of diffusers' spatio-temporal transformers: the same weights, less work, float rounding apart.

Attention over ONE context token does not depend on its query: softmax of one number is 1, so its output is the
constant `to_out(to_v(context))`. Here that constant is made once per run and context; the query, its norm and the
copies of the context for every pixel are left out. Temporal blocks keep the layout (frames, pixels, channels), so
only their attention sees a transposed view. StableAnimator's cross-attentions keep what does not depend on the query in
the same way (:class:`.id_attention.IDConstants`). Feed-forward layers go through the tokens in pieces, which gives the
same numbers from a fraction of the memory.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn import functional

from .id_attention import IDAttention, IDConstants, PictureTokens, split_context

if TYPE_CHECKING:
    from diffusers.models.attention_processor import Attention
    from diffusers.models.transformers.transformer_temporal import TransformerSpatioTemporalModel

MAX_CONTEXTS = 4  # conditional, unconditional, both, and one to spare
CPU_PIECE, GPU_PIECE = 1024, 65536  # tokens


class RunConstants:
    """What stays the same for one sampling run; lives no longer than that."""

    def __init__(self) -> None:
        self._contexts: list[torch.Tensor] = []  # held, so that an id() is not given to another tensor
        self._context: torch.Tensor | None = None
        self._cross: dict[tuple[int, int], torch.Tensor | IDConstants] = {}
        self._positions: dict[tuple, torch.Tensor] = {}

    def begin(self, context: torch.Tensor) -> None:
        """A UNet call begins with this context (B, tokens, D); the tensor must not be edited while the run lasts."""
        self._context = context
        if not any(context is known for known in self._contexts):
            if len(self._contexts) == MAX_CONTEXTS:
                self._contexts.clear()
                self._cross.clear()
            self._contexts.append(context)

    def cross_attention(self, attention: Attention) -> torch.Tensor | IDConstants:
        """(B, 1, C): what attention over the one context token gives to every query; more for an identity adapter."""
        key = (id(self._context), id(attention))
        if key not in self._cross:
            self._cross[key] = _constants(attention, self._context)
        return self._cross[key]

    def frame_positions(
        self, transformer: TransformerSpatioTemporalModel, num_frames: int, like: torch.Tensor
    ) -> torch.Tensor:
        """(frames, 1, C): the learned embedding of a frame's place in its window."""
        key = (id(transformer), num_frames)
        if key not in self._positions:
            sinusoids = transformer.time_proj(torch.arange(num_frames, device=like.device))
            self._positions[key] = transformer.time_pos_embed(sinusoids.to(like.dtype))[:, None]
        return self._positions[key]


def _constants(attention: Attention, context: torch.Tensor) -> torch.Tensor | IDConstants:
    if isinstance(attention.processor, IDAttention):
        return IDConstants(attention, context)
    faces = face_tokens(attention)
    picture = split_context(context, faces)[0] if faces else context
    return attention.to_out[0](attention.to_v(picture))


def face_tokens(attention: Attention) -> int:
    """Tokens at the end of the context that a known processor keeps apart."""
    return getattr(attention.processor, "num_tokens", 0)


def is_plain(attention: nn.Module | None) -> bool:
    """Whether an attention layer does what its class says, without adapters or options of others."""
    from diffusers.models.attention_processor import AttnProcessor2_0

    return attention is not None and type(attention.processor) is AttnProcessor2_0 and _has_no_options(attention)


def is_known(attention: nn.Module | None) -> bool:
    """Whether a cross-attention is plain, or one of StableAnimator's without adapters of others."""
    if attention is None or type(attention.processor) not in (IDAttention, PictureTokens):
        return is_plain(attention)
    layers = (attention.to_q, attention.to_out[0])  # an identity adapter's weights are multiplied into others
    return _has_no_options(attention) and all(type(layer) is nn.Linear for layer in layers)


def _has_no_options(attention: Attention) -> bool:
    return (
        attention.norm_q is None
        and attention.norm_k is None
        and not attention.residual_connection
        and attention.rescale_output_factor == 1
    )


def transformer_forward(
    transformer: TransformerSpatioTemporalModel,
    run: RunConstants,
    hidden_states: torch.Tensor,
    image_only_indicator: torch.Tensor,
) -> torch.Tensor:
    """The transformer's forward for a context of one picture token; (B*F, C, h, w) -> the same, channels last."""
    frames = image_only_indicator.shape[-1]
    batch_frames, channels, height, width = hidden_states.shape
    x = transformer.norm(hidden_states).permute(0, 2, 3, 1).reshape(batch_frames, height * width, channels)
    x = transformer.proj_in(x)
    positions = run.frame_positions(transformer, frames, x)
    for spatial, temporal in zip(transformer.transformer_blocks, transformer.temporal_transformer_blocks, strict=True):
        x += spatial.attn1(spatial.norm1(x))
        _add_cross_attention(x, spatial, run)
        _add_feed_forward(x, spatial.norm3, spatial.ff)
        mixed = x.view(-1, frames, *x.shape[1:]) + positions
        _temporal_block(mixed, temporal, run)
        alpha = blend_weight(transformer.time_mixer, image_only_indicator, x.dtype)
        x = torch.lerp(mixed.view_as(x), x, alpha.reshape(-1, 1, 1))
    x = transformer.proj_out(x).view(batch_frames, height, width, -1).permute(0, 3, 1, 2)
    return x + hidden_states


def blend_weight(mixer: nn.Module, image_only_indicator: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """The spatial branch's share in diffusers' AlphaBlender: one number per frame (B*F), or one for all."""
    alpha = mixer.get_alpha(image_only_indicator, 3).reshape(-1).to(dtype)
    return 1 - alpha if mixer.switch_spatial_to_temporal_mix else alpha


def _temporal_block(x: torch.Tensor, block: nn.Module, run: RunConstants) -> None:
    """One temporal block in place on x (B, F, pixels, C)."""
    _add_feed_forward(x, block.norm_in, block.ff_in)
    x += _temporal_attention(block.norm1(x), block.attn1)
    _add_cross_attention(x, block, run)
    _add_feed_forward(x, block.norm3, block.ff)


def _temporal_attention(x: torch.Tensor, attention: Attention) -> torch.Tensor:
    """Self-attention over the frames of each pixel; (B, F, pixels, C) -> the same."""
    shape = (*x.shape[:-1], attention.heads, -1)
    query, key, value = (
        project(x).view(shape).permute(0, 2, 3, 1, 4).flatten(0, 1)
        for project in (attention.to_q, attention.to_k, attention.to_v)
    )
    out = functional.scaled_dot_product_attention(query, key, value)
    out = out.unflatten(0, (x.shape[0], -1)).permute(0, 3, 1, 2, 4).flatten(3)
    return attention.to_out[0](out)


def _add_cross_attention(x: torch.Tensor, block: nn.Module, run: RunConstants) -> None:
    """Add the block's attention to the context to x, (B*F, pixels, C) or (B, F, pixels, C), in place."""
    constant = run.cross_attention(block.attn2)
    if isinstance(constant, IDConstants):
        constant.add(x, block.norm2(x))
    else:
        x.view(len(constant), -1, x.shape[-1]).add_(constant)


def _add_feed_forward(x: torch.Tensor, norm: nn.Module, feed_forward: nn.Module) -> None:
    """x += feed_forward(norm(x)) in place, piece by piece; x (..., C) contiguous."""
    tokens = x.view(-1, x.shape[-1])
    for piece in tokens.split(CPU_PIECE if x.device.type == "cpu" else GPU_PIECE):
        piece.add_(_feed_forward(norm(piece), feed_forward))


def _feed_forward(tokens: torch.Tensor, feed_forward: nn.Module) -> torch.Tensor:
    gated, _dropout, project = feed_forward.net
    if type(gated.proj) is not nn.Linear:  # an adapter or a quantised layer sits there
        return feed_forward(tokens)
    weights, biases = gated.proj.weight.chunk(2), gated.proj.bias.chunk(2)
    values, gates = (functional.linear(tokens, weight, bias) for weight, bias in zip(weights, biases, strict=True))
    return project(values.mul_(functional.gelu(gates)))
