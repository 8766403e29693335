"""The tiny person detector: a few convolutions with the inputs and outputs of yolox_l.onnx."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import torch
from torch import nn
from torch.nn import functional

from ...datasets.puppets import Puppets
from ...datasets.puppets.character import Character
from ...datasets.puppets.paint import paint_background
from ...model_loaders.tiny import DETECTOR_FILE
from ...pose.poses import Poses
from ...pose.yolox import fit as fit_square
from ...pose.yolox import letterbox, network_input
from .loop import fit
from .onnx_file import Affine, layer, write_onnx
from .pictures import spoiled, stills

SIDE, STRIDE, CELLS = 640, 32, 20
PICTURES, SIZE = 12, 128  # of a step
BIG_NUMBER = 20.0  # a logit that a sigmoid turns into 0 or 1
EMPTY = 0.25  # share of the pictures without a puppet


def detector() -> nn.Sequential:
    """(N, 3, 640, 640) RGB in 0..255 -> (N, 5, 20, 20): x, y, ln width, ln height in cells, objectness as a logit."""
    return nn.Sequential(
        nn.AvgPool2d(8),
        Affine(1 / 64, -2.0),
        *layer(3, 16, stride=2),
        *layer(16, 32, stride=2),
        *layer(32, 48, dilation=2),
        *layer(48, 48, dilation=4),
        *layer(48, 48, dilation=4),
        nn.Conv2d(48, 5, 1),
    )


class YoloxRows(nn.Module):
    """A detector in YOLOX's conventions: its rows on the coarsest grid, nothing on the two finer ones."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("finer", torch.zeros(1, (80 * 80 + 40 * 40), 85))
        self.register_buffer("classes", torch.cat([torch.ones(1, CELLS**2, 1), torch.zeros(1, CELLS**2, 79)], 2))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """(1, 3, 640, 640) -> (1, 8400, 85): box, objectness, 80 classes of which the first is the person."""
        rows = self.network(images).flatten(2).transpose(1, 2)
        coarse = torch.cat([rows[..., :4], rows[..., 4:].sigmoid(), self.classes], 2)
        return torch.cat([self.finer, coarse], 1)


def true_box(poses: Poses, margin: float = 0.03) -> np.ndarray:
    """(4,) x1, y1, x2, y2 in pixels around the visible points of frame 0, a little wider, inside the picture."""
    points, scores = poses.points[0, 0], poses.scores[0, 0]
    seen = points[scores > 0] if (scores > 0).any() else np.zeros((1, 2))
    box = np.concatenate([seen.min(0) - margin, seen.max(0) + margin])
    height, width = poses.size
    return np.clip(box, 0, 1) * (width, height, width, height)


def without_puppet(character: Character, rng: np.random.Generator) -> np.ndarray:
    """uint8 (SIZE, SIZE, 3): the puppet's background, or a few blurred colours, down to a single one."""
    cells = int(rng.integers(1, 6))
    colours = rng.integers(0, 256, (cells, cells, 3), dtype=np.uint8)
    if rng.random() < 0.5:
        return paint_background(character, (SIZE, SIZE))
    return cv2.resize(colours, (SIZE, SIZE), interpolation=cv2.INTER_CUBIC)


def train_detector(steps: int, folder: Path, rate: float = 3e-3) -> nn.Module:
    """A trained :func:`detector`."""
    torch.manual_seed(0)
    network, puppets = detector(), Puppets()

    def loss(step: int) -> tuple[torch.Tensor, dict[str, float]]:
        rng = np.random.default_rng([step, 1])
        squares, boxes = [], []
        for character, picture, poses in stills(puppets, step, PICTURES, SIZE):
            empty = rng.random() < EMPTY
            shown = without_puppet(character, rng) if empty else picture
            squares.append(network_input(letterbox(spoiled(shown, rng)))[0])
            box = true_box(poses)
            there = not empty and min(box[2:] - box[:2]) > 0.1 * SIZE
            boxes.append(box * fit_square(SIZE, SIZE)[0] / STRIDE if there else np.full(4, np.nan))
        out, boxes = network(torch.from_numpy(np.stack(squares))), torch.from_numpy(np.stack(boxes)).float()
        centre, sides = (boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]
        cells = torch.stack(torch.meshgrid(torch.arange(CELLS), torch.arange(CELLS), indexing="xy")).float()
        distance = (cells[None] + 0.5 - centre[:, :, None, None]).abs().amax(1)  # NaN where nobody is
        near, far = distance < 1.0, ~(distance < 2.5)
        target = torch.cat([centre[..., None, None] - cells, sides.log()[..., None, None].expand(-1, -1, 20, 20)], 1)
        error = (out[:, :4] - target)[near[:, None].expand(-1, 4, -1, -1)]
        box_loss = functional.smooth_l1_loss(error, torch.zeros_like(error), beta=0.1)
        objectness = functional.binary_cross_entropy_with_logits(out[:, 4], near.float(), reduction="none")
        there_loss = objectness[near].mean() + 3 * objectness[far].mean()
        return box_loss + there_loss, {"box": box_loss.item(), "objectness": there_loss.item()}

    return fit(network, loss, steps, rate, folder / "detector.pt")


def save_detector(network: nn.Module, folder: Path) -> None:
    """Write yolox_tiny.onnx with the signature of yolox_l: images (1, 3, 640, 640), 0..255 -> output (1, 8400, 85)."""
    example = torch.zeros(1, 3, SIDE, SIDE)
    write_onnx(YoloxRows(network), example, folder / DETECTOR_FILE, "images", ["output"], free_batch=False)
