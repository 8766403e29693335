"""MimicMotion's published loop in plain words: nothing cached, nothing shared, diffusers as it is."""

from __future__ import annotations

from typing import Any

import torch
from choreo.networks.svd_unet import predict
from choreo.samplers.euler import denoised_from_v, euler_step
from choreo.samplers.sigmas import timesteps
from choreo.samplers.windows import window_weights, windows

from .stopwatch import Stopwatch


@torch.no_grad()
def sample_published(
    networks: Any,
    conditioning: Any,
    pose_values: torch.Tensor,
    noise: torch.Tensor,
    *,
    sigmas: torch.Tensor,
    overlap: int,
    guidance: float,
    stopwatch: Stopwatch,
) -> torch.Tensor:
    """Latents (frames, 4, h, w) float32; PoseNet runs for every window and step, both passes one after the other.

    pose_values: (frames, 3, H, W) in [-1, 1]; noise: (window, 4, h, w); all on the networks' device.
    """
    dtype, device = networks.unet.dtype, pose_values.device
    frames, window = len(pose_values), len(noise)
    embeds = conditioning.image_embeds.to(device, dtype)
    latents = conditioning.image_latents.to(device, dtype)
    ids = conditioning.time_ids.to(device, dtype)
    weights = window_weights(window).to(device).view(-1, 1, 1, 1)
    sigmas = sigmas.to(device)
    x = noise[torch.arange(frames) % window] * (sigmas[0] ** 2 + 1) ** 0.5
    for i, t in enumerate(timesteps(sigmas)):
        scaled = x / (sigmas[i] ** 2 + 1) ** 0.5
        sums = torch.zeros(2, *x.shape, device=device)
        counts = torch.zeros(frames, 1, 1, 1, device=device)
        for tile in windows(frames, window, overlap):
            with stopwatch("pose features"):
                features = networks.pose_net(pose_values[tile])
            noisy = scaled[tile].to(dtype)
            for row, share in enumerate((0, 1)):
                sample = torch.cat([noisy, (latents * share).expand(len(tile), -1, -1, -1)], 1)[None]
                with stopwatch("UNet"):
                    v = predict(networks.unet, sample, t, embeds * share, ids, pose_features=features if row else None)
                sums[row, tile] += weights * v[0].float()
            counts[tile] += weights
        v = sums / counts
        v = v[0] + guidance * (v[1] - v[0])
        x = euler_step(x, denoised_from_v(x, v, sigmas[i]), sigmas[i], sigmas[i + 1])
    return x
