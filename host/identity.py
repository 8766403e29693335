"""StableAnimator's identity adapter (arXiv 2411.17697) as attention patches of the host's SVD network.

The context in CONDITIONING is the picture's CLIP token followed by face tokens. A wrapper around the network patches
its cross-attentions for one call: spatial ones attend to both parts and add the face's share with mean and deviation
of the picture's, temporal ones see the picture's token alone. The adapter's weights are layers of the network, so that
the host loads, offloads, casts and patches them with the others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from comfy.ldm.modules import attention as host_attention
from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import WrappersMP

from ..networks.id_attention import NUM_FACE_TOKENS, aligned, split_context

ADAPTER = ".attn2.processor."  # in the names of its weights
STRENGTHS = "choreo_identity"  # key in the options of a run: strength of the identity by condition
WRAPPER = "choreo_identity"
Place = tuple[str, int, int]  # of a transformer block: side, number, number within


def add_adapters(network: torch.nn.Module) -> None:
    """Give every spatial cross-attention the adapter's two layers, of its own class and dtype, still without values."""
    for _, attention in _cross_attentions(network):
        like = attention.to_k
        attention.processor = torch.nn.Module()
        for name in ("id_to_k", "id_to_v"):
            layer = type(like)(
                like.in_features, like.out_features, bias=False, dtype=like.weight.dtype, device=like.weight.device
            )
            setattr(attention.processor, name, layer.requires_grad_(False))


def _cross_attentions(network: torch.nn.Module) -> Iterator[tuple[Place, torch.nn.Module]]:
    """The spatial cross-attentions of the host's network, by the places that patches have."""
    sides = {"input": network.input_blocks, "middle": [network.middle_block], "output": network.output_blocks}
    for side, blocks in sides.items():
        for number, block in enumerate(blocks):
            for layer in block:
                for index, transformer in enumerate(getattr(layer, "transformer_blocks", ())):
                    yield (side, number, index), transformer.attn2


def install_identity(model: ModelPatcher) -> None:
    """Let a MODEL (and its clones) follow the face tokens in its conditioning."""
    model.add_wrapper_with_key(WrappersMP.DIFFUSION_MODEL, WRAPPER, _with_identity)


def _with_identity(  # noqa: PLR0917 - as the host calls it
    executor: Any,
    x: torch.Tensor,
    timesteps: torch.Tensor,
    context: torch.Tensor,
    y: torch.Tensor,
    control: Any,
    transformer_options: dict[str, Any],
    **more: Any,
) -> torch.Tensor:
    """Call the network with patches that know this call's context."""
    identity = _Identity(context, _strengths(transformer_options, len(context)))
    patches = dict(transformer_options.get("patches", {}))
    patches["attn2_patch"] = [identity.choose_tokens, *patches.get("attn2_patch", [])]
    replaced = dict(transformer_options.get("patches_replace", {}))
    before = replaced.get("attn2", {})
    replaced["attn2"] = before | {
        place: partial(identity.attend, attention.processor, before.get(place, before.get(place[:2], _attend)))
        for place, attention in _cross_attentions(executor.class_obj)
    }
    options = transformer_options | {"patches": patches, "patches_replace": replaced}
    return executor(x, timesteps, context, y, control, options, **more)


def _strengths(transformer_options: dict[str, Any], rows: int) -> torch.Tensor:
    """(rows, 1, 1): how strongly the identity acts in every row of a call."""
    chosen = transformer_options.get(STRENGTHS, {})
    each = [chosen.get(key, 1.0) for key in transformer_options.get("uuids", [None])]
    return torch.tensor(each).repeat_interleave(rows // len(each))[:, None, None]


class _Identity:
    """The patches of one call of the network.

    context: (conditions * frames, picture tokens + face tokens, D); strengths: (conditions * frames, 1, 1).
    """

    def __init__(self, context: torch.Tensor, strengths: torch.Tensor) -> None:
        self.context, self.strengths = context, strengths
        self.picture, self.face = split_context(context, NUM_FACE_TOKENS)

    def choose_tokens(
        self, n: torch.Tensor, context: torch.Tensor, value: torch.Tensor, _options: dict[str, Any]
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Leave the face tokens to spatial blocks; temporal ones have a context of their own, copied for each pixel."""
        if context is self.context:
            return n, context, value
        return n, *(tokens[:, :-NUM_FACE_TOKENS] for tokens in (context, value))

    def attend(  # noqa: PLR0917 - as the host calls it
        self,
        adapter: torch.nn.Module,
        plain: Callable[..., torch.Tensor],
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
        options: dict[str, Any],
    ) -> torch.Tensor:
        """(B, tokens, C) of a block's cross-attention, before its output layer; `plain` attends to pictures."""
        if k.shape[1] == self.picture.shape[1]:
            return plain(q, k, v, options)
        a = plain(q, k[:, :-NUM_FACE_TOKENS], v[:, :-NUM_FACE_TOKENS], options)
        face = self.face.to(q)
        b = _attend(q, adapter.id_to_k(face), adapter.id_to_v(face), options)
        return a + self.strengths.to(q) * aligned(b, a)


def _attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, options: dict[str, Any]) -> torch.Tensor:
    """The host's attention; over one token it is that token's value, whatever the query."""
    if v.shape[1] == 1:
        return v.expand(-1, q.shape[1], -1)
    precision = options.get("attn_precision")
    return host_attention.optimized_attention(
        q, k, v, options["n_heads"], attn_precision=precision, transformer_options=options
    )
