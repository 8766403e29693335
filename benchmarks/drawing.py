"""How much faster than the published way are MimicMotion's pictures drawn, pixel for pixel the same?"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
from choreo.pose.draw import Renderer

from .published_drawing import draw_published
from .random_poses import likely_frame

Frame = tuple[np.ndarray, np.ndarray]


def _median_seconds(draw: Callable[[Frame], np.ndarray], frames: list[Frame]) -> float:
    seconds = []
    for frame in frames:
        start = time.perf_counter()
        draw(frame)
        seconds.append(time.perf_counter() - start)
    return float(np.median(seconds))


def run(num_frames: int = 20, size: tuple[int, int] = (1024, 576), seed: int = 0) -> dict[str, float]:
    """Draw the same random frames both ways, in turns; raises AssertionError when a pixel differs.

    Returns published_ms and ours_ms, the median milliseconds a frame, and their ratio.
    """
    random = np.random.default_rng(seed)
    frames = [likely_frame(random) for _ in range(num_frames)]
    renderer = Renderer("mimicmotion", size)
    for points, scores in frames[:2]:
        assert np.array_equal(renderer.draw(points, scores), draw_published(points, scores, size)), "pixels differ"
    published = _median_seconds(lambda frame: draw_published(*frame, size), frames)
    ours = _median_seconds(lambda frame: renderer.draw(*frame), frames)
    return {"published_ms": published * 1e3, "ours_ms": ours * 1e3, "ratio": published / ours}
