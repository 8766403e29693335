"""DDIM (arXiv 2010.02502) on the noise schedule of Stable Diffusion 1.5, with the published tables."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
import torch

from ..quirks import CLEAN, Quirks

TRAIN_STEPS = 1000
BETA_FIRST, BETA_LAST = 0.00085, 0.012


@cache
def betas() -> np.ndarray:
    """(1000,) float64: the squares of evenly spaced square roots."""
    return np.linspace(BETA_FIRST**0.5, BETA_LAST**0.5, TRAIN_STEPS) ** 2


@cache
def alphas_cumprod() -> torch.Tensor:
    """(1000,) float32: the share of the signal's variance at every timestep; multiplied up in float64."""
    return torch.from_numpy(np.cumprod(1 - betas())).float()


@dataclass(frozen=True)
class Schedule:
    """The steps of a run in the order of sampling, from noise to picture; all (steps,).

    timesteps: int64, what the networks are told. alphas, alphas_prev: float64, the cumulative products at a timestep
    and at the one that follows it. sigmas: float64, noise added by each step. note: what is worth saying, or "".
    """

    timesteps: torch.Tensor
    alphas: torch.Tensor
    alphas_prev: torch.Tensor
    sigmas: torch.Tensor
    note: str = ""

    def __len__(self) -> int:
        return len(self.timesteps)


def schedule(steps: int, eta: float = 0.0, quirks: Quirks = CLEAN) -> Schedule:
    """The steps of DDIM; eta 0 is deterministic, 1 adds as much noise as DDPM.

    Timesteps are evenly spaced and end at 1. Where `steps` divides 1000 they are the published ones; elsewhere there
    are as many as asked for, while the published program takes ceil(1000 / (1000 // steps)) (quirk `ddim_extra_steps`).
    Where that program breaks off, because it would need timestep 1000, the note says so. More than 999 are 999 steps.
    Raises ValueError for less than 1 step.
    """
    if steps < 1:
        raise ValueError(f"The number of DDIM steps must be at least 1, got {steps}.")
    published = np.arange(0, TRAIN_STEPS, max(TRAIN_STEPS // steps, 1)) + 1
    even = np.arange(steps) * TRAIN_STEPS // steps + 1 if steps < TRAIN_STEPS else published
    times = published if quirks.ddim_extra_steps else even
    times = times[times < TRAIN_STEPS]
    breaks = published[-1] >= TRAIN_STEPS
    note = f"The published program cannot do {steps} steps; {len(times)} are done here." if breaks else ""
    table = alphas_cumprod().double().numpy()
    alphas, before = table[times], table[[0, *times[:-1]]]
    sigmas = eta * np.sqrt((1 - before) / (1 - alphas) * (1 - alphas / before))
    ordered = (torch.from_numpy(values[::-1].copy()) for values in (times, alphas, before, sigmas))
    return Schedule(*ordered, note=note)


def add_noise(latents: torch.Tensor, noise: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
    """sqrt(a) latents + sqrt(1 - a) noise at timesteps, (B,) or one for all; float32."""
    a = alphas_cumprod().to(latents.device)[timesteps].view(-1, 1, 1, 1)
    return a.sqrt() * latents + (1 - a).sqrt() * noise


def ddim_step(
    x: torch.Tensor, noise: torch.Tensor, steps: Schedule, i: int, fresh: torch.Tensor | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Step i from x (B, 4, h, w) with the predicted noise: the next x, and the denoised latents; float32.

    fresh: unit Gaussian noise, needed where sigma is not 0.
    """
    a, before, sigma = (values[i].float() for values in (steps.alphas, steps.alphas_prev, steps.sigmas))
    denoised = (x - (1 - a).sqrt() * noise) / a.sqrt()
    x = before.sqrt() * denoised + (1 - before - sigma**2).sqrt() * noise
    return (x if fresh is None else x + sigma * fresh), denoised
