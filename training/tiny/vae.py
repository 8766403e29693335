"""The tiny video VAE: learns to give puppets back from latents an eighth of their size."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch.nn import functional

from ...datasets.puppets import Puppets
from ...networks.video_vae import build_video_vae
from ..lean import lean_convolutions
from .loop import fit
from .pictures import clips

CROPS, CROP, SIZE = 8, 64, 128
CLIP_FRAMES = 6
STILL = 0.85  # share of the steps on crops of single frames; the rest sees short clips of whole pictures
KL_WEIGHT = 1e-5
GUIDED = 0.4  # share of the steps in which three latent channels are pulled to the mean colours of their blocks
GUIDE_SCALE = 3.0


def train_vae(config: dict, steps: int, folder: Path, rate: float = 2e-3) -> torch.nn.Module:
    """AutoencoderKLTemporalDecoder of `config`, trained on puppets: L1 and squared error, a weak KL term.

    Its latents are scaled to a standard deviation of 1 / scaling_factor, as SVD's pipeline expects them.
    """
    torch.manual_seed(0)
    vae = build_video_vae(config)
    lean_convolutions(vae)
    _look_at_one_frame(vae)
    puppets = Puppets()

    def loss(step: int) -> tuple[torch.Tensor, dict[str, float]]:
        still, generator = step < STILL * steps, torch.Generator().manual_seed(step)
        shape = (CROPS, 1, SIZE) if still else (1, CLIP_FRAMES, SIZE)
        target = clips(puppets, step, shape, CROP if still else None).flatten(0, 1)
        posterior = vae.encode(target).latent_dist
        noise = torch.randn(posterior.mean.shape, generator=generator)
        decoded = vae.decode(posterior.mean + posterior.std * noise, num_frames=shape[1]).sample
        l1, squared = functional.l1_loss(decoded, target), functional.mse_loss(decoded, target)
        kl = 0.5 * (posterior.mean**2 + posterior.var - 1 - posterior.logvar).mean()
        colours = functional.avg_pool2d(target, 8)
        guide = functional.mse_loss(posterior.mean[:, :3] / GUIDE_SCALE, colours)
        numbers = {"l1": l1.item(), "psnr": float(-10 * np.log10(squared.item() / 4)), "guide": guide.item()}
        return l1 + squared + KL_WEIGHT * kl + max(0, 1 - step / (GUIDED * steps)) * guide, numbers

    fit(vae, loss, steps, rate, folder / "vae.pt")
    return scale_latents(vae, puppets)


@torch.no_grad()
def _look_at_one_frame(vae: torch.nn.Module) -> None:
    """Start with convolutions over time that see their own frame only: single frames teach them all the same."""
    for part in vae.modules():
        if isinstance(part, torch.nn.Conv3d):
            part.weight[:, :, [0, -1]] = 0


@torch.no_grad()
def scale_latents(vae: torch.nn.Module, puppets: Puppets) -> torch.nn.Module:
    """Fold a factor per channel into the VAE, so that its latents have a standard deviation of 1 / scaling_factor."""
    pixels = torch.cat([clips(puppets, number, (4, 2, SIZE)) for number in range(8)]).flatten(0, 1)
    mean = vae.encode(pixels).latent_dist.mean
    factor = 1 / vae.config.scaling_factor / mean.std(dim=(0, 2, 3))
    channels = len(factor)
    vae.quant_conv.weight[:channels] *= factor[:, None, None, None]
    vae.quant_conv.bias[:channels] *= factor
    vae.quant_conv.bias[channels:] += 2 * factor.log()
    vae.decoder.conv_in.weight /= factor[None, :, None, None]
    return vae
