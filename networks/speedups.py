"""Put the exact speed-ups in place for the length of one run; nothing stays on a module afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from torch import nn

from .attention import RunConstants, face_tokens, is_known, is_plain, transformer_forward
from .temporal_conv import res_block_forward


@contextmanager
def faster(module: nn.Module) -> Iterator[None]:
    """diffusers' spatio-temporal UNet or temporal VAE decoder runs faster inside the block, same weights, same results.

    For inference only (activations are edited in place). The constants of the run are made at first use from the
    context the UNet is called with, and are gone with the block; the context tensors must not be edited meanwhile.
    Blocks with adapters, processors or a forward of others, and contexts of more than one token for the picture, run
    as they are.
    """
    run = RunConstants()
    with ExitStack() as stack:
        for part in module.modules():
            if "forward" in vars(part):
                continue
            kind = type(part).__name__
            tokens = _context_tokens(part) if kind == "TransformerSpatioTemporalModel" else None
            if tokens is not None:
                _replace_forward(stack, part, partial(_transformer, part, part.forward, run, tokens))
            elif kind == "SpatioTemporalResBlock":
                _replace_forward(stack, part, partial(_res_block, part))
        if type(module).__name__ == "UNetSpatioTemporalConditionModel":
            hook = module.register_forward_pre_hook(partial(_note_context, run), with_kwargs=True)
            stack.callback(hook.remove)
        if next(module.parameters()).device.type == "cpu":
            stack.enter_context(_channels_last(getattr(module, "decoder", module)))
        yield


@contextmanager
def _channels_last(network: nn.Module) -> Iterator[None]:
    """The network's 2-D convolutions and activations have channels last: on the CPU its norms and products like it."""
    weights = [part.weight for part in network.modules() if type(part) is nn.Conv2d and part.kernel_size != (1, 1)]
    hook = network.conv_in.register_forward_pre_hook(
        lambda _module, inputs: (inputs[0].contiguous(memory_format=torch.channels_last),)
    )
    try:
        for weight in weights:
            weight.data = weight.data.contiguous(memory_format=torch.channels_last)
        yield
    finally:
        hook.remove()
        for weight in weights:
            weight.data = weight.data.contiguous()


def _replace_forward(stack: ExitStack, part: nn.Module, forward: Any) -> None:
    part.forward = forward
    stack.callback(delattr, part, "forward")


def _context_tokens(transformer: nn.Module) -> int | None:
    """How many context tokens our forward is for, the picture's and those for faces; None where layers differ."""
    spatial, temporal = transformer.transformer_blocks, transformer.temporal_transformer_blocks
    cross = [block.attn2 for block in [*spatial, *temporal]]
    known = all(map(is_known, cross)) and all(is_plain(block.attn1) and block.is_res for block in temporal)
    faces = {face_tokens(attention) for attention in cross} if known else set()
    return 1 + faces.pop() if len(faces) == 1 else None


def _note_context(run: RunConstants, _unet: nn.Module, inputs: tuple, keywords: dict[str, Any]) -> None:
    run.begin(keywords["encoder_hidden_states"] if "encoder_hidden_states" in keywords else inputs[2])


def _transformer(  # noqa: PLR0917 - the signature of diffusers' forward
    transformer: nn.Module,
    plain_forward: Any,
    run: RunConstants,
    tokens: int,
    hidden_states: torch.Tensor,
    encoder_hidden_states: torch.Tensor | None = None,
    image_only_indicator: torch.Tensor | None = None,
    return_dict: bool = True,
) -> Any:
    if encoder_hidden_states is None or encoder_hidden_states.shape[1] != tokens or image_only_indicator is None:
        return plain_forward(hidden_states, encoder_hidden_states, image_only_indicator, return_dict)
    out = transformer_forward(transformer, run, hidden_states, image_only_indicator)
    if not return_dict:
        return (out,)
    from diffusers.models.transformers.transformer_temporal import TransformerTemporalModelOutput

    return TransformerTemporalModelOutput(sample=out)


def _res_block(
    block: nn.Module,
    hidden_states: torch.Tensor,
    temb: torch.Tensor | None = None,
    image_only_indicator: torch.Tensor | None = None,
) -> torch.Tensor:
    return res_block_forward(block, hidden_states, temb, image_only_indicator)
