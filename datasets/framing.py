"""Frames and poses of a video at the size of a clip."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image

from ..pose.draw import draw_clip
from ..pose.poses import Poses

FITS = ("cover", "stretch")


@dataclass(frozen=True)
class Framing:
    """The part of a picture that is shown, and the size it gets.

    box:  left, top, right, bottom as shares of the picture.
    size: (height, width) in pixels.
    """

    box: tuple[float, float, float, float]
    size: tuple[int, int]

    @classmethod
    def of(cls, source: tuple[int, int], size: tuple[int, int], fit: str = "cover") -> Framing:
        """For pictures of `source` (height, width).

        fit: "cover" keeps the figure's proportions and cuts the same off both ends of what is too long; "stretch" shows
        the whole picture, squeezed, as the published trainers do.
        """
        if fit not in FITS:
            raise ValueError(f"Unknown way to fit frames {fit!r}; choose one of {', '.join(FITS)}.")
        if fit == "stretch":
            return cls((0.0, 0.0, 1.0, 1.0), size)
        wider = (source[1] / source[0]) / (size[1] / size[0])
        x, y = max(0.0, 1 - 1 / wider) / 2, max(0.0, 1 - wider) / 2
        return cls((x, y, 1 - x, 1 - y), size)

    def picture(self, picture: np.ndarray) -> np.ndarray:
        """uint8 (h, w, 3) -> uint8 (height, width, 3), bilinear with antialias."""
        height, width = picture.shape[:2]
        box = tuple(share * side for share, side in zip(self.box, (width, height, width, height), strict=True))
        resized = Image.fromarray(picture).resize(self.size[::-1], Image.Resampling.BILINEAR, box=box)
        return np.asarray(resized)

    def pictures(self, pictures: Iterable[np.ndarray]) -> np.ndarray:
        """uint8 (F, height, width, 3), one after another."""
        return np.stack([self.picture(picture) for picture in pictures])

    def poses(self, poses: Poses) -> Poses:
        """The same people as shares of the part that is shown."""
        left, top, right, bottom = self.box
        points = (poses.points - (left, top)) / (right - left, bottom - top)
        return replace(poses, points=points, size=self.size)


def draw_poses(poses: Poses, style: str) -> np.ndarray:
    """uint8 (F, height, width, 3) RGB drawings at the size of the poses, in a style of docs/drawing.md."""
    return np.stack(list(draw_clip(poses, poses.size, style)))
