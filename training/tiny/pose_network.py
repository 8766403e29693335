"""The tiny pose network: heat maps of 133 points, with the inputs and outputs of dw-ll_ucoco_384.onnx."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import torch

from ...datasets.puppets import Puppets
from ...model_loaders.tiny import POSE_FILE
from ...pose.poses import NUM_POINTS
from ...pose.simcc import INPUT_SIZE, centres_and_scales, crop, crop_matrix, normalise
from .detector import true_box
from .loop import fit
from .onnx_graph import Chain, Graph
from .pictures import spoiled, stills

PICTURES, SIZE = 8, 128  # of a step
WIDTH, HEIGHT, CELL = 36, 48, 8  # of a heat map; pixels to a cell
SIGMA = 1.3  # of a peak, in cells
BINS = 2 * CELL  # of the SimCC outputs, to a cell
# The 17 body points of COCO in OpenPose's numbers; feet, face and hands follow in the same order in both.
COCO = (0, 15, 14, 17, 16, 5, 2, 6, 3, 7, 4, 11, 8, 12, 9, 13, 10)
POINTS = (*COCO, *range(18, NUM_POINTS))
LAYERS = (
    ("pool", 4),
    *(("conv", 3, 32, 3, 2, 1), ("relu",)),
    *(("conv", 32, 48, 3, 1, 1), ("relu",)),
    *(("conv", 48, 64, 3, 1, 2), ("relu",)),
    *(("conv", 64, 64, 3, 1, 4), ("relu",)),
    *(("conv", 64, 64, 3, 1, 8), ("relu",)),
    *(("conv", 64, 64, 3, 1, 4), ("relu",)),
    *(("conv", 64, 96, 3, 1, 2), ("relu",)),
    ("conv", 96, 133, 1, 1, 1),
)


def train_pose_network(steps: int, folder: Path, rate: float = 3e-3) -> Chain:
    """Heat maps (N, 133, 48, 36) of crops (N, 3, 384, 288): peaks as high as the point's score."""
    torch.manual_seed(0)
    chain, puppets = Chain(LAYERS), Puppets()

    def loss(step: int) -> tuple[torch.Tensor, dict[str, float]]:
        rng = np.random.default_rng([step, 2])
        crops, maps, picked = [], [], rng.integers(0, 3, PICTURES)
        for (picture, poses, _), how in zip(stills(puppets, step, PICTURES, SIZE), picked, strict=True):
            box = true_box(poses) + rng.normal(0, 3, 4) * (how > 0)
            centre, scale = (part[0] for part in centres_and_scales(box[None]))
            matrix = crop_matrix(centre, scale)
            crops.append(crop(spoiled(picture, rng), matrix))
            inside = cv2.transform(poses.points[0] * SIZE, matrix)[0][list(POINTS)]
            maps.append(heat_maps(inside / CELL, poses.scores[0, 0, list(POINTS)]))
        out, target = chain(torch.from_numpy(normalise(np.stack(crops)))), torch.from_numpy(np.stack(maps))
        error = (out - target).square()
        weighted = (error * (1 + 10 * target)).mean()
        return 100 * weighted, {"error": 100 * error.mean().item()}

    return fit(chain, loss, steps, rate, folder / "pose.pt")


def heat_maps(points: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """float32 (n, 48, 36): a Gaussian at every point (n, 2), in cells, as high as its score (n,)."""
    x = np.exp(-((np.arange(WIDTH) + 0.5 - points[:, :1]) ** 2) / (2 * SIGMA**2))
    y = np.exp(-((np.arange(HEIGHT) + 0.5 - points[:, 1:]) ** 2) / (2 * SIGMA**2))
    return (scores[:, None, None] * y[:, :, None] * x[:, None, :]).astype(np.float32)


def save_pose_network(chain: Chain, folder: Path) -> None:
    """Write dw_tiny.onnx with the signature of dw-ll_ucoco_384: input (N, 3, 384, 288) -> simcc_x, simcc_y.

    A SimCC output is the heat map's maximum along the other axis, enlarged to two bins a pixel by a cubic kernel.
    """
    graph = Graph()
    maps = graph.chain(chain, "input")
    for name, axis, cells in (("simcc_x", 2, WIDTH), ("simcc_y", 3, HEIGHT)):
        line = graph.node("ReduceMax", maps, axes=[axis], keepdims=0)
        graph.node("MatMul", line, graph.constant(enlarging(cells)), output=name)
    sides = {"simcc_x": ["batch", 133, 2 * INPUT_SIZE[0]], "simcc_y": ["batch", 133, 2 * INPUT_SIZE[1]]}
    graph.save(folder / POSE_FILE, {"input": ["batch", 3, INPUT_SIZE[1], INPUT_SIZE[0]]}, sides)


def enlarging(cells: int) -> np.ndarray:
    """float32 (cells, cells * 16): cubic interpolation of a line of cells to bins."""
    return cv2.resize(np.eye(cells, dtype=np.float32), (cells * BINS, cells), interpolation=cv2.INTER_CUBIC)
