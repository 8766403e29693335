"""One training step of an SVD-based video model as pure functions: noise, dropout, preconditioning, loss.

In the symbols of Karras et al. (arXiv 2206.00364): a clip's latents x0 become x = x0 + sigma n; the UNet sees
x / sqrt(sigma^2 + 1) and ln(sigma) / 4 and predicts v, from which `samplers.euler.denoised_from_v` gives x0 back.
docs/training.md tells what differs from the published trainer.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ..quirks import CLEAN, Quirks
from ..samplers.euler import denoised_from_v
from .sigmas import Levels, LogNormal

LOG_NORMAL = LogNormal()
SWAPPED = LogNormal(LOG_NORMAL.std, LOG_NORMAL.mean)


@dataclass(frozen=True)
class Recipe:
    """What a step needs to know besides data; MimicMotion's numbers, see docs/training.md.

    levels: how sigma is drawn.
    dropout: chance of each: picture embedding alone, picture latents alone, everything at once (no condition).
    noise_aug: the most noise on the reference picture.
    noise_aug_varies: each clip draws its own strength from 0 to the most; otherwise all have the most.
    region_weight: what the squared error counts where a hand (MimicMotion) or a face (StableAnimator) is known to be.
    """

    levels: Levels = LOG_NORMAL
    dropout: float = 0.1
    noise_aug: float = 0.0
    noise_aug_varies: bool = True
    fps: int = 7
    motion_bucket_id: float = 127
    region_weight: float = 10.0
    quirks: Quirks = CLEAN

    def noise_levels(self) -> Levels:
        """How sigma is drawn, published mistakes included."""
        return SWAPPED if self.quirks.swapped_noise_distribution and self.levels == LOG_NORMAL else self.levels


@dataclass(frozen=True)
class Draws:
    """The random numbers of a batch of B clips of F frames, float32.

    posterior, noise: (B, F, 4, h, w) normal: the VAE's posterior sample, and what the UNet has to find.
    level:            (B,) what sigma follows from, see `training.sigmas`.
    dropout:          (B,) uniform in [0, 1): which conditions are dropped.
    """

    posterior: torch.Tensor
    noise: torch.Tensor
    level: torch.Tensor
    dropout: torch.Tensor

    @classmethod
    def of(cls, generators: list[torch.Generator], shape: tuple[int, ...], levels: Levels = LOG_NORMAL) -> Draws:
        """One CPU generator a clip; shape (F, 4, h, w). A clip's numbers do not depend on the batch it is in."""
        rows = [
            (
                torch.randn(shape, generator=g),
                torch.randn(shape, generator=g),
                levels.draw(g),
                torch.rand((), generator=g),
            )
            for g in generators
        ]
        return cls(*(torch.stack(column) for column in zip(*rows, strict=True)))

    def to(self, device: torch.device) -> Draws:
        """The same numbers on a device."""
        return Draws(*(part.to(device) for part in (self.posterior, self.noise, self.level, self.dropout)))


@dataclass(frozen=True)
class NoisyClips:
    """What the UNet is shown, and what it should find; B clips of F frames.

    sample:       (B, F, 8, h, w): noisy latents / sqrt(sigma^2 + 1), then the latents of the picture.
    timestep:     (B,) ln(sigma) / 4.
    image_embeds: (B, 1, D), zeros where dropped.
    time_ids:     (B, 3).
    pose_share:   (B,) 1 where the clip keeps its poses (and face), else 0.
    latents, noisy: (B, F, 4, h, w), scaled; sigma: (B, 1, 1, 1, 1).
    """

    sample: torch.Tensor
    timestep: torch.Tensor
    image_embeds: torch.Tensor
    time_ids: torch.Tensor
    pose_share: torch.Tensor
    latents: torch.Tensor
    noisy: torch.Tensor
    sigma: torch.Tensor

    def inputs(self) -> dict[str, torch.Tensor]:
        """What a module that is trained takes of it, by the names of its arguments."""
        names = ("sample", "timestep", "image_embeds", "time_ids", "pose_share")
        return {name: getattr(self, name) for name in names}


def posterior_sample(moments: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
    """A sample of the VAE's posterior; moments (..., 8, h, w): mean and ln of the variance."""
    mean, log_variance = moments.chunk(2, dim=-3)
    return mean + (0.5 * log_variance).exp() * noise


def kept_conditions(
    draw: torch.Tensor, probability: float, quirks: Quirks = CLEAN
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """1.0 where (picture embedding, picture latents, poses) are kept, 0.0 where they are dropped.

    draw: (B,) uniform in [0, 1). Below twice the probability the embedding goes, from once to three times the
    latents. Where both go the poses go too, which is the unconditional pass of inference (published: they stay).
    """
    embeds = draw >= 2 * probability
    latents = (draw < probability) | (draw >= 3 * probability)
    poses = torch.ones_like(embeds) if quirks.poses_never_dropped else embeds | latents
    return embeds.to(draw), latents.to(draw), poses.to(draw)


def training_time_ids(noise_aug: torch.Tensor, recipe: Recipe) -> torch.Tensor:
    """(B, 3) float32: fps - 1, motion bucket, noise augmentation, as inference has them; noise_aug (B,)."""
    fps, bucket = (torch.full_like(noise_aug, value) for value in (recipe.fps - 1, recipe.motion_bucket_id))
    order = (fps, noise_aug, bucket) if recipe.quirks.swapped_time_ids else (fps, bucket, noise_aug)
    return torch.stack(order, dim=1)


def noisy_clips(
    moments: torch.Tensor,
    image_latents: torch.Tensor,
    image_embeds: torch.Tensor,
    draws: Draws,
    *,
    noise_aug: torch.Tensor,
    recipe: Recipe,
    scaling: float,
) -> NoisyClips:
    """Noise and conditions of a step.

    moments: (B, F, 8, h, w) of the frames, unscaled; image_latents: (B, 4, h, w), the mode for the (augmented)
    picture, unscaled; image_embeds: (B, 1, D); noise_aug: (B,), the strength the picture has; scaling: the VAE's.
    """
    sigma = recipe.noise_levels().sigma(draws.level).view(-1, 1, 1, 1, 1)
    latents = posterior_sample(moments, draws.posterior) * scaling
    noisy = latents + draws.noise * sigma
    embeds_share, latents_share, pose_share = kept_conditions(draws.dropout, recipe.dropout, recipe.quirks)
    condition = (image_latents * latents_share.view(-1, 1, 1, 1))[:, None].expand_as(latents)
    return NoisyClips(
        sample=torch.cat([noisy / (sigma**2 + 1) ** 0.5, condition], dim=2),
        timestep=sigma.flatten().log() / 4,
        image_embeds=image_embeds * embeds_share.view(-1, 1, 1),
        time_ids=training_time_ids(noise_aug, recipe),
        pose_share=pose_share,
        latents=latents,
        noisy=noisy,
        sigma=sigma,
    )


def denoising_loss(v: torch.Tensor, clips: NoisyClips, weights: torch.Tensor | None = None) -> torch.Tensor:
    """(B,) loss of each clip: the squared error of x0 times (sigma^2 + 1) / sigma^2, that is, of v.

    v: (B, F, 4, h, w), computed on in float32; weights: (B, F, h, w), see `training.regions`; None is 1 everywhere.
    """
    denoised = denoised_from_v(clips.noisy, v.float(), clips.sigma)
    error = (denoised - clips.latents) ** 2 * ((clips.sigma**2 + 1) / clips.sigma**2)
    if weights is not None:
        error = error * weights[:, :, None]
    return error.mean(dim=(1, 2, 3, 4))
