"""A drawing surface that is used for frame after frame and only ever touches what was drawn on."""

from __future__ import annotations

import math
from collections.abc import Sequence

import cv2
import numpy as np

Colour = Sequence[float]
_MARGIN = 2  # pixels that OpenCV may paint beyond the nominal radius or half width


class Canvas:
    """Black uint8 (height, width, 3) surface that remembers the boxes of everything drawn on it."""

    def __init__(self, size: tuple[int, int]) -> None:
        self.size = size
        self._pixels = np.zeros((*size, 3), dtype=np.uint8)
        self._boxes: list[tuple[int, int, int, int]] = []  # left, top, right, bottom of what was drawn

    def _touch(self, left: int, top: int, right: int, bottom: int) -> None:
        height, width = self.size
        if left < width and top < height and right > 0 and bottom > 0:
            self._boxes.append((max(left, 0), max(top, 0), min(right, width), min(bottom, height)))

    def clear(self) -> None:
        """Make everything black again."""
        for left, top, right, bottom in self._boxes:
            self._pixels[top:bottom, left:right] = 0
        self._boxes.clear()

    def stick(self, start: Sequence[float], end: Sequence[float], half_width: int, colour: Colour) -> None:
        """Filled ellipse between two points (x, y), with the truncations of OpenPose's own drawing."""
        dx, dy = start[0] - end[0], start[1] - end[1]
        centre = int((start[0] + end[0]) / 2), int((start[1] + end[1]) / 2)
        length = (dy**2 + dx**2) ** 0.5
        angle = int(math.degrees(math.atan2(dy, dx)))
        polygon = cv2.ellipse2Poly(centre, (int(length / 2), half_width), angle, 0, 360, 1)
        cv2.fillConvexPoly(self._pixels, polygon, colour)
        left, top, width, height = cv2.boundingRect(polygon)
        self._touch(left - _MARGIN, top - _MARGIN, left + width + _MARGIN, top + height + _MARGIN)

    def line(self, start: Sequence[int], end: Sequence[int], width: int, colour: Colour) -> None:
        """Straight line between two whole-numbered points (x, y)."""
        cv2.line(self._pixels, start, end, colour, thickness=width)
        reach = width + _MARGIN
        self._touch(
            min(start[0], end[0]) - reach,
            min(start[1], end[1]) - reach,
            max(start[0], end[0]) + reach + 1,
            max(start[1], end[1]) + reach + 1,
        )

    def dot(self, centre: Sequence[int], radius: int, colour: Colour) -> None:
        """Filled circle about a whole-numbered point (x, y)."""
        cv2.circle(self._pixels, centre, radius, colour, thickness=-1)
        reach = radius + _MARGIN
        self._touch(centre[0] - reach, centre[1] - reach, centre[0] + reach + 1, centre[1] + reach + 1)

    def picture(self, size: tuple[int, int]) -> np.ndarray:
        """A fresh uint8 (height, width, 3) picture of this size: the canvas, shrunk bilinearly without antialias.

        Equal to `cv2.resize` of the whole canvas, but only the part around the drawing is computed.
        """
        picture = np.zeros((*size, 3), dtype=np.uint8)
        if not self._boxes:
            return picture
        lefts, tops, rights, bottoms = zip(*self._boxes, strict=True)
        rows, shrunk_rows = _whole_periods(min(tops), max(bottoms), self.size[0], size[0])
        columns, shrunk_columns = _whole_periods(min(lefts), max(rights), self.size[1], size[1])
        part = self._pixels[rows, columns]
        shrunk = picture[shrunk_rows, shrunk_columns]
        shrunk[:] = part if self.size == size else cv2.resize(part, shrunk.shape[1::-1])
        return picture


def _whole_periods(low: int, high: int, source: int, target: int) -> tuple[slice, slice]:
    """The smallest (source, target) ranges around low..high whose resizing equals that of the whole axis.

    With source : target = p : q in lowest terms the sampling positions repeat every p source and q target pixels.
    OpenCV computes them in single precision, which is free of rounding only if q is a power of two; otherwise
    the answer is the whole axis. low..high has a black margin, so that enlarging needs nothing beyond the range.
    """
    divisor = math.gcd(source, target)
    p, q = source // divisor, target // divisor
    if q & (q - 1):
        return slice(0, source), slice(0, target)
    first, last = low // p, -(-high // p)
    return slice(first * p, last * p), slice(first * q, last * q)
