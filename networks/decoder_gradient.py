"""SVD's VAE decoder for gradients of its latents: the same numbers from a fraction of autograd's memory.

Autograd keeps the input of every convolution for a gradient of its weight that nobody asks for, and of every norm and
activation. The weights are frozen here, so a convolution keeps nothing, and of every residual block only the input
is kept; the rest is computed again when the gradient passes by, one frame at a time where frames do not see each
other. docs/face_optimisation.md has the figures.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.nn import functional

from .attention import blend_weight

if TYPE_CHECKING:
    from diffusers.models.autoencoders.autoencoder_kl_temporal_decoder import TemporalDecoder
    from diffusers.models.resnet import ResnetBlock2D, SpatioTemporalResBlock

GROUP_PARTS = 8  # of the 32 groups of a norm


def decode_for_gradient(decoder: TemporalDecoder, latents: torch.Tensor) -> torch.Tensor:
    """Frames (F, 3, H, W), nominally in [-1, 1], of one chunk of latents (F, 4, h, w), not scaled.

    The same function of the latents as `vae.decode(latents, num_frames=F)` with `decoder = vae.decoder`; weights get
    no gradient. Latents, weights and frames are on one device and of one dtype.
    """
    frames = len(latents)
    x = _Convolution.apply(latents, decoder.conv_in)
    x = _res_block(decoder.mid_block.resnets[0], x)
    for res_block, attention in zip(decoder.mid_block.resnets[1:], decoder.mid_block.attentions, strict=False):
        x = _res_block(res_block, _framewise(attention, x))
    for block in decoder.up_blocks:
        for res_block in block.resnets:
            x = _res_block(res_block, x)
        for upsampler in block.upsamplers or ():
            x = _framewise(partial(_upsampled, upsampler), x)
    x = _framewise(partial(_normed_convolution, decoder.conv_norm_out, decoder.conv_out), x)
    clip = x.unflatten(0, (-1, frames)).transpose(1, 2)
    return _Convolution.apply(clip, decoder.time_conv_out).transpose(1, 2).flatten(0, 1)


def _res_block(block: SpatioTemporalResBlock, x: torch.Tensor) -> torch.Tensor:
    def both(y: torch.Tensor) -> torch.Tensor:
        return _temporal(block, _framewise(partial(_spatial, block.spatial_res_block), y))

    return _Recomputed.apply(both, x, len(x))


def _spatial(block: ResnetBlock2D, x: torch.Tensor) -> torch.Tensor:
    y = _normed_convolution(block.norm1, block.conv1, x)
    y = _normed_convolution(block.norm2, block.conv2, y)
    return y.add_(x if block.conv_shortcut is None else _Convolution.apply(x, block.conv_shortcut))


def _temporal(block: SpatioTemporalResBlock, x: torch.Tensor) -> torch.Tensor:
    clip = x.transpose(0, 1)[None]
    temporal = block.temporal_res_block
    y = _normed_convolution(temporal.norm1, temporal.conv1, clip)
    y = _normed_convolution(temporal.norm2, temporal.conv2, y)
    spatial_share = blend_weight(block.time_mixer, torch.zeros(1, len(x), dtype=x.dtype, device=x.device), x.dtype)
    y = y.mul_(1 - spatial_share).add_(clip)  # share * clip + (1 - share) * (clip + y)
    return y[0].transpose(0, 1)


def _upsampled(upsampler: nn.Module, x: torch.Tensor) -> torch.Tensor:
    return _Convolution.apply(functional.interpolate(x, scale_factor=2.0, mode="nearest"), upsampler.conv)


def _normed_convolution(norm: nn.GroupNorm, convolution: nn.Module, x: torch.Tensor) -> torch.Tensor:
    return _Convolution.apply(_NormSiLU.apply(x, norm), convolution)


def _framewise(function: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor) -> torch.Tensor:
    return _Recomputed.apply(function, x, 1)


class _Recomputed(torch.autograd.Function):
    """function(x), of which only x is kept until its gradient is wanted; `size` samples of the batch at a time."""

    @staticmethod
    def forward(ctx: Any, function: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor, size: int) -> torch.Tensor:
        ctx.function, ctx.size = function, size
        ctx.save_for_backward(x)
        if size >= len(x):
            return function(x)
        for start in range(0, len(x), size):
            y = function(x[start : start + size])
            if start == 0:
                whole = y.new_empty(len(x), *y.shape[1:])
            whole[start : start + size] = y
        return whole

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[None, torch.Tensor, None]:
        (x,) = ctx.saved_tensors
        parts = zip(x.split(ctx.size), gradient.split(ctx.size), strict=True)
        if ctx.size >= len(x):
            return None, _pulled_back(ctx.function, *next(parts)), None
        pulled = torch.empty_like(x)
        for part, of_part in zip(pulled.split(ctx.size), parts, strict=True):
            part.copy_(_pulled_back(ctx.function, *of_part))
        return None, pulled, None


class _NormSiLU(torch.autograd.Function):
    """silu(norm(x)), of which only x is kept; the gradient goes through a few groups of channels at a time."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, norm: nn.GroupNorm) -> torch.Tensor:
        ctx.norm = norm
        ctx.save_for_backward(x)
        return functional.silu(norm(x), inplace=True)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None]:
        (x,), norm = ctx.saved_tensors, ctx.norm
        pulled, groups = torch.empty_like(x), norm.num_groups // GROUP_PARTS
        channels = norm.num_channels // GROUP_PARTS
        for start in range(0, norm.num_channels, channels):
            part = slice(start, start + channels)

            def function(y: torch.Tensor, part: slice = part) -> torch.Tensor:
                return functional.silu(functional.group_norm(y, groups, norm.weight[part], norm.bias[part], norm.eps))

            pulled[:, part] = _pulled_back(function, x[:, part], gradient[:, part])
        return pulled, None


def _pulled_back(
    function: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor, gradient: torch.Tensor
) -> torch.Tensor:
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        y = function(x)
    return torch.autograd.grad(y, x, gradient)[0]


class _Convolution(torch.autograd.Function):
    """A convolution whose weight gets no gradient, so that nothing has to be kept of its input."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, convolution: nn.Conv2d | nn.Conv3d) -> torch.Tensor:
        ctx.convolution, ctx.shape = convolution, x.shape
        return convolution(x)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None]:
        own = ctx.convolution
        input_gradient = torch.nn.grad.conv2d_input if gradient.ndim == 4 else torch.nn.grad.conv3d_input
        geometry = own.stride, own.padding, own.dilation, own.groups
        return input_gradient(ctx.shape, own.weight, gradient, *geometry), None
