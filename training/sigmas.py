"""How much noise a training sample gets: sigma as pure functions of one random number a sample."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from ..samplers.sigmas import SIGMA_MAX, SIGMA_MIN


@dataclass(frozen=True)
class LogNormal:
    """ln(sigma) is normal (Karras et al., arXiv 2206.00364, table 1; the numbers are those of SVD)."""

    mean: float = 0.7
    std: float = 1.6

    def draw(self, generator: torch.Generator) -> torch.Tensor:
        """The random number of a sample: normal, float32, on the CPU."""
        return torch.randn((), generator=generator)

    def sigma(self, numbers: torch.Tensor) -> torch.Tensor:
        """(B,) sigmas of normal numbers (B,)."""
        return (self.mean + self.std * numbers).exp()


@dataclass(frozen=True)
class InterpolatedCosine:
    """The cosine schedule shifted to a resolution, between two of them (simple diffusion, arXiv 2301.11093, 3.1).

    least, most: the range of sigma. side: the resolution at which the plain schedule holds. low, high: the resolutions
    whose schedules are interpolated; `low` counts at the noisy end. data: standard deviation of the latents.
    """

    least: float = SIGMA_MIN
    most: float = SIGMA_MAX
    side: float = 64
    low: float = 32
    high: float = 64
    data: float = 0.5

    def draw(self, generator: torch.Generator) -> torch.Tensor:
        """The random number of a sample: uniform in [0, 1), float32, on the CPU."""
        return torch.rand((), generator=generator)

    def sigma(self, numbers: torch.Tensor) -> torch.Tensor:
        """(B,) sigmas of uniform numbers (B,): 0 gives `most`, towards 1 they fall to `least`."""
        u = numbers.double()
        log_snr = torch.lerp(self._shifted(u, self.low), self._shifted(u, self.high), u)
        return (self.data * (-log_snr / 2).exp()).to(numbers)

    def _shifted(self, u: torch.Tensor, resolution: float) -> torch.Tensor:
        """The log signal-to-noise ratio of the cosine schedule for a resolution, cut to the range of sigma."""
        shift = 2 * math.log(resolution / self.side)
        noisy, clean = (
            math.atan(math.exp(math.log(sigma / self.data) + shift / 2)) for sigma in (self.most, self.least)
        )
        return -2 * torch.tan(noisy + u * (clean - noisy)).log() + shift


Levels = LogNormal | InterpolatedCosine


def stratified(numbers: torch.Tensor, places: torch.Tensor, count: int) -> torch.Tensor:
    """Uniform numbers (B,) moved into strata: number k falls between places[k] / count and (places[k] + 1) / count.

    So the `count` samples of a step, each at another place, spread evenly over the noise levels.
    """
    return (places.to(numbers) + numbers) / count
