"""Optimiser, learning-rate schedule and moving average of the weights."""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch

SCHEDULES = ("constant", "linear", "cosine", "polynomial")


def adamw(
    groups: list[dict[str, Any]],
    betas: tuple[float, float] = (0.9, 0.999),
    weight_decay: float = 1e-2,
    eps: float = 1e-8,
    eight_bit: bool = False,
) -> torch.optim.Optimizer:
    """AdamW over parameter groups with their own `lr`; eight_bit: bitsandbytes' with 8-bit moments.

    Raises ImportError, saying what to install, when bitsandbytes is asked for and missing.
    """
    if not eight_bit:
        return torch.optim.AdamW(groups, betas=betas, weight_decay=weight_decay, eps=eps)
    try:
        library = importlib.import_module("bitsandbytes")
    except ImportError:
        raise ImportError(
            "8-bit AdamW needs bitsandbytes, which is not installed: run `pip install bitsandbytes`, "
            "or leave out --eight-bit-adam."
        ) from None
    return library.optim.AdamW8bit(groups, betas=betas, weight_decay=weight_decay, eps=eps)


def groups_of(module: torch.nn.Module, rates: Mapping[str, float]) -> list[dict[str, Any]]:
    """Parameter groups of the parts of a module that `rates` names (None where one is missing), if they are trained."""
    parts = {name: getattr(module, name) for name in rates}
    groups = [
        {"name": name, "lr": rates[name], "params": [p for p in part.parameters() if p.requires_grad]}
        for name, part in parts.items()
        if part is not None
    ]
    return [group for group in groups if group["params"]]


def schedule(
    optimizer: torch.optim.Optimizer, name: str, warmup: int, steps: int
) -> torch.optim.lr_scheduler.LRScheduler:
    """The learning rate over `steps` optimiser steps: linear warm-up, then constant or falling to 0."""
    from diffusers.optimization import get_scheduler

    kind = "constant_with_warmup" if name == "constant" else name
    return get_scheduler(kind, optimizer, num_warmup_steps=warmup, num_training_steps=steps)


class MovingAverage:
    """Exponential moving average of trained parameters, float32, where they are.

    The decay grows with the steps, min(decay, (1 + step) / (10 + step)), so that the start is forgotten soon.
    """

    def __init__(self, parameters: Mapping[str, torch.nn.Parameter], decay: float) -> None:
        self.decay = decay
        self._parameters = dict(parameters)
        self.shadow = {name: p.detach().float().clone() for name, p in self._parameters.items()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the parameters after optimiser step number `step`, counted from 1."""
        share = 1 - min(self.decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(list(self.shadow.values()), [p.float() for p in self._parameters.values()], share)

    def over(self, weights: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """A state dict with the averages in the place of the parameters."""
        return {name: self.shadow.get(name, tensor) for name, tensor in weights.items()}

    def save(self, path: Path) -> None:
        """Write the averages as safetensors."""
        from safetensors.torch import save_file

        save_file({name: tensor.contiguous().cpu() for name, tensor in self.shadow.items()}, path)

    def load(self, path: Path) -> None:
        """Read what :meth:`save` wrote."""
        from safetensors.torch import load_file

        for name, tensor in load_file(path).items():
            self.shadow[name].copy_(tensor)


def trained(groups: Iterable[Mapping[str, Any]]) -> list[torch.nn.Parameter]:
    """All parameters of parameter groups."""
    return [parameter for group in groups for parameter in group["params"]]
