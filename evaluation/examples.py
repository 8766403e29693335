"""Pictures and videos of what was evaluated, for the eye."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import repeat
from pathlib import Path

import numpy as np

from ..datasets.clips import Clip
from ..media.pictures import save_picture
from ..media.strips import strip, write_side_by_side


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
            write_side_by_side(path.with_suffix(".mp4"), clip.fps, repeat(clip.reference), *rows)
