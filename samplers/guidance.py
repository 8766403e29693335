"""Classifier-free guidance with a strength per frame."""

from __future__ import annotations

import torch


def guidance_ramp(first: float, last: float, num_frames: int) -> torch.Tensor:
    """(num_frames,) float32: guidance rising linearly from the reference frame to the last frame."""
    return torch.linspace(first, last, num_frames)


def needs_unconditional(first: float, last: float) -> bool:
    """Whether any frame is guided at all; up to 1 the conditional prediction is the answer."""
    return max(first, last) > 1


def guide(unconditional: torch.Tensor, conditional: torch.Tensor, ramp: torch.Tensor) -> torch.Tensor:
    """unconditional + g (conditional - unconditional), g per frame; predictions (frames, 4, h, w)."""
    return unconditional + ramp.to(conditional).view(-1, 1, 1, 1) * (conditional - unconditional)
