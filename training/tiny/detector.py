"""The tiny person detector: a few convolutions with the inputs and outputs of yolox_l.onnx."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch.nn import functional

from ...datasets.puppets import Puppets
from ...model_loaders.tiny import DETECTOR_FILE
from ...pose.poses import Poses
from ...pose.yolox import fit as fit_square
from ...pose.yolox import letterbox, network_input
from .loop import fit
from .onnx_graph import Chain, Graph
from .pictures import spoiled, stills

SIDE, STRIDE, CELLS = 640, 32, 20
PICTURES, SIZE = 12, 128  # of a step
BIG_NUMBER = 20.0  # a logit that a sigmoid turns into 0 or 1
LAYERS = (
    ("pool", 8),
    ("affine", 1 / 64, -2.0),
    *(("conv", 3, 16, 3, 2, 1), ("relu",)),
    *(("conv", 16, 32, 3, 2, 1), ("relu",)),
    *(("conv", 32, 48, 3, 1, 2), ("relu",)),
    *(("conv", 48, 48, 3, 1, 4), ("relu",)),
    *(("conv", 48, 48, 3, 1, 4), ("relu",)),
    ("conv", 48, 5, 1, 1, 1),
)


def true_box(poses: Poses, margin: float = 0.03) -> np.ndarray:
    """(4,) x1, y1, x2, y2 in pixels around the visible points of frame 0, a little wider, inside the picture."""
    points, scores = poses.points[0, 0], poses.scores[0, 0]
    seen = points[scores > 0] if (scores > 0).any() else np.zeros((1, 2))
    box = np.concatenate([seen.min(0) - margin, seen.max(0) + margin])
    height, width = poses.size
    return np.clip(box, 0, 1) * (width, height, width, height)


def train_detector(steps: int, folder: Path, rate: float = 3e-3) -> Chain:
    """Channels of the result, on cells of 32 pixels: x, y, ln width, ln height in cells, objectness as a logit."""
    torch.manual_seed(0)
    chain, puppets = Chain(LAYERS), Puppets()

    def loss(step: int) -> tuple[torch.Tensor, dict[str, float]]:
        rng = np.random.default_rng([step, 1])
        squares, boxes = [], []
        for picture, poses, empty in stills(puppets, step, PICTURES, SIZE):
            squares.append(network_input(letterbox(spoiled(picture if empty is None else empty, rng)))[0])
            box = true_box(poses)
            there = empty is None and min(box[2:] - box[:2]) > 0.1 * SIZE
            boxes.append(box * fit_square(SIZE, SIZE)[0] / STRIDE if there else np.full(4, np.nan))
        out, boxes = chain(torch.from_numpy(np.stack(squares))), torch.from_numpy(np.stack(boxes)).float()
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

    return fit(chain, loss, steps, rate, folder / "detector.pt")


def save_detector(chain: Chain, folder: Path) -> None:
    """Write yolox_tiny.onnx with the signature of yolox_l: images (1, 3, 640, 640), 0..255 -> output (1, 8400, 85)."""
    graph = Graph()
    raw = graph.chain(chain, "images")
    rows = graph.node("Reshape", raw, graph.constant(np.array([1, 5, CELLS * CELLS])))
    rows = graph.node("Transpose", rows, perm=[0, 2, 1])
    box = graph.node("Slice", rows, *(graph.constant(np.array([i])) for i in (0, 4, 2)))
    logit = graph.node("Slice", rows, *(graph.constant(np.array([i])) for i in (4, 5, 2)))
    there = graph.node("Sigmoid", logit)
    person = graph.constant(np.concatenate([np.ones((1, 400, 1)), np.zeros((1, 400, 79))], axis=2))
    coarse = graph.node("Concat", box, there, person, axis=2)
    fine = graph.constant(np.zeros((1, 6400 + 1600, 1)))
    # The finer two grids of YOLOX find nothing.
    fine = graph.node("Expand", fine, graph.constant(np.array([1, 8000, 85])))
    graph.node("Concat", fine, coarse, axis=1, output="output")
    graph.save(folder / DETECTOR_FILE, {"images": [1, 3, SIDE, SIDE]}, {"output": [1, 8400, 85]})
