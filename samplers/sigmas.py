"""Noise schedules of SVD samplers: descending sigmas with a final 0, float64 arithmetic, float32 results."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

SIGMA_MIN, SIGMA_MAX, RHO = 0.002, 700.0, 7.0  # the EDM range of Stable Video Diffusion
ALIGN_YOUR_STEPS = (700.0, 54.5, 15.886, 7.977, 4.248, 1.789, 0.981, 0.403, 0.173, 0.034, 0.002)
LCM_TRAINING_STEPS = 40


def _karras(ramp: np.ndarray, sigma_min: float, sigma_max: float) -> np.ndarray:
    high, low = sigma_max ** (1 / RHO), sigma_min ** (1 / RHO)
    return (high + ramp * (low - high)) ** RHO


def _check_steps(steps: int) -> None:
    if steps < 1:
        raise ValueError(f"The number of steps must be at least 1, got {steps}.")


def _with_zero(sigmas: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.append(sigmas, 0.0)).float()


def karras_sigmas(steps: int, sigma_min: float = SIGMA_MIN, sigma_max: float = SIGMA_MAX) -> torch.Tensor:
    """`steps` + 1 sigmas of Karras et al. (arXiv 2206.00364, eq. 5, rho 7), the last one 0; float32."""
    _check_steps(steps)
    return _with_zero(_karras(np.linspace(0, 1, steps), sigma_min, sigma_max))


def ays_sigmas(steps: int, above_zero: bool = False) -> torch.Tensor:
    """`steps` + 1 sigmas of Align Your Steps for SVD (arXiv 2404.14507), log-linearly resampled, the last one 0.

    above_zero: with exactly 10 steps the last sigma stays 0.002, as a published program has it. float32.
    """
    _check_steps(steps)
    anchors = np.log(ALIGN_YOUR_STEPS)
    sigmas = np.exp(np.interp(np.linspace(0, 1, steps + 1), np.linspace(0, 1, len(anchors)), anchors))
    if not (above_zero and steps == len(anchors) - 1):
        sigmas[-1] = 0.0
    return torch.from_numpy(sigmas).float()


def lcm_sigmas(steps: int, sigma_min: float = SIGMA_MIN, sigma_max: float = SIGMA_MAX) -> torch.Tensor:
    """`steps` + 1 sigmas of AnimateLCM-SVD: every (40 // steps)-th of its 40 training sigmas, then 0; float32."""
    _check_steps(steps)
    if steps > LCM_TRAINING_STEPS:
        raise ValueError(f"AnimateLCM was distilled to {LCM_TRAINING_STEPS} steps at most, got {steps}; use 4 to 8.")
    ramp = np.arange(steps) * (LCM_TRAINING_STEPS // steps) / (LCM_TRAINING_STEPS - 1)
    return _with_zero(_karras(ramp, sigma_min, sigma_max))


def given_sigmas(sigmas: Sequence[float]) -> torch.Tensor:
    """Sigmas as the user gives them: strictly descending and positive; a final 0 is added when missing. float32."""
    values = np.asarray(sigmas, dtype=np.float64)
    if values.ndim != 1 or len(values) == 0 or not np.isfinite(values).all() or (values[:-1] <= 0).any():
        raise ValueError(f"sigmas must be positive numbers, got {list(sigmas)}.")
    if (np.diff(values) >= 0).any() or values[-1] < 0 or (len(values) == 1 and values[0] == 0):
        raise ValueError(f"sigmas must descend strictly and not fall below 0, got {list(sigmas)}.")
    return torch.from_numpy(values).float() if values[-1] == 0 else _with_zero(values)


def timesteps(sigmas: torch.Tensor) -> torch.Tensor:
    """What the UNet is told for every sigma but the last: 0.25 ln(sigma)."""
    return 0.25 * sigmas[:-1].log()


def initial_scale(sigmas: torch.Tensor) -> torch.Tensor:
    """Standard deviation of the first latents: sqrt(sigma_max^2 + 1)."""
    return (sigmas.max() ** 2 + 1) ** 0.5
