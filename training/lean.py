"""Exact ways to train SVD's UNet and VAE with less work, float rounding apart.

Attention over one context token does not depend on its query, so its query, its key and the norm before it never
get a gradient. A convolution over three frames is a 2-D convolution over (frames, pixels), which the CPU does in
half the time of a 3-D one.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional

from ..networks.attention import is_known
from ..networks.id_attention import IDAttention, PictureTokens


class FrameConvolution(nn.Conv3d):
    """A Conv3d with the kernel (3, 1, 1), computed as a 2-D convolution on the CPU."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """X (B, C, F, h, w) -> (B, C', F, h, w)."""
        if x.device.type != "cpu":
            return super().forward(x)
        return functional.conv2d(x.flatten(3), self.weight[..., 0], self.bias, padding=(1, 0)).unflatten(3, x.shape[3:])


class OneTokenAttention:
    """Attention over one context token: its value for every query. Over more tokens, diffusers' own."""

    def __init__(self, processor: Any) -> None:
        self.processor = processor

    def __call__(
        self,
        attention: nn.Module,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor,
        *rest: Any,
        **options: Any,
    ) -> torch.Tensor:
        """(B, 1, C), to be added to every query."""
        if encoder_hidden_states.shape[1] != 1:
            return self.processor(attention, hidden_states, encoder_hidden_states, *rest, **options)
        return attention.to_out[0](attention.to_v(encoder_hidden_states))


def lean_convolutions(network: nn.Module) -> None:
    """Change the convolutions over three frames of a network in place to :class:`FrameConvolution`."""
    for part in network.modules():
        if type(part) is nn.Conv3d and part.kernel_size == (3, 1, 1) and part.padding == (1, 0, 0):
            part.__class__ = FrameConvolution


def lean(unet: nn.Module) -> None:
    """Change a UNet in place so that it trains faster; its weights and their names stay as they are.

    Weights that cannot get a gradient are frozen: every process of a distributed run would wait for theirs, and
    weight decay would shrink them for nothing.
    """
    lean_convolutions(unet)
    for part in unet.modules():
        attention = getattr(part, "attn2", None)
        if not is_known(attention):
            continue
        unused = [attention.to_q, attention.to_k, part.norm2]
        if isinstance(attention.processor, IDAttention):
            unused = [attention.to_k]  # its queries meet the face tokens
        elif isinstance(attention.processor, PictureTokens):
            attention.processor.plain = OneTokenAttention(attention.processor.plain)
        else:
            attention.set_processor(OneTokenAttention(attention.processor))
        for layer in unused:
            layer.requires_grad_(False)
