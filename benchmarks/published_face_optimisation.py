"""The published gradient of StableAnimator's face loss: every frame in one graph, nothing spared."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from choreo.samplers.face_optimisation import Box, face_crops
from torch import nn
from torch.nn import functional


def published_gradient(  # noqa: PLR0917 - the arguments of the optimisation
    vae: nn.Module,
    recogniser: nn.Module,
    latents: torch.Tensor,
    boxes: Sequence[Box],
    reference: torch.Tensor,
    chunk: int = 4,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Loss () and its gradient in latents (frames, 4, h, w), times the scaling factor; every frame has a face."""
    z = latents.detach().requires_grad_()
    parts = (z / vae.config.scaling_factor).split(chunk)
    images = torch.cat([vae.decode(part, num_frames=len(part)).sample for part in parts]).clamp(-1, 1)
    found = recogniser(face_crops(images, boxes, recogniser.size))
    loss = (1 - functional.cosine_similarity(found, reference)).abs().mean()
    return loss.detach(), torch.autograd.grad(loss, z)[0]
