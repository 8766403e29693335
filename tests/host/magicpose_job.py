"""One small job for the tests of MagicPose in the host, and the core's answer to it."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from .harness import Host
from .svd_job import SEED, SIZE, image, picture

MAGICPOSE_FILE = "MagicPose_untrained.safetensors"
STEPS = 2
CFG = 5.0
LATENT = (4, SIZE[0] // 8, SIZE[1] // 8)


@lru_cache
def written(host: Host) -> Path:
    """The file of an untrained MagicPose, as the real one is."""
    return host.module("model_loaders.untrained_magicpose").write_untrained_magicpose(host.folder / "untrained")


def give_files(host: Host, monkeypatch: Any, folder: Path | None = None) -> Path:
    """Let the host's model folder be one with MagicPose's file; returns it."""
    import folder_paths

    folder = folder or written(host).parent
    suffixes = {".safetensors", ".th"}
    monkeypatch.setitem(folder_paths.folder_names_and_paths, "magicpose", ([str(folder)], suffixes))
    folder_paths.filename_list_cache.clear()
    return folder


@lru_cache
def core_networks(host: Host) -> tuple[Any, Any]:
    """The same file as the core loads it, with the host's vocabulary of texts."""
    networks, parts = host.module("model_loaders.magicpose").load_magicpose(written(host))
    return networks, replace(parts, tokenizer=host.checkout / "comfy" / "sd1_tokenizer")


def core(
    host: Host, poses: list[np.ndarray], start: torch.Tensor, shown: np.ndarray | None = None, **settings: Any
) -> tuple[torch.Tensor, torch.Tensor]:
    """The core's latents (frames, 4, h, w) of the same job, scaled, and the denoised ones of its last step.

    start: (1, 4, h, w) latents of the first step, in the scale of DDIM.
    """
    magicpose, runtime = host.module("pipelines.magicpose"), host.module("runtime")
    settings = {"steps": STEPS, "guidance": CFG, "sample_posterior": False} | settings
    denoised = []

    class Watching(runtime.Runtime):
        def preview(self, latents: torch.Tensor) -> None:
            denoised.append(latents)

    shown = picture() if shown is None else shown
    with torch.inference_mode(), runtime.use(Watching("cpu", torch.float32)):
        latents = magicpose.generate(
            *core_networks(host), shown, poses, magicpose.MagicPoseSettings(**settings), noise=lambda *_shape: start
        )
    return latents, denoised[-1]


def start_of(host: Host, noise: torch.Tensor, steps: int = STEPS) -> torch.Tensor:
    """Where the host's ddim starts from noise (4, h, w), in the scale of DDIM: its share of noise is below 1."""
    first = host.module("samplers.ddim").schedule(steps).alphas[0]
    return (1 - first).sqrt().float() * noise[None]


def stock_noise(seed: int = SEED) -> torch.Tensor:
    """The noise that the host's samplers start the first frame from."""
    return torch.randn(1, *LATENT, generator=torch.Generator().manual_seed(seed))[0]


def loaders(text: str = "") -> dict[str, tuple[str, dict]]:
    """Nodes that load MagicPose and encode a text: ids "load" and "text"."""
    return {
        "load": ("ChoreoLoadMagicPose", {"weights": MAGICPOSE_FILE}),
        "text": ("CLIPTextEncode", {"clip": ("load", 3), "text": text}),
    }


def networks() -> dict[str, Any]:
    """Inputs of both nodes that apply an appearance."""
    return {"model": ("load", 0), "appearance": ("load", 1), "vae": ("load", 4), "picture": image(picture())}


def clip(poses: list[np.ndarray], **changed: Any) -> dict[str, Any]:
    """Inputs of the conditioning, after :func:`loaders`."""
    more = {"control_net": ("load", 2), "positive": ("text", 0), "poses": image(*poses)}
    return networks() | more | changed


def ksampler(model: tuple[str, int], positive: tuple, negative: tuple, latent: tuple, **changed: Any) -> dict:
    """Inputs of the host's KSampler with the published sampler."""
    return {
        "model": model,
        "positive": positive,
        "negative": negative,
        "latent_image": latent,
        "seed": SEED,
        "steps": STEPS,
        "cfg": CFG,
        "sampler_name": "ddim",
        "scheduler": "ddim_uniform",
        "denoise": 1.0,
    } | changed


def our_graph(poses: list[np.ndarray], sampling: dict | None = None, **changed: Any) -> dict:
    """MagicPose Conditioning and the host's KSampler."""
    slots = [("condition", slot) for slot in range(4)]
    return loaders() | {
        "condition": ("ChoreoMagicPoseConditioning", clip(poses, **changed)),
        "sampled": ("KSampler", ksampler(*slots, **sampling or {})),
    }


def stock_graph(poses: list[np.ndarray], sampling: dict | None = None, **changed: Any) -> dict:
    """Apply Appearance, the stock Apply ControlNet, and the host's KSampler."""
    control = {"positive": ("text", 0), "negative": ("text", 0), "control_net": ("load", 2), "image": image(*poses)}
    size = {"width": SIZE[1], "height": SIZE[0], "batch_size": len(poses)}
    inputs = [("applied", 0), ("control", 0), ("control", 1), ("empty", 0)]
    return loaders() | {
        "applied": ("ChoreoApplyAppearance", networks() | changed),
        "control": ("ControlNetApplyAdvanced", control),
        "empty": ("EmptyLatentImage", size),
        "sampled": ("KSampler", ksampler(*inputs, **sampling or {})),
    }


def sampled(host: Host, graph: dict) -> torch.Tensor:
    """The latents of the node "sampled", not scaled."""
    result = host.queue(graph)
    assert result.error is None, result.error
    return result.outputs["sampled"][0]["samples"]
