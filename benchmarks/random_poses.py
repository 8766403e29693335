"""Random figures for benchmarks and tests: roughly human, any score, partly outside the picture."""

from __future__ import annotations

import numpy as np

# an upright figure in shares of its box: nose, neck, right arm, left arm, right leg, left leg, eyes, ears
STANDING = np.array(
    [
        *((0.5, 0.10), (0.5, 0.20), (0.36, 0.21), (0.26, 0.36), (0.22, 0.50), (0.64, 0.21), (0.74, 0.36), (0.78, 0.50)),
        *((0.42, 0.52), (0.41, 0.74), (0.40, 0.95), (0.58, 0.52), (0.59, 0.74), (0.60, 0.95)),
        *((0.48, 0.08), (0.52, 0.08), (0.45, 0.09), (0.55, 0.09)),
    ]
)


def random_figure(random: np.random.Generator) -> np.ndarray:
    """(134, 2) points of one figure, in shares of the picture; now and then it leaves it."""
    body = STANDING + random.normal(0, 0.02, (18, 2))
    feet = np.repeat(body[[13, 10]], 3, axis=0) + random.normal(0, 0.02, (6, 2))
    face = body[0] + random.uniform(-0.05, 0.05, (68, 2))
    hands = [body[wrist] + np.cumsum(random.normal(0, 0.012, (21, 2)), axis=0) for wrist in (7, 4)]
    figure = np.concatenate([body, feet, face, *hands])
    return (figure - 0.5) * random.uniform(0.5, 1.4) + 0.5 + random.normal(0, 0.15, 2)


def random_frame(random: np.random.Generator, people: int) -> tuple[np.ndarray, np.ndarray]:
    """points (people, 134, 2) and scores (people, 134) between -0.1 and 1.3."""
    points = np.stack([random_figure(random) for _ in range(people)])
    return points, random.uniform(-0.1, 1.3, (people, 134))


def likely_frame(random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """One person as a detector sees them: inside the picture, nearly everything found."""
    figure = random_figure(random)
    low, high = figure.min(axis=0), figure.max(axis=0)
    inside = (figure - low) / (high - low) * (0.7, 0.9) + (0.15, 0.05)
    return inside[None], random.uniform(0.5, 1.05, (1, 134))
