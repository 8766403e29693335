"""One small job for the tests of MimicMotion in the host, and the core's answer to it."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import torch

from .harness import Host, Value

SIZE = 64, 96
STEPS = 4
SEED = 7
TINY = "tiny (built in)"


def relative(found: torch.Tensor, wanted: torch.Tensor) -> float:
    """Largest difference, as a share of the largest wanted value."""
    return ((found - wanted).abs().max() / wanted.abs().max()).item()


def picture(seed: int = 0) -> np.ndarray:
    """A picture uint8 (H, W, 3) of soft colours."""
    coarse = np.random.default_rng(seed).integers(0, 256, (SIZE[0] // 8, SIZE[1] // 8, 3), dtype=np.uint8)
    return coarse.repeat(8, 0).repeat(8, 1)


def pose_pictures(frames: int, seed: int = 1) -> list[np.ndarray]:
    """Drawings uint8 (H, W, 3), one a frame; the first stands for the pose of the picture."""
    return [picture(100 * seed + frame) for frame in range(frames)]


def image(*pictures: np.ndarray) -> Value:
    """An IMAGE for a node's socket."""
    return Value(torch.from_numpy(np.stack(pictures)).float() / 255)


@lru_cache
def core_networks(host: Host) -> tuple[Any, Any]:
    """The tiny model as the core loads it."""
    return host.module("model_loaders.tiny").load_tiny()


def core(host: Host, poses: list[np.ndarray], start: torch.Tensor | None = None, **settings: Any) -> torch.Tensor:
    """The core's latents (frames, 4, h, w) of the same job, scaled, in float32 and without the host's networks.

    start: unit noise (frames or more, 4, h, w) of the latents, in place of the seed's.
    """
    mimicmotion, runtime = host.module("pipelines.mimicmotion"), host.module("runtime")
    networks, parts = core_networks(host)
    settings = mimicmotion.Settings(**{"steps": STEPS, "seed": SEED} | settings)
    noise = None if start is None else (lambda *shape: padded(start, shape))
    with torch.inference_mode(), runtime.use(runtime.Runtime("cpu", torch.float32)):
        return mimicmotion.generate(networks, parts, picture(), poses, settings, noise=noise)


def padded(noise: torch.Tensor, shape: tuple[int, ...]) -> torch.Tensor:
    """Noise of a shape: the given one for latents, with zeros where it ends; zeros for pictures."""
    values = torch.zeros(shape)
    if len(shape) == 5:
        values[0, : len(noise)] = noise[: shape[1]]
    return values


def core_frames(host: Host, latents: torch.Tensor, chunk: int) -> torch.Tensor:
    """The core's frames (frames - 1, H, W, 3) of scaled latents."""
    runtime, decode = host.module("runtime"), host.module("samplers.decode")
    with torch.inference_mode(), runtime.use(runtime.Runtime("cpu", torch.float32)):
        return torch.stack(list(decode.decode_frames(core_networks(host)[1].vae, latents, chunk, skip=1)))


def unscaled(latents: torch.Tensor) -> torch.Tensor:
    """The core's latents as the host has them."""
    return latents / 0.18215


def loaders() -> dict[str, tuple[str, dict]]:
    """Nodes that load the tiny model: ids "load" and "parts"."""
    return {
        "load": ("ChoreoLoadMimicMotion", {"weights": TINY}),
        "parts": ("ChoreoLoadSVDParts", {"folder": TINY}),
    }


def clip(poses: list[np.ndarray], shown: np.ndarray | None = None, **widgets: Any) -> dict[str, Any]:
    """Inputs of the conditioning and of the all-in-one node, after :func:`loaders`."""
    return {
        "model": ("load", 0),
        "vae": ("parts", 0),
        "clip_vision": ("parts", 1),
        "picture": image(picture() if shown is None else shown),
        "reference_pose": image(poses[0]),
        "poses": image(*poses[1:]),
        **widgets,
    }
