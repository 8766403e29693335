"""MimicMotion on the host's own network gives what the headless core gives."""

from __future__ import annotations

import pytest
import torch

from .harness import Host, Value
from .svd_job import SEED, SIZE, STEPS, clip, core, loaders, pose_pictures, relative, unscaled

WINDOW, OVERLAP = 6, 2
CFG = 2.0


def start_noise(host: Host, window: int, frames: int) -> torch.Tensor:
    """What the core draws for the latents of a job: after the picture's noise."""
    noise = host.module("samplers.svd").seeded_noise(SEED)
    noise(1, 3, *SIZE)
    period = noise(1, window, 4, SIZE[0] // 8, SIZE[1] // 8)[0]
    return torch.cat([period, 9 + torch.zeros(max(frames - window, 0), *period.shape[1:])])[:frames]


class GivenNoise:
    """The host's NOISE socket with noise of our own."""

    def __init__(self, noise: torch.Tensor) -> None:
        self.noise, self.seed = noise, SEED

    def generate_noise(self, latent: dict) -> torch.Tensor:
        return self.noise


def stock_graph(poses: list, window: int, noise: torch.Tensor, **widgets) -> dict:
    """Conditioning, latent fusion and the host's own sampler nodes."""
    return loaders() | {
        "condition": ("ChoreoMimicMotionConditioning", clip(poses, **widgets)),
        "fused": ("ChoreoLatentFusion", {"model": ("load", 0), "window": window, "overlap": OVERLAP}),
        "guider": (
            "CFGGuider",
            {"model": ("fused", 0), "positive": ("condition", 0), "negative": ("condition", 1), "cfg": CFG},
        ),
        "sampler": ("KSamplerSelect", {"sampler_name": "euler"}),
        "sigmas": ("BasicScheduler", {"model": ("load", 0), "scheduler": "karras", "steps": STEPS, "denoise": 1.0}),
        "sampled": (
            "SamplerCustomAdvanced",
            {
                "noise": Value(GivenNoise(noise)),
                "guider": ("guider", 0),
                "sampler": ("sampler", 0),
                "sigmas": ("sigmas", 0),
                "latent_image": ("condition", 2),
            },
        ),
    }


@pytest.fixture
def stock(host: Host) -> Host:
    if "SamplerCustomAdvanced" not in host.nodes.NODE_CLASS_MAPPINGS:
        host.load_extra("nodes_custom_sampler")
        host.load_extra("nodes_video_model")
    return host


@pytest.mark.parametrize("frames", [5, WINDOW, 11], ids=["shorter", "one window", "several windows"])
def test_stock_sampler_with_latent_fusion_equals_the_core(stock: Host, frames: int) -> None:
    poses = pose_pictures(frames)
    result = stock.queue(stock_graph(poses, WINDOW, start_noise(stock, WINDOW, frames)))
    assert result.error is None
    wanted = unscaled(core(stock, poses, window=WINDOW, overlap=OVERLAP).latents)
    latent = result.outputs["sampled"][0]
    difference = relative(latent["samples"], wanted)
    print(f"{stock.version}: {frames} frames, stock sampler against core: {difference:.1e}")
    assert difference < 1e-3
    assert latent["choreo_reference_frames"] == 1


@pytest.mark.parametrize("frames", [5, 11])
@pytest.mark.parametrize(
    "settings", [{}, {"guidance_first": 1.0, "guidance_last": 3.0}, {"guidance_last": 1.0}, {"sampler": "animate_lcm"}]
)
def test_the_one_box_sampler_equals_the_core(host: Host, frames: int, settings: dict) -> None:
    poses = pose_pictures(frames)
    settings = {"steps": STEPS, "window": WINDOW, "overlap": OVERLAP, "seed": SEED} | settings
    result = host.queue(loaders() | {"sampled": ("ChoreoMimicMotionSampler", clip(poses, **settings))})
    assert result.error is None
    difference = relative(result.outputs["sampled"][0]["samples"], unscaled(core(host, poses, **settings).latents))
    print(f"{host.version}: {frames} frames, {settings}, one box against core: {difference:.1e}")
    assert difference < 1e-3
