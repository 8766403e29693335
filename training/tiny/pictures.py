"""Batches of puppets for the small networks."""

from __future__ import annotations

from collections.abc import Iterator

import cv2
import numpy as np
import torch

from ...datasets.puppets import Puppets, render
from ...datasets.puppets.character import Character
from ...datasets.puppets.motion import draw_motion
from ...pose.poses import Poses


def clips(puppets: Puppets, number: int, shape: tuple[int, int, int], crop: int | None = None) -> torch.Tensor:
    """float32 (count, frames, 3, side, side) in [-1, 1]: batch `number` of consecutive frames of puppets.

    shape: count, frames and the side of a whole picture.
    crop: side of a window at a random joint, the same for all frames of a clip; None keeps whole pictures.
    """
    count, frames, size = shape
    rng = np.random.default_rng([number, count, frames])
    batch = []
    for i in range(count):
        character = puppets.character(number * count + i)
        pictures, poses = render(character, draw_motion(rng), frames, (size, size), float(rng.uniform(0, 100)))
        if crop is not None:
            joint = rng.choice(poses.points[0, 0, :18]) * size + rng.uniform(-12, 12, 2)
            left, top = np.clip(joint - crop / 2, 0, size - crop).astype(int)
            pictures = pictures[:, top : top + crop, left : left + crop]
        batch.append(torch.from_numpy(pictures.copy()))
    return torch.stack(batch).movedim(-1, 2).float() / 127.5 - 1


def stills(puppets: Puppets, number: int, count: int, size: int) -> Iterator[tuple[Character, np.ndarray, Poses]]:
    """Batch `number`: puppets, a picture uint8 (size, size, 3) of each, and its poses, of one frame."""
    rng = np.random.default_rng([number, count])
    for i in range(count):
        character = puppets.character(number * count + i)
        pictures, poses = render(character, draw_motion(rng), 1, (size, size), float(rng.uniform(0, 100)))
        yield character, pictures[0], poses


def spoiled(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The picture as a generator or a video might have it: sometimes blurred, noisy, paler."""
    out = picture.astype(np.float32)
    if rng.random() < 0.5:
        out = cv2.GaussianBlur(out, (0, 0), float(rng.uniform(0.4, 2.2)))
    if rng.random() < 0.4:
        coarse = rng.normal(0, rng.uniform(2, 14), (picture.shape[0] // 4, picture.shape[1] // 4, 3))
        out += cv2.resize(coarse.astype(np.float32), picture.shape[1::-1], interpolation=cv2.INTER_CUBIC)
    out = (out - 128) * rng.uniform(0.8, 1.15) + 128 + rng.uniform(-15, 15, 3).astype(np.float32)
    return out.clip(0, 255).round().astype(np.uint8)
