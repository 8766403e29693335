"""MimicMotion's sampling in one call: the core's schedules and steps, driven through the host's sampler."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import comfy.sample
import comfy.samplers
import comfy.utils
import latent_preview
import torch
from comfy.model_patcher import ModelPatcher

from ..conditioning.svd import Noise
from ..pipelines.mimicmotion import Settings
from ..samplers.animate_lcm import lcm_step
from ..samplers.guidance import guidance_ramp, guide, needs_unconditional
from .conditioning import Conditioned
from .fusion import fuse_latents


def sample(
    model: ModelPatcher, conditioned: Conditioned, settings: Settings, window: int, noise: Noise
) -> dict[str, Any]:
    """LATENT (frames, 4, h, w), not scaled, of a conditioned clip, as the core's :func:`.pipelines.mimicmotion.sample`.

    noise: called with (1, window, 4, h, w), and by animate_lcm with (1, frames, 4, h, w) before every step but the
    last. The conditioning's part of the settings is not looked at.
    """
    model = fuse_latents(model, window, settings.overlap)
    guidance = settings.guidance_first, settings.guidance_last
    if needs_unconditional(*guidance):
        model.set_model_sampler_cfg_function(_ramp(*guidance), disable_cfg1_optimization=True)
    empty = conditioned.latent["samples"]
    frames, channels, height, width = empty.shape
    period = noise(1, window, channels, height, width)[0]
    sigmas = settings.noise_levels()
    samples = comfy.sample.sample_custom(
        model,
        period[torch.arange(frames) % window],
        settings.guidance_last if needs_unconditional(*guidance) else 1.0,
        _sampler(settings.sampler, noise),
        sigmas,
        conditioned.positive,
        conditioned.negative,
        empty,
        callback=latent_preview.prepare_callback(model, len(sigmas) - 1),
        disable_pbar=not comfy.utils.PROGRESS_BAR_ENABLED,
        seed=settings.seed,
    )
    return conditioned.latent | {"samples": samples}


def _ramp(first: float, last: float) -> Callable[[dict[str, Any]], torch.Tensor]:
    def guided(predictions: dict[str, Any]) -> torch.Tensor:
        conditional = predictions["cond"]
        return guide(predictions["uncond"], conditional, guidance_ramp(first, last, len(conditional)))

    return guided


def _sampler(name: str, noise: Noise) -> comfy.samplers.KSAMPLER:
    if name == "animate_lcm":
        return comfy.samplers.KSAMPLER(_sample_animate_lcm, {"fresh_noise": noise})
    return comfy.samplers.sampler_object(name)


def _sample_animate_lcm(  # noqa: PLR0917 - as the host calls it
    model: Callable[..., torch.Tensor],
    x: torch.Tensor,
    sigmas: torch.Tensor,
    extra_args: dict[str, Any],
    callback: Callable[[dict[str, Any]], None] | None,
    fresh_noise: Noise,
    **_options: Any,
) -> torch.Tensor:
    steps = len(sigmas) - 1
    for i in range(steps):
        denoised = model(x, sigmas[i].expand(len(x)), **extra_args)
        if callback is not None:
            callback({"x": x, "i": i, "sigma": sigmas[i], "sigma_hat": sigmas[i], "denoised": denoised})
        x = lcm_step(denoised, sigmas[i + 1], fresh_noise(1, *x.shape)[0] if i + 1 < steps else torch.zeros(()))
    return x
