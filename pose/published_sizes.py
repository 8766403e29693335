"""Sizes that controlnet_aux and Moore-AnimateAnyone detect, draw and hand out at (docs/drawing.md)."""

from __future__ import annotations

import cv2
import numpy as np

from .draw import Renderer
from .wholebody import best_person

_MULTIPLE = 64


def resize_controlnet_aux(picture: np.ndarray, resolution: int = 512) -> tuple[np.ndarray, tuple[int, int]]:
    """controlnet_aux's resize: (padded uint8 picture, (height, width) of the part that is not padding).

    The short side becomes `resolution` (cubic when enlarging, by area when shrinking), the sides are padded on the
    right and at the bottom by repeating the edge to multiples of 64. Its nodes draw at the size of the picture, resize
    the drawing so and cut the padding off: `padded[:height, :width]`.
    """
    height, width = picture.shape[:2]
    scale = resolution / min(height, width)
    new = round(height * scale), round(width * scale)
    resized = cv2.resize(picture, new[::-1], interpolation=cv2.INTER_CUBIC if scale > 1 else cv2.INTER_AREA)
    padding = [(0, -side % _MULTIPLE) for side in new]
    return np.pad(resized, [*padding, (0, 0)], mode="edge"), new


def moore_size(size: tuple[int, int], resolution: int) -> tuple[int, int]:
    """(height, width) for a short side of about `resolution`, both multiples of 64."""
    scale = resolution / min(size)
    height, width = (round(side * scale / _MULTIPLE) * _MULTIPLE for side in size)
    return height, width


def moore_network_picture(picture: np.ndarray, detect_resolution: int = 512) -> np.ndarray:
    """What Moore's networks get: RGB uint8 (h, w, 3) -> the same in BGR at :func:`moore_size`."""
    height, width = moore_size(picture.shape[:2], detect_resolution)
    enlarges = detect_resolution > min(picture.shape[:2])
    way = cv2.INTER_LANCZOS4 if enlarges else cv2.INTER_AREA
    return cv2.resize(np.ascontiguousarray(picture[..., ::-1]), (width, height), interpolation=way)


def draw_moore(
    points: np.ndarray,
    scores: np.ndarray,
    size: tuple[int, int],
    detect_resolution: int = 512,
    image_resolution: int = 512,
) -> np.ndarray:
    """Moore's drawing of the best person: classic at the size of detection, then resized (bilinear).

    points (n, 134, 2) shares of a picture of `size` (height, width), scores (n, 134) -> uint8 RGB (h, w, 3).
    """
    best = best_person(scores) if len(scores) else 0
    drawing = Renderer("classic", moore_size(size, detect_resolution)).draw(
        points[best : best + 1], scores[best : best + 1]
    )
    height, width = moore_size(size, image_resolution)
    return cv2.resize(drawing, (width, height), interpolation=cv2.INTER_LINEAR)
