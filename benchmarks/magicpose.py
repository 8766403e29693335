"""How much faster than the published loop is MagicPose's sampling, frame by frame and with frames in batches?

A small configuration on the CPU, full size when a CUDA device is there; random weights. `batched` counts most where
starting a layer costs as much as its work: small pictures, or a GPU that one frame does not fill.
"""

from __future__ import annotations

from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from choreo.conditioning.magicpose import MagicPoseConditioning, encode_poses, to_hint
from choreo.model_loaders.random_weights import random_weights
from choreo.networks.appearance import build_appearance
from choreo.networks.sd15_unet import SD15_UNET, build_controlnet, build_sd15_unet
from choreo.networks.speedups import faster
from choreo.runtime import Runtime, use
from choreo.samplers.ddim import schedule
from choreo.samplers.magicpose import ClipNoise, MagicPoseSampler

from .peak_memory import peak_memory
from .published_magicpose import sample_published
from .stopwatch import Stopwatch

GUIDANCE = 7.0
TOKENS = 77
FULL = {"unet": SD15_UNET, "size": (512, 512), "frames": 16, "steps": 2}
MID = FULL | {"unet": SD15_UNET | {"block_out_channels": (64, 128, 256, 256)}, "size": (128, 128)}
SMALL = MID | {
    "unet": SD15_UNET | {"block_out_channels": (32, 64, 64, 64), "cross_attention_dim": 64},
    "size": (64, 64),
}
BATCHES = {"one": (1,), "batched": (16,)}


def _network(build: Any, runtime: Runtime, seed: int) -> torch.nn.Module:
    module = build()
    module.load_state_dict(random_weights(build, seed, runtime.dtype), strict=False)
    return torch.nn.Module.to(module, runtime.dtype).eval().requires_grad_(False)


def _networks(setup: dict, runtime: Runtime, seed: int) -> tuple[SimpleNamespace, SimpleNamespace]:
    """The published networks, whose appearance network runs to its end, and ours with the same weights."""
    config = setup["unet"]
    unet, whole = (_network(partial(build_sd15_unet, config), runtime, seed + k) for k in (0, 1))
    ours = build_appearance(config)
    ours.load_state_dict(whole.state_dict(), strict=False)
    ours = torch.nn.Module.to(ours, runtime.dtype).eval().requires_grad_(False)
    controlnet = _network(partial(build_controlnet, config), runtime, seed + 2)
    published = SimpleNamespace(unet=unet, appearance=whole, controlnet=controlnet)
    return published, SimpleNamespace(unet=unet, appearance=ours, controlnet=controlnet)


def _inputs(setup: dict, seed: int) -> tuple[MagicPoseConditioning, ClipNoise, list[np.ndarray]]:
    generator = torch.Generator().manual_seed(seed)
    height, width = setup["size"]
    latents = torch.randn(2, 1, 4, height // 8, width // 8, generator=generator)
    text = torch.randn(1, TOKENS, setup["unet"]["cross_attention_dim"], generator=generator)
    poses = np.random.default_rng(seed).integers(0, 256, (setup["frames"], height, width, 3), dtype=np.uint8)
    return MagicPoseConditioning(latents[0], text, text), ClipNoise(latents[1]), list(poses)


def _published(setup: dict, networks: Any, inputs: tuple, runtime: Runtime) -> torch.Tensor:
    conditioning, noise, poses = inputs
    tensors = (conditioning.reference, conditioning.text, to_hint(poses), noise.start)
    with runtime.on_device(networks.unet, networks.appearance, networks.controlnet):
        inside = [tensor.to(runtime.device, runtime.dtype) for tensor in tensors]
        steps = schedule(setup["steps"])
        return sample_published(networks, *inside, steps=steps, guidance=GUIDANCE).float().cpu()


def _ours(setup: dict, networks: Any, inputs: tuple, runtime: Runtime, batches: tuple[int, ...]) -> torch.Tensor:
    conditioning, noise, poses = inputs
    used = (networks.unet, networks.appearance, networks.controlnet)
    with runtime.on_device(*used), faster(used[0]), faster(used[1]), faster(used[2]):
        steps = schedule(setup["steps"])
        sampler = MagicPoseSampler(networks, conditioning, noise, steps, guidance=GUIDANCE, batches=batches)
        return sampler.sample(encode_poses(networks.controlnet, poses))


def run(repeats: int = 1, seed: int = 0, setup: dict | None = None) -> dict[str, float]:
    """Sample all ways in turns, best of `repeats`: seconds, ratios, peak memory in MB, and the largest difference.

    The difference is in standard deviations of the published latents; Runtime's defaults choose the device.
    """
    runtime = Runtime()
    setups = {"full" if runtime.device.type == "cuda" else "mid": FULL if runtime.device.type == "cuda" else MID}
    setups |= {"small": SMALL}
    best: dict[str, float] = {}
    with use(runtime):
        for name, each in ({"given": setup} if setup else setups).items():
            for figure, value in _measure(each, runtime, repeats, seed).items():
                best[f"{name}_{figure}"] = value
    return best


def _measure(setup: dict, runtime: Runtime, repeats: int, seed: int) -> dict[str, float]:
    published, ours = _networks(setup, runtime, seed)
    inputs = _inputs(setup, seed)
    ways = {"published": partial(_published, setup, published, inputs, runtime)}
    ways |= {way: partial(_ours, setup, ours, inputs, runtime, batches) for way, batches in BATCHES.items()}
    best: dict[str, float] = {}
    for _ in range(repeats):
        latents = {}
        for way, sample in ways.items():
            stopwatch = Stopwatch()
            with peak_memory(runtime.device) as peak, stopwatch("all"):
                latents[way] = sample()
            best[f"{way}_s"] = min(stopwatch.seconds["all"], best.get(f"{way}_s", float("inf")))
            best[f"{way}_peak_mb"] = max(peak.megabytes, best.get(f"{way}_peak_mb", 0.0))
    for way in BATCHES:
        best[f"{way}_ratio"] = best["published_s"] / best[f"{way}_s"]
        difference = (latents[way] - latents["published"]).abs().max() / latents["published"].std()
        best[f"{way}_max_difference"] = float(difference)
    return best


if __name__ == "__main__":
    for name, value in run().items():
        print(f"{name:32s} {value:12.4g}")
