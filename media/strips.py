"""Pictures of clips: some of their frames side by side."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain
from pathlib import Path

import cv2
import numpy as np

from .write import VideoWriter

STRIP_FRAMES = 6
GAP = 2  # white pixels between pictures


def strip(reference: np.ndarray, rows: Sequence[np.ndarray], num_frames: int = STRIP_FRAMES) -> np.ndarray:
    """uint8 RGB: the reference (H, W, 3) at the left, beside it some frames of each clip (F, H, W, 3), one a row."""
    count = min(len(row) for row in rows)
    chosen = np.unique(np.linspace(0, count - 1, min(num_frames, count)).round().astype(int))
    blank = np.full_like(reference, 255)
    lines = [[reference if r == 0 else blank, *row[chosen]] for r, row in enumerate(rows)]
    return np.vstack([np.hstack([_framed(picture) for picture in line]) for line in lines])[:-GAP, :-GAP]


def write_side_by_side(path: Path, fps: float, *rows: Iterable[np.ndarray]) -> None:
    """Write an MP4 of several clips (F, H, W, 3), uint8 RGB, beside each other; as long as the shortest.

    A picture that stays is `itertools.repeat(picture)`. Raises ValueError when a clip has no frame.
    """
    frames = (np.hstack(pictures) for pictures in zip(*rows, strict=False))
    first = next(frames, None)
    if first is None:
        raise ValueError(f"There is no frame to write to {path}.")
    path.parent.mkdir(parents=True, exist_ok=True)
    with VideoWriter(path, first.shape[:2], fps) as writer:
        for frame in chain([first], frames):
            writer.write(frame)


def resized(picture: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """uint8 (*size, 3): the picture at another size (height, width); made smaller by averaging."""
    return cv2.resize(picture, size[::-1], interpolation=cv2.INTER_AREA)


def _framed(picture: np.ndarray) -> np.ndarray:
    return np.pad(picture, ((0, GAP), (0, GAP), (0, 0)), constant_values=255)
