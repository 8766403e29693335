"""Clips of people as pose data, made from where each person is in every frame."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from choreo.pose.poses import NUM_POINTS, Poses

SIZE = (200, 400)  # height, width
_FIGURE = np.random.default_rng(7).uniform(-0.5, 0.5, (NUM_POINTS, 2)) * (0.5, 1.0)  # twice as high as wide

Person = tuple[float, float, float] | None  # x and y of the centre, height; pixels. None: not found


def figure(x: float, y: float, height: float) -> np.ndarray:
    """(134, 2) points as shares."""
    return (np.array([x, y]) + _FIGURE * height) / (SIZE[1], SIZE[0])


def clip(frames: Sequence[Sequence[Person]], score: float = 0.9, fps: float | None = 25.0) -> Poses:
    """frames[f][p] is the p-th found person of frame f; None is left out, so that later people move up."""
    people = [[figure(*person) for person in frame if person is not None] for frame in frames]
    pairs = [(np.reshape(found, (-1, NUM_POINTS, 2)), np.full((len(found), NUM_POINTS), score)) for found in people]
    return Poses.from_frames(pairs, SIZE, fps)


def centres(poses: Poses, slot: int = 0) -> np.ndarray:
    """(frames, 2) mean of the points in pixels relative to the figure's own mean, NaN where nobody is."""
    middle = poses.pixels()[:, slot].mean(axis=1)
    return np.where(poses.present[:, slot, None], middle, np.nan)
