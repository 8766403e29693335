"""Reproducible random weights of any network, scaled so that activations stay finite."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

BLOCK = 1_000_003  # numbers drawn per tensor; larger ones repeat them (a prime, so that no two rows are alike)


def random_weights(
    build: Callable[[], nn.Module], seed: int, dtype: torch.dtype = torch.float16, gain: float = 1.0
) -> dict[str, torch.Tensor]:
    """A state dict for the network that `build` makes; the network itself takes no memory.

    Matrices and kernels are normal with standard deviation gain/sqrt(fan in), so that at gain 1 a linear layer keeps
    the size of its input (a row of activations without norms needs more); norms are the identity, biases zero, and
    everything else (mixing factors, embeddings, scales) is normal / 2.
    """
    with torch.device("meta"):
        module = build()
    generator = torch.Generator().manual_seed(seed)
    norms = {name for name, part in module.named_modules() if isinstance(part, (nn.GroupNorm, nn.LayerNorm))}
    weights = {}
    for name, tensor in module.state_dict().items():
        layer, _, kind = name.rpartition(".")
        if layer in norms and kind == "weight":
            weights[name] = torch.ones(tensor.shape, dtype=dtype)
        elif kind == "bias":
            weights[name] = torch.zeros(tensor.shape, dtype=dtype)
        else:
            scale = gain * tensor[0].numel() ** -0.5 if tensor.ndim > 1 else 0.5
            block = torch.randn(min(tensor.numel(), BLOCK), generator=generator).mul_(scale).to(dtype)
            repeats = -(-tensor.numel() // BLOCK)
            weights[name] = block.repeat(repeats)[: tensor.numel()].reshape(tensor.shape).contiguous()
    return weights
