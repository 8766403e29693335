"""The tiny image tower: learns to tell what a puppet and its background look like, wherever the puppet stands."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from ...conditioning.clip_image import clip_pixels
from ...datasets.puppets import Puppets
from ...datasets.puppets.character import HAIR, Character
from ...networks.image_tower import build_image_tower
from .loop import fit

SEEN_PICTURES = 8000  # drawn once, before the training
PICTURES, SIZE = 32, 128  # of a step
COLOURS = 27  # of the looks: nine, in red, green and blue
SPREAD_WEIGHT = 1e-2


def looks(character: Character) -> np.ndarray:
    """float32 (35,): colours, hair, pattern and cut of the clothes, all 0..1: what the embedding must tell."""
    hair = [float(character.hair == kind) for kind in HAIR]
    pattern = [float(character.pattern == kind) for kind in ("stripes", "sash")]
    cut = [float(character.short_sleeves), float(character.shorts)]
    return np.concatenate([character.colours(), np.array([*hair, *pattern, *cut], np.float32)])


def drawn(puppets: Puppets, count: int, side: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The tower's inputs (N, 3, side, side), float16, and the :func:`looks` (N, 35) of the first puppets."""
    pixels = torch.empty(count, 3, side, side, dtype=torch.float16)
    for i in range(count):
        pixels[i] = clip_pixels(puppets.standing(i, (SIZE, SIZE))[0], size=side)[0]
    return pixels, torch.from_numpy(np.stack([looks(puppets.character(i)) for i in range(count)]))


def varied(pixels: torch.Tensor, told: torch.Tensor, rng: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Half of the time mirrored, half of the time with red, green and blue exchanged, in picture and looks alike."""
    if rng.random() < 0.5:
        pixels = pixels.flip(-1)
    if rng.random() < 0.5:
        order = rng.permutation(3)
        colours = told[:, :COLOURS].unflatten(1, (-1, 3))[..., order].flatten(1)
        pixels, told = pixels[:, order], torch.cat([colours, told[:, COLOURS:]], dim=1)
    return pixels, told


class _Teller(nn.Module):
    def __init__(self, tower: nn.Module) -> None:
        super().__init__()
        self.tower = tower
        self.tell = nn.Linear(tower.config.projection_dim, 35)


def train_image_tower(
    config: dict, steps: int, folder: Path, rate: float = 1e-3, pictures: int = SEEN_PICTURES
) -> nn.Module:
    """CLIPVisionModelWithProjection of `config`, whose embedding tells a puppet's looks through one linear layer."""
    torch.manual_seed(0)
    teller = _Teller(build_image_tower(config))
    pixels, told = drawn(Puppets(), pictures, config["image_size"])

    def loss(step: int) -> tuple[torch.Tensor, dict[str, float]]:
        rng = np.random.default_rng([step, 4])
        chosen = rng.choice(pictures, PICTURES, replace=False)
        seen, target = varied(pixels[chosen].float(), told[chosen], rng)
        embedding = teller.tower(seen).image_embeds
        error = functional.mse_loss(teller.tell(embedding), target)
        spread = (embedding.square().mean() - 1).square()
        return error + SPREAD_WEIGHT * spread, {"error": error.item(), "spread": spread.item()}

    return fit(teller, loss, steps, rate, folder / "tower.pt").tower
