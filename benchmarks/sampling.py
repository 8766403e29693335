"""How much faster than the published loop are sampling and decoding, with the same answer?

A mid-size configuration on the CPU, MimicMotion's full size when a CUDA device is there; random weights.
:mod:`.stableanimator` is the same with an identity adapter and face tokens.
"""

from __future__ import annotations

from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from choreo.conditioning.picture import to_signed
from choreo.conditioning.svd import SVDConditioning, added_time_ids, encode_poses
from choreo.model_loaders.random_weights import random_weights
from choreo.networks.pose_net import PoseNet
from choreo.networks.speedups import faster
from choreo.networks.svd_unet import SVD_XT, build_unet, predict
from choreo.networks.video_vae import SVD_VAE, build_video_vae
from choreo.runtime import Runtime, use
from choreo.samplers.decode import decode_frames
from choreo.samplers.sigmas import karras_sigmas
from choreo.samplers.svd import sample_svd

from .peak_memory import peak_memory
from .published_sampling import sample_published
from .stopwatch import Stopwatch

GUIDANCE = 2.0
STAGES = ("pose features", "UNet", "decode")
FULL = {
    "unet": SVD_XT,
    "vae": SVD_VAE,
    "size": (1024, 576),
    "frames": 30,
    "window": 16,
    "overlap": 6,
    "steps": 2,
    "build_unet": build_unet,
    "tokens": 1,  # of the context
}
MID = (
    FULL
    | {  # a fifth of the width at a third of the side: about the shares of attention and convolution at full size
        "unet": SVD_XT | {"block_out_channels": (64, 128, 256, 256), "num_attention_heads": (1, 2, 4, 4)},
        "vae": SVD_VAE | {"block_out_channels": (32, 64, 128, 128)},
        "size": (320, 256),
        "frames": 13,
        "window": 8,
        "overlap": 3,
    }
)


def _network(build: Any, runtime: Runtime, seed: int) -> torch.nn.Module:
    module = build()
    module.load_state_dict(random_weights(build, seed, runtime.dtype))
    return torch.nn.Module.to(module, runtime.dtype).eval().requires_grad_(False)


def _inputs(setup: dict, networks: Any, seed: int) -> tuple[SVDConditioning, list[np.ndarray], torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    height, width = setup["size"]
    latent_size = (height // 8, width // 8)
    poses = list(np.random.default_rng(seed).integers(0, 256, (setup["frames"], height, width, 3), dtype=np.uint8))
    conditioning = SVDConditioning(
        torch.randn(1, setup["tokens"], setup["unet"]["cross_attention_dim"], generator=generator),
        torch.randn(1, 4, *latent_size, generator=generator),
        added_time_ids(7, 127, 0.0),
        [],
    )
    return conditioning, poses, torch.randn(1, setup["window"], 4, *latent_size, generator=generator)


def _published(setup: dict, networks: Any, inputs: tuple, runtime: Runtime, stopwatch: Stopwatch) -> torch.Tensor:
    conditioning, poses, noise = inputs
    pixels = torch.from_numpy(np.stack(poses)).permute(0, 3, 1, 2)
    with runtime.on_device(networks.unet, networks.pose_net):
        latents = sample_published(
            networks,
            conditioning,
            to_signed(pixels).to(runtime.device, runtime.dtype),
            noise[0].to(runtime.device),
            sigmas=karras_sigmas(setup["steps"]),
            overlap=setup["overlap"],
            guidance=GUIDANCE,
            stopwatch=stopwatch,
        )
    return latents.cpu()


def _ours(setup: dict, networks: Any, inputs: tuple, runtime: Runtime, stopwatch: Stopwatch) -> torch.Tensor:
    conditioning, poses, noise = inputs
    with stopwatch("pose features"):
        features = encode_poses(networks.pose_net, poses, setup["size"])
    conditioning = SVDConditioning(
        conditioning.image_embeds, conditioning.image_latents, conditioning.time_ids, features
    )

    def timed(*arguments: Any, **keywords: Any) -> torch.Tensor:
        with stopwatch("UNet"):
            return predict(networks.unet, *arguments, **keywords)

    with runtime.on_device(networks.unet), faster(networks.unet):
        return sample_svd(
            timed,
            conditioning,
            lambda *_shape: noise,
            sigmas=karras_sigmas(setup["steps"]),
            window=setup["window"],
            overlap=setup["overlap"],
            guidance=(GUIDANCE, GUIDANCE),
        )


def _decode(vae: Any, latents: torch.Tensor, runtime: Runtime, published: bool, stopwatch: Stopwatch) -> torch.Tensor:
    if not published:
        with stopwatch("decode"):
            return torch.stack(list(decode_frames(vae, latents)))
    with torch.no_grad(), runtime.on_device(vae), stopwatch("decode"):
        chunks = (latents / vae.config.scaling_factor).to(runtime.device, runtime.dtype).split(8)
        frames = torch.cat([vae.decode(z, num_frames=len(z)).sample.float().cpu() for z in chunks])
    return (frames / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1)


def _largest_difference(ours: torch.Tensor, published: torch.Tensor) -> float:
    return float((ours - published).abs().max() / published.std())


def run(repeats: int = 2, seed: int = 0, changes: dict | None = None) -> dict[str, float]:
    """Sample and decode both ways in turns, best of `repeats`.

    changes: to the setup.
    In float32 the smallest step of the first latents (sigma 700) is 2.4e-4; differences of that size are rounding.

    Returns seconds per stage and way, the ratios, the largest difference in standard deviations of the published
    result, and peak memory of sampling in MB (on the CPU a rough figure); Runtime's defaults choose the device.
    """
    runtime = Runtime()
    setup = (FULL if runtime.device.type == "cuda" else MID) | (changes or {})
    width = setup["unet"]["block_out_channels"][0]
    networks = SimpleNamespace(
        unet=_network(partial(setup["build_unet"], setup["unet"]), runtime, seed),
        pose_net=_network(partial(PoseNet, width), runtime, seed + 1),
    )
    vae = _network(partial(build_video_vae, setup["vae"]), runtime, seed + 2)
    inputs = _inputs(setup, networks, seed)
    ways = {"published": _published, "ours": _ours}
    best: dict[str, float] = {}
    with use(runtime):
        for _ in range(repeats):
            results = {}
            for way, sample in ways.items():
                stopwatch = Stopwatch()
                with peak_memory(runtime.device) as peak, stopwatch("sampling"):
                    latents = sample(setup, networks, inputs, runtime, stopwatch)
                frames = _decode(vae, latents, runtime, way == "published", stopwatch)
                results[way] = latents, frames
                measured = {f"{way}_{stage}_s": seconds for stage, seconds in stopwatch.seconds.items()}
                best |= {name: min(value, best.get(name, value)) for name, value in measured.items()}
                peak_name = f"{way}_peak_mb"
                best[peak_name] = max(peak.megabytes, best.get(peak_name, 0.0))
    for stage in ("sampling", *STAGES):
        best[f"{stage}_ratio"] = best[f"published_{stage}_s"] / best[f"ours_{stage}_s"]
    best["latents_max_difference"] = _largest_difference(results["ours"][0], results["published"][0])
    best["frames_max_difference"] = _largest_difference(results["ours"][1], results["published"][1])
    return best


if __name__ == "__main__":
    for name, value in run().items():
        print(f"{name:32s} {value:12.4g}")
