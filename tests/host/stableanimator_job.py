"""One small job for the tests of StableAnimator in the host, and the core's answer to it."""

from __future__ import annotations

from functools import lru_cache, partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from .harness import Host, Value
from .svd_job import STEPS, image, padded, picture

WIDTH = 512  # of a face identity
ARCFACE = {"layers": (1, 1), "widths": (8, 16), "stem": 8, "embedding": 32, "size": 32}
ARCFACE_FILE = "glintr100_torch.pth"
UNET_FILE, SVD_FOLDER = "stableanimator/unet.safetensors", "svd"


@lru_cache
def written(host: Host) -> Path:
    """A folder with an untrained StableAnimator, SVD's parts and ArcFace, in the layouts of the real files."""
    folder = host.folder / "untrained"
    host.module("model_loaders.untrained").write_untrained(folder, system="stableanimator")
    build = partial(host.module("networks.arcface").IResNet, **ARCFACE)
    arcface = host.module("model_loaders.random_weights").random_weights(build, seed=5, dtype=torch.float32)
    for name, tensor in arcface.items():
        if name.endswith(("running_var", "running_mean")):
            tensor.fill_(name.endswith("var"))
    torch.save(arcface, folder / ARCFACE_FILE)
    return folder


def give_files(host: Host, monkeypatch: Any, folder: Path | None = None) -> Path:
    """Let the host's model folders be one with StableAnimator's files; returns it."""
    import folder_paths

    folder = folder or written(host)
    for key in ("stable_animator", "diffusers"):
        monkeypatch.setitem(folder_paths.folder_names_and_paths, key, ([str(folder)], {".safetensors", ".pth"}))
    folder_paths.filename_list_cache.clear()
    return folder


def face(seed: int = 4) -> np.ndarray:
    """The embedding of somebody's face, as long as ArcFace's usually are."""
    return 20 * np.random.default_rng(seed).standard_normal(WIDTH, dtype=np.float32) / WIDTH**0.5


def loaders() -> dict[str, tuple[str, dict]]:
    """Nodes that load StableAnimator: ids "load" and "parts"."""
    return {
        "load": ("ChoreoLoadStableAnimator", {"weights": UNET_FILE}),
        "parts": ("ChoreoLoadSVDParts", {"folder": SVD_FOLDER}),
    }


def clip(poses: list[np.ndarray], shown: np.ndarray | None = None, seed: int = 4, **widgets: Any) -> dict[str, Any]:
    """Inputs of the conditioning, after :func:`loaders`."""
    return {
        "model": ("load", 0),
        "vae": ("parts", 0),
        "clip_vision": ("parts", 1),
        "picture": image(picture() if shown is None else shown),
        "poses": image(*poses),
        "face": Value(SimpleNamespace(embedding=face(seed))),
        **widgets,
    }


@lru_cache
def core_networks(host: Host) -> tuple[Any, Any]:
    """The same files as the core loads them."""
    load, parts = host.module("model_loaders.stableanimator"), host.module("model_loaders.svd")
    folder = written(host)
    return load.load_stableanimator(folder / "stableanimator"), parts.load_svd_parts(folder / "svd")


def core(
    host: Host, poses: list[np.ndarray], start: torch.Tensor, seed: int = 4, refine: Any = None, **settings: Any
) -> torch.Tensor:
    """The core's latents (frames, 4, h, w) of the same job, scaled, in float32 and without the host's networks.

    start: unit noise (frames or more, 4, h, w) of the latents. seed: of the face.
    """
    stableanimator, runtime = host.module("pipelines.stableanimator"), host.module("runtime")
    settings = stableanimator.Settings(**{"steps": STEPS} | settings)
    with torch.no_grad(), runtime.use(runtime.Runtime("cpu", torch.float32)):
        return stableanimator.generate(
            *core_networks(host),
            picture(),
            poses,
            settings,
            identity=face(seed),
            noise=lambda *shape: padded(start, shape),
            refine=refine,
        )
