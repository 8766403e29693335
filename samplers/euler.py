"""Euler steps of the probability-flow ODE, in the symbols of Karras et al. (arXiv 2206.00364)."""

from __future__ import annotations

import torch


def denoised_from_v(x: torch.Tensor, v: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
    """x0 = x / (sigma^2 + 1) - v sigma / sqrt(sigma^2 + 1); float32.

    The product with v is rounded to v's dtype, so that a half-precision v gives the published result.
    """
    return v * (-sigma / (sigma**2 + 1) ** 0.5) + x.float() / (sigma**2 + 1)


def euler_step(x: torch.Tensor, denoised: torch.Tensor, sigma: torch.Tensor, sigma_next: torch.Tensor) -> torch.Tensor:
    """One step from sigma to sigma_next; computed in float32, returned in x's dtype."""
    d = (x.float() - denoised) / sigma
    dt = sigma_next - sigma
    return (x.float() + d * dt).to(x.dtype)
