"""Pictures and videos of what was evaluated, for the eye."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..datasets.clips import Clip
from ..media.pictures import save_picture
from ..media.write import VideoWriter

STRIP_FRAMES = 6
GAP = 2  # white pixels between pictures


@dataclass(frozen=True)
class Examples:
    """Writes the first clips, and every reference, into a folder.

    For a clip `clip_N.mp4` (reference, pose, result and truth side by side) and `clip_N.png` (the reference, and rows
    of poses, result and truth); for a reference `reference_N.png` (it, and the motion that it got).
    """

    folder: Path
    clips: int = 4

    def __call__(self, key: str, clip: Clip, frames: np.ndarray) -> None:
        """Take part in :func:`.protocol.evaluate` as `show`."""
        kind, number = key.split()
        path = self.folder / f"{kind}_{int(number):02d}"
        if kind == "reference":
            save_picture(path.with_suffix(".png"), strip(clip.reference, [clip.pose_pictures, frames]))
        elif int(number) < self.clips:
            rows = [clip.pose_pictures, frames, clip.frames]
            save_picture(path.with_suffix(".png"), strip(clip.reference, rows))
            _save_video(path.with_suffix(".mp4"), clip, rows)


def strip(reference: np.ndarray, rows: list[np.ndarray], num_frames: int = STRIP_FRAMES) -> np.ndarray:
    """uint8 RGB: the reference (H, W, 3) at the left, beside it some frames of each clip (F, H, W, 3), one a row."""
    count = len(rows[0])
    chosen = np.unique(np.linspace(0, count - 1, min(num_frames, count)).round().astype(int))
    blank = np.full_like(reference, 255)
    lines = [[reference if r == 0 else blank, *row[chosen]] for r, row in enumerate(rows)]
    return np.vstack([np.hstack([_framed(picture) for picture in line]) for line in lines])[:-GAP, :-GAP]


def _framed(picture: np.ndarray) -> np.ndarray:
    return np.pad(picture, ((0, GAP), (0, GAP), (0, 0)), constant_values=255)


def _save_video(path: Path, clip: Clip, rows: list[np.ndarray]) -> None:
    height, width = clip.reference.shape[:2]
    path.parent.mkdir(parents=True, exist_ok=True)
    with VideoWriter(path, (height, 4 * width), clip.fps) as writer:
        for pictures in zip(*rows, strict=True):
            writer.write(np.hstack([clip.reference, *pictures]))
