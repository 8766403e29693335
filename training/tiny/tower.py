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

PICTURES, SIZE = 16, 128  # of a step
SPREAD_WEIGHT = 1e-2


def looks(character: Character) -> np.ndarray:
    """float32 (35,): colours, hair, pattern and cut of the clothes, all 0..1: what the embedding must tell."""
    hair = [float(character.hair == kind) for kind in HAIR]
    pattern = [float(character.pattern == kind) for kind in ("stripes", "sash")]
    cut = [float(character.short_sleeves), float(character.shorts)]
    return np.concatenate([character.colours(), np.array([*hair, *pattern, *cut], np.float32)])


class _Teller(nn.Module):
    def __init__(self, tower: nn.Module) -> None:
        super().__init__()
        self.tower = tower
        self.tell = nn.Linear(tower.config.projection_dim, 35)


def train_image_tower(config: dict, steps: int, folder: Path, rate: float = 2e-3) -> nn.Module:
    """CLIPVisionModelWithProjection of `config`, whose embedding tells a puppet's looks through one linear layer."""
    torch.manual_seed(0)
    teller, puppets = _Teller(build_image_tower(config)), Puppets()

    def loss(step: int) -> tuple[torch.Tensor, dict[str, float]]:
        numbers = range(step * PICTURES, (step + 1) * PICTURES)
        pixels = [clip_pixels(puppets.reference(i, (SIZE, SIZE))[0], size=config["image_size"]) for i in numbers]
        target = torch.from_numpy(np.stack([looks(puppets.character(i)) for i in numbers]))
        embedding = teller.tower(torch.cat(pixels)).image_embeds
        error = functional.mse_loss(teller.tell(embedding), target)
        spread = (embedding.square().mean() - 1).square()
        return error + SPREAD_WEIGHT * spread, {"error": error.item(), "spread": spread.item()}

    return fit(teller, loss, steps, rate, folder / "tower.pt").tower
