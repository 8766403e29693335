"""The tiny pose network: heat maps of 133 points, with the inputs and outputs of dw-ll_ucoco_384.onnx."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import torch
from torch import nn

from ...datasets.puppets import Puppets
from ...model_loaders.tiny import POSE_FILE
from ...pose.poses import NUM_POINTS
from ...pose.simcc import INPUT_SIZE, centres_and_scales, crop, crop_matrix, normalise
from .detector import true_box
from .loop import fit
from .onnx_file import layer, write_onnx
from .pictures import spoiled, stills

PICTURES, SIZE = 8, 128  # of a step
WIDTH, HEIGHT, CELL = 36, 48, 8  # of a heat map; pixels to a cell
SIGMA = 1.3  # of a peak, in cells
BINS = 2 * CELL  # of the SimCC outputs, to a cell
# The 17 body points of COCO in OpenPose's numbers; feet, face and hands follow in the same order in both.
COCO = (0, 15, 14, 17, 16, 5, 2, 6, 3, 7, 4, 11, 8, 12, 9, 13, 10)
POINTS = (*COCO, *range(18, NUM_POINTS))


def pose_network() -> nn.Sequential:
    """Crops (N, 3, 384, 288), normalised -> heat maps (N, 133, 48, 36)."""
    return nn.Sequential(
        nn.AvgPool2d(4),
        *layer(3, 32, stride=2),
        *layer(32, 48),
        *layer(48, 64, dilation=2),
        *layer(64, 64, dilation=4),
        *layer(64, 64, dilation=8),
        *layer(64, 64, dilation=4),
        *layer(64, 96, dilation=2),
        nn.Conv2d(96, 133, 1),
    )


class SimCC(nn.Module):
    """A pose network in SimCC's conventions: heat maps' maxima along an axis, enlarged to two bins a pixel."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        for name, cells in (("wider", WIDTH), ("taller", HEIGHT)):
            self.register_buffer(name, torch.from_numpy(enlarging(cells)))

    def forward(self, crops: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(N, 3, 384, 288) -> simcc_x (N, 133, 576), simcc_y (N, 133, 768)."""
        maps = self.network(crops)
        return maps.amax(2) @ self.wider, maps.amax(3) @ self.taller


def train_pose_network(steps: int, folder: Path, rate: float = 3e-3) -> nn.Module:
    """A trained :func:`pose_network`: its peaks are as high as the point's score."""
    torch.manual_seed(0)
    network, puppets = pose_network(), Puppets()

    def loss(step: int) -> tuple[torch.Tensor, dict[str, float]]:
        rng = np.random.default_rng([step, 2])
        crops, maps, picked = [], [], rng.integers(0, 3, PICTURES)
        for (_, picture, poses), how in zip(stills(puppets, step, PICTURES, SIZE), picked, strict=True):
            box = true_box(poses) + rng.normal(0, 3, 4) * (how > 0)
            centre, scale = (part[0] for part in centres_and_scales(box[None]))
            matrix = crop_matrix(centre, scale)
            crops.append(crop(spoiled(picture, rng), matrix))
            inside = cv2.transform(poses.points[0] * SIZE, matrix)[0][list(POINTS)]
            maps.append(heat_maps(inside / CELL, poses.scores[0, 0, list(POINTS)]))
        out, target = network(torch.from_numpy(normalise(np.stack(crops)))), torch.from_numpy(np.stack(maps))
        error = (out - target).square()
        weighted = (error * (1 + 10 * target)).mean()
        return 100 * weighted, {"error": 100 * error.mean().item()}

    return fit(network, loss, steps, rate, folder / "pose.pt")


def heat_maps(points: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """float32 (n, 48, 36): a Gaussian at every point (n, 2), in cells, as high as its score (n,)."""
    x = np.exp(-((np.arange(WIDTH) + 0.5 - points[:, :1]) ** 2) / (2 * SIGMA**2))
    y = np.exp(-((np.arange(HEIGHT) + 0.5 - points[:, 1:]) ** 2) / (2 * SIGMA**2))
    return (scores[:, None, None] * y[:, :, None] * x[:, None, :]).astype(np.float32)


def save_pose_network(network: nn.Module, folder: Path) -> None:
    """Write dw_tiny.onnx with the signature of dw-ll_ucoco_384: input (N, 3, 384, 288) -> simcc_x, simcc_y."""
    example, names = torch.zeros(1, 3, INPUT_SIZE[1], INPUT_SIZE[0]), ["simcc_x", "simcc_y"]
    write_onnx(SimCC(network), example, folder / POSE_FILE, "input", names, free_batch=True)


def enlarging(cells: int) -> np.ndarray:
    """float32 (cells, cells * 16): cubic interpolation of a line of cells to bins."""
    return cv2.resize(np.eye(cells, dtype=np.float32), (cells * BINS, cells), interpolation=cv2.INTER_CUBIC)
