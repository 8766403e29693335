"""Frames and poses of a video at the size of a clip."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image

from ..pose.draw import draw_clip
from ..pose.poses import Poses

FITS = ("cover", "stretch")
FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


@dataclass(frozen=True)
class Framing:
    """The part of a picture that is shown, and the size it gets.

    box:  left, top, right, bottom as shares of the picture.
    size: (height, width) in pixels.
    resampling: the filter, one of :data:`FILTERS`, always with antialias.
    """

    box: tuple[float, float, float, float]
    size: tuple[int, int]
    resampling: str = "bilinear"

    @classmethod
    def of(
        cls, source: tuple[int, int], size: tuple[int, int], fit: str = "cover", resampling: str = "bilinear"
    ) -> Framing:
        """For pictures of `source` (height, width).

        fit: "cover" keeps the figure's proportions and cuts the same off both ends of what is too long; "stretch" shows
        the whole picture, squeezed, as the published trainers do.
        """
        if fit not in FITS:
            raise ValueError(f"Unknown way to fit frames {fit!r}; choose one of {', '.join(FITS)}.")
        if fit == "stretch":
            return cls((0.0, 0.0, 1.0, 1.0), size, resampling)
        wider = (source[1] / source[0]) / (size[1] / size[0])
        x, y = max(0.0, 1 - 1 / wider) / 2, max(0.0, 1 - wider) / 2
        return cls((x, y, 1 - x, 1 - y), size, resampling)

    def part(self, area: float, generator: np.random.Generator) -> Framing:
        """A random part of it with the same proportions; its area is a random share of this one, `area` to 1."""
        side = generator.uniform(area, 1) ** 0.5
        left, top, right, bottom = self.box
        width, height = (right - left) * side, (bottom - top) * side
        left, top = generator.uniform(left, right - width), generator.uniform(top, bottom - height)
        return replace(self, box=(left, top, left + width, top + height))

    def picture(self, picture: np.ndarray) -> np.ndarray:
        """uint8 (h, w, 3) -> uint8 (height, width, 3); masks (h, w) -> (height, width)."""
        height, width = picture.shape[:2]
        box = tuple(share * side for share, side in zip(self.box, (width, height, width, height), strict=True))
        resized = Image.fromarray(picture).resize(self.size[::-1], FILTERS[self.resampling], box=box)
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
