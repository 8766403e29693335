"""The stochastic consistency sampler of AnimateLCM-SVD (arXiv 2402.00769), for UNets distilled for it."""

from __future__ import annotations

import torch


def lcm_step(denoised: torch.Tensor, sigma_next: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
    """Jump to the denoised clip, then add fresh noise of the next sigma (0 at the last step)."""
    return denoised + noise.to(denoised) * sigma_next
