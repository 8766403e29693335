"""A network without memory, then the file's own tensors in place: nothing is held twice."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import torch
from torch import nn

ModuleT = TypeVar("ModuleT", bound=nn.Module)


def assemble(
    build: Callable[[], ModuleT], weights: Mapping[str, torch.Tensor], what: str, source: str | Path
) -> ModuleT:
    """Build a network without memory and let it take over the tensors, in their dtypes.

    build:  makes the network; called under `torch.device("meta")`.
    what, source: the network's name and the file, for messages.
    Returns it in eval mode without gradients. Raises ValueError naming missing, surplus or misshapen weights.
    """
    return fill(skeleton(build), weights, what, source)


def skeleton(build: Callable[[], ModuleT]) -> ModuleT:
    """A network whose weights have names, shapes and dtypes, but no memory yet."""
    with torch.device("meta"):
        return build()


def fill(module: ModuleT, weights: Mapping[str, torch.Tensor], what: str, source: str | Path) -> ModuleT:
    """The second half of :func:`assemble`."""
    problems = differences(weights, module.state_dict())
    if problems:
        raise ValueError(f"{source} does not fit {what}: {'; '.join(problems)}.")
    module.load_state_dict(weights, assign=True)
    return module.eval().requires_grad_(False)


def differences(weights: Mapping[str, torch.Tensor], expected: Mapping[str, torch.Tensor]) -> list[str]:
    """What is missing, surplus or of another shape, in words, with a few names each; empty when all fits."""
    problems = []
    missing = [key for key in expected if key not in weights]
    surplus = [key for key in weights if key not in expected]
    shapes = [
        f"{key} {tuple(tensor.shape)} instead of {tuple(expected[key].shape)}"
        for key, tensor in weights.items()
        if key in expected and tensor.shape != expected[key].shape
    ]
    for kind, names in (("missing", missing), ("not expected", surplus), ("of another shape", shapes)):
        if names:
            problems.append(f"{len(names)} {kind} ({_few(names)})")
    return problems


def _few(names: Sequence[str], number: int = 3) -> str:
    return ", ".join(names[:number]) + (", ..." if len(names) > number else "")


def without_prefix(weights: Mapping[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    """The weights whose names begin with a prefix, under the rest of their names."""
    return {key[len(prefix) :]: tensor for key, tensor in weights.items() if key.startswith(prefix)}
