"""Synthetic colour-coded people that the tiny ONNX networks in tests/golden_files/pose/onnx understand.

Every person is a schematic figure: a body tint and a head tint for the detectors, and a small disc of its own
colour at each of the 133 joints for the pose network. People of different `tint` (0, 1, 2) may share a picture.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import cv2
import numpy as np
from safetensors.numpy import load_file

POSE_FILES = Path(__file__).parent / "golden_files" / "pose"
ONNX = POSE_FILES / "onnx"
DETECTOR, POSE_NETWORK = ONNX / "tiny_yolox_l.onnx", ONNX / "tiny_dw_ll_ucoco_384.onnx"
FACE_DETECTOR, RECOGNISER = ONNX / "tiny_scrfd_10g_bnkps.onnx", ONNX / "tiny_glintr100.onnx"

LIMBS = ((5, 7), (7, 9), (6, 8), (8, 10), (11, 13), (13, 15), (12, 14), (14, 16))
SCALE = 4  # drawn this much larger, then averaged


@dataclass(frozen=True)
class Figure:
    """A person: centre (x, y) and height in pixels of the picture; joints named in `hidden` are not drawn."""

    centre: tuple[float, float]
    height: float
    tint: int = 0
    hidden: Collection[int] = ()

    def joints(self) -> np.ndarray:
        """(133, 2) true joints in pixels."""
        return np.array(self.centre) + codes()["in.joint_layout"] * self.height

    def moved(self, dx: float, dy: float = 0.0) -> Figure:
        return replace(self, centre=(self.centre[0] + dx, self.centre[1] + dy))


@cache
def codes() -> dict[str, np.ndarray]:
    return load_file(POSE_FILES / "figure_codes.safetensors")


def draw(size: tuple[int, int], figures: Sequence[Figure]) -> np.ndarray:
    """(H, W, 3) uint8 RGB picture of the figures on the plain background; size (height, width)."""
    height, width = size
    canvas = np.empty((height * SCALE, width * SCALE, 3), dtype=np.uint8)
    canvas[:] = codes()["in.background"]
    for figure in figures:
        _draw_one(canvas, figure)
    return cv2.resize(canvas, (width, height), interpolation=cv2.INTER_AREA)


def clip(
    size: tuple[int, int], figures: Sequence[Figure], num_frames: int, step: tuple[float, float] = (2.0, 0.0)
) -> Iterator[np.ndarray]:
    """Frames in which every figure moves by `step` pixels a frame."""
    for frame in range(num_frames):
        yield draw(size, [figure.moved(step[0] * frame, step[1] * frame) for figure in figures])


def _draw_one(canvas: np.ndarray, figure: Figure) -> None:
    body, head = (codes()[name][figure.tint].tolist() for name in ("in.body_tints", "in.head_tints"))
    unit, centre = figure.height * SCALE, np.array(figure.centre) * SCALE

    def pixel(point: Sequence[float]) -> list[int]:
        return np.rint(centre + np.array(point) * unit).astype(int).tolist()

    def rectangle(low: Sequence[float], high: Sequence[float], colour: list[int]) -> None:
        cv2.rectangle(canvas, pixel(low), pixel(high), colour, cv2.FILLED)

    layout = codes()["in.joint_layout"]
    rectangle((-0.20, -0.15), (0.20, 0.20), body)
    for a, b in LIMBS:
        cv2.line(canvas, pixel(layout[a]), pixel(layout[b]), body, round(0.07 * unit))
    for x in (-0.265, 0.265):
        rectangle((x - 0.0945, 0.20 - 0.0945), (x + 0.0945, 0.20 + 0.0945), body)
    rectangle((-0.17, 0.44), (0.17, 0.50), body)
    rectangle((-0.19, -0.5), (0.19, -0.155), head)
    for joint, colour in enumerate(codes()["in.joint_colours"].tolist()):
        if joint not in figure.hidden:
            cv2.circle(canvas, pixel(layout[joint]), round(4.3 / 307 * unit), colour, cv2.FILLED)
