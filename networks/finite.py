"""The check that what a network gave are numbers."""

from __future__ import annotations

import torch


def check_finite(values: torch.Tensor, what: str) -> torch.Tensor:
    """The values as they are; FloatingPointError that names `what` when there is NaN or infinity among them."""
    if not torch.isfinite(values).all():
        raise FloatingPointError(
            f"NaN or infinity in {what}; load the network in bfloat16 or float32, or check its weights."
        )
    return values
