"""MagicPose's published loop in plain words: frame by frame, the bank anew in every step, diffusers as it is."""

from __future__ import annotations

from typing import Any

import torch
from choreo.networks.appearance import reading, writing
from choreo.networks.sd15_unet import predict_noise
from choreo.samplers.ddim import Schedule, ddim_step


@torch.no_grad()
def sample_published(
    networks: Any,
    reference: torch.Tensor,
    text: torch.Tensor,
    hints: torch.Tensor,
    start: torch.Tensor,
    *,
    steps: Schedule,
    guidance: float,
) -> torch.Tensor:
    """Latents (frames, 4, h, w); the unconditional call also runs the ControlNet, whose result it throws away.

    hints: (frames, 3, H, W) in [0, 1]; everything on the networks' device. networks: `unet`, `appearance` (a whole
    UNet, as the published one runs to its end) and `controlnet`.
    """
    frames = []
    for hint in hints:
        x = start
        for i, t in enumerate(steps.timesteps.tolist()):
            with writing(networks.appearance) as bank:
                networks.appearance(reference, t, text)
            down, middle = networks.controlnet(x, t, text, hint[None], return_dict=False)
            with reading(networks.unet, bank):
                conditional = predict_noise(networks.unet, x, t, text, (down, middle))
            networks.controlnet(x, t, text, hint[None], return_dict=False)
            unconditional = predict_noise(networks.unet, x, t, text)
            x, _ = ddim_step(x, unconditional + guidance * (conditional - unconditional), steps, i)
        frames.append(x)
    return torch.cat(frames)
