"""How much faster than the published way are MimicMotion's pictures drawn, pixel for pixel the same?"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
from choreo.pose.draw import Renderer

from .published_drawing import draw_published
from .random_poses import likely_frame

Frame = tuple[np.ndarray, np.ndarray]


def _draw(draw: Callable[..., np.ndarray], frames: list[Frame]) -> tuple[list[np.ndarray], float]:
    """The drawings, and the median milliseconds of one."""
    drawings, seconds = [], []
    for points, scores in frames:
        start = time.perf_counter()
        drawings.append(draw(points, scores))
        seconds.append(time.perf_counter() - start)
    return drawings, float(np.median(seconds)) * 1e3


def run(num_frames: int = 20, size: tuple[int, int] = (1024, 576), seed: int = 0, repeats: int = 3) -> dict[str, float]:
    """Draw the same random frames both ways, in turns; raises AssertionError when a pixel differs.

    Returns published_ms and ours_ms, the median milliseconds a frame in the best of the repeats (what else the machine
    does disturbs the short times most), and their ratio.
    """
    random = np.random.default_rng(seed)
    frames = [likely_frame(random) for _ in range(num_frames)]
    renderer, ours_ms, published_ms = Renderer("mimicmotion", size, published=True), np.inf, np.inf
    for _ in range(repeats):
        ours, milliseconds = _draw(renderer.draw, frames)
        ours_ms = min(ours_ms, milliseconds)
        published, milliseconds = _draw(lambda points, scores: draw_published(points, scores, size), frames)
        published_ms = min(published_ms, milliseconds)
        assert all(map(np.array_equal, ours, published)), "the pixels differ"
    return {"published_ms": published_ms, "ours_ms": ours_ms, "ratio": published_ms / ours_ms}
