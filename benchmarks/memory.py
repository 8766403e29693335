"""Is memory flat in the length of the clip, apart from latents and pose features on the CPU?"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from choreo.model_loaders.tiny import load_tiny
from choreo.pipelines.mimicmotion import Settings, animate
from choreo.pipelines.preflight import LATENT_COPIES
from choreo.runtime import Runtime, use

from .peak_memory import peak_memory

SIZE = (128, 128)


def _pictures(frames: int) -> Iterator[np.ndarray]:
    random = np.random.default_rng(0)
    for _ in range(frames):
        yield random.integers(0, 256, (*SIZE, 3), dtype=np.uint8)


def run(lengths: tuple[int, ...] = (16, 128, 512)) -> dict[str, float]:
    """Animate clips of several lengths with the tiny model, one step each.

    Returns per length the peak in MB above the start, what latents and features account for, and the rest, which
    must not grow with the length.
    """
    networks, parts = load_tiny()
    picture = next(_pictures(1))
    settings = Settings(steps=1)
    results: dict[str, float] = {}
    with use(Runtime()) as runtime:
        for length in (lengths[0], *lengths):  # once more at first, to warm up
            with peak_memory(runtime.device) as peak:
                for _frame in animate(networks, parts, picture, _pictures(length + 1), settings):
                    pass
            values = SIZE[0] // 8 * (SIZE[1] // 8) * length
            channels = networks.unet.config.block_out_channels[0]
            feature_bytes = values * channels * torch.finfo(runtime.dtype).bits / 8
            on_cpu = (feature_bytes + values * 4 * 4 * LATENT_COPIES) / 1e6 if runtime.device.type == "cpu" else 0.0
            results |= {
                f"{length}_frames_peak_mb": peak.megabytes,
                f"{length}_frames_latents_and_features_mb": on_cpu,
                f"{length}_frames_rest_mb": peak.megabytes - on_cpu,
            }
    return results


if __name__ == "__main__":
    for name, value in run().items():
        print(f"{name:40s} {value:10.4g}")
