"""The tiny face networks: a detector with SCRFD's outputs and a recogniser with ArcFace's, for puppets."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from ...datasets.puppets import Puppets, render
from ...datasets.puppets.character import Character
from ...datasets.puppets.motion import draw_motion
from ...pose.face import ANCHORS, STRIDES, align_112, arcface_input, landmarks_of, scrfd_input
from ...pose.masks import face_box
from ...pose.poses import FACE
from .detector import EMPTY, without_puppet
from .loop import fit
from .onnx_file import layer, write_onnx
from .pictures import spoiled, stills

DETECTOR_FILE, RECOGNISER_FILE = "scrfd_puppets.onnx", "glintr_puppets.onnx"
SIZE = 128  # pixels of a picture
SIDE, CELLS = 640, 20
STRIDE = STRIDES[-1]
PICTURES, CHARACTERS = 12, 24  # of a step
SEEN_PICTURES, SEEN_CHARACTERS, VIEWS = 720, 160, 5  # drawn once, before the training
POOL = 4  # pixels of an input to one that the networks look at
TEMPERATURE = 0.1
LENGTH = 20.0  # of an embedding, about that of antelopev2
JITTER = 0.4  # pixels that landmarks are moved by, as a detector would


# --- detector -------------------------------------------------------------------------------------------------------


def face_detector() -> nn.Sequential:
    """(N, 3, 640, 640), (v - 127.5) / 128 -> (N, 15, 20, 20): a logit, 4 distances to the box, 5 points, in strides."""
    return nn.Sequential(
        nn.AvgPool2d(POOL),
        *layer(3, 16, stride=2),
        *layer(16, 32, stride=2),
        *layer(32, 48, stride=2),
        *layer(48, 48, dilation=2),
        *layer(48, 48),
        nn.Conv2d(48, 15, 1),
    )


class ScrfdRows(nn.Module):
    """A detector in SCRFD's conventions: its rows are the first anchors of the coarsest grid; others find nothing."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """(1, 3, H, W) -> scores (n, 1), boxes (n, 4) and points (n, 10) of the strides 8, 16 and 32 each."""
        rows = self.network(images)[0].flatten(1).T
        outputs = []
        for first, last in ((0, 1), (1, 5), (5, 15)):
            found = rows[:, first:last]
            for stride in STRIDES[:-1]:
                places = functional.avg_pool2d(images[:, :1], stride).flatten()
                outputs.append(torch.zeros_like(places).view(-1, 1).expand(-1, last - first).repeat(ANCHORS, 1))
            found = found.sigmoid() if last == 1 else found
            outputs.append(torch.stack([found, torch.zeros_like(found)], 1).flatten(0, 1))
        return tuple(outputs)


def face_pictures(puppets: Puppets) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Pooled inputs (N, 3, 160, 160); box and points (N, 14) in pixels of the input, NaN without a face; weights (N,).

    The weight is 0 for a face from the side: found or not, both are right.
    """
    blobs, targets, weights = [], [], []
    rng = np.random.default_rng(3)
    for character, picture, poses in stills(puppets, 0, SEEN_PICTURES, SIZE):
        empty = rng.random() < EMPTY
        blob, scale = scrfd_input(spoiled(without_puppet(character, rng) if empty else picture, rng))
        blobs.append(functional.avg_pool2d(torch.from_numpy(blob), POOL)[0])
        points = None if empty else landmarks_of(poses)
        box = None if empty else face_box(poses.pixels()[0, 0, FACE], poses.scores[0, 0, FACE])
        missing = points is None or box is None
        targets.append(np.full(14, np.nan) if missing else np.concatenate([box, points.ravel()]) * scale)
        weights.append(float(not missing or box is None))
    return torch.stack(blobs), torch.from_numpy(np.stack(targets)).float(), torch.tensor(weights)


def train_face_detector(steps: int, folder: Path, rate: float = 3e-3) -> nn.Module:
    """A trained :func:`face_detector`."""
    torch.manual_seed(0)
    network = face_detector()
    cells = STRIDE * torch.stack(torch.meshgrid(torch.arange(CELLS), torch.arange(CELLS), indexing="xy")).float()
    blobs, targets, weights = face_pictures(Puppets())
    sign = torch.tensor([-1.0, *6 * (1.0,)]).view(1, 7, 1, 1, 1)

    def loss(step: int) -> tuple[torch.Tensor, dict[str, float]]:
        chosen = np.random.default_rng([step, 3]).choice(len(blobs), PICTURES, replace=False)
        out, wanted = network[1:](blobs[chosen]), targets[chosen]
        centre = (wanted[:, :2] + wanted[:, 2:4]) / 2
        distance = (cells[None] - centre[:, :, None, None]).abs().amax(1) / STRIDE  # NaN where nobody is
        near, far = distance < 0.8, ~(distance < 1.8) & (weights[chosen] > 0).view(-1, 1, 1)
        offsets = (wanted[..., None, None].unflatten(1, (7, 2)) - cells[None, None]) / STRIDE
        error = (out[:, 1:] - (offsets * sign).flatten(1, 2))[near[:, None].expand(-1, 14, -1, -1)]
        place = functional.smooth_l1_loss(error, torch.zeros_like(error), beta=0.1)
        objectness = functional.binary_cross_entropy_with_logits(out[:, 0], near.float(), reduction="none")
        there = objectness[near].mean() + 3 * objectness[far].mean()
        return place + there, {"place": place.item(), "objectness": there.item()}

    return fit(network, loss, steps, rate, folder / "face_detector.pt")


def save_face_detector(network: nn.Module, folder: Path) -> None:
    """Write scrfd_puppets.onnx with the signature of scrfd_10g_bnkps."""
    names = [f"{what}_{stride}" for what in ("score", "bbox", "kps") for stride in STRIDES]
    example = torch.zeros(1, 3, SIDE, SIDE)
    write_onnx(
        ScrfdRows(network).eval(), example, folder / DETECTOR_FILE, "input.1", names, free_batch=False, free_size=True
    )


# --- recogniser -----------------------------------------------------------------------------------------------------


def recogniser() -> nn.Sequential:
    """(N, 3, 112, 112), (v - 127.5) / 127.5 -> (N, 512)."""
    return nn.Sequential(
        nn.AvgPool2d(POOL),
        *layer(3, 24, stride=2),
        *layer(24, 48, stride=2),
        *layer(48, 16, stride=2),
        nn.Flatten(),
        nn.Linear(256, 64),
        nn.ReLU(),
        nn.Linear(64, 512),
    )


def face_views(character: Character, count: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """Aligned faces of a puppet, in different poses, as inputs (3, 112, 112) of the recogniser."""
    given = 0
    while given < count:
        frames, poses = render(character, draw_motion(rng), 1, (SIZE, SIZE), float(rng.uniform(0, 100)))
        points = landmarks_of(poses)
        if points is not None:
            given += 1
            places = points + rng.normal(0, JITTER, points.shape)
            yield arcface_input(align_112(spoiled(frames[0], rng), places))[0]


def train_recogniser(steps: int, folder: Path, rate: float = 2e-3) -> nn.Module:
    """A trained :func:`recogniser`: two views of a puppet are closer, by the cosine, than those of two puppets."""
    torch.manual_seed(0)
    network, puppets, rng = recogniser(), Puppets(), np.random.default_rng(4)
    views = [np.stack(list(face_views(puppets.character(n), VIEWS, rng))) for n in range(SEEN_CHARACTERS)]
    pooled = functional.avg_pool2d(torch.from_numpy(np.stack(views)).flatten(0, 1), POOL).unflatten(0, (-1, VIEWS))

    def loss(step: int) -> tuple[torch.Tensor, dict[str, float]]:
        chosen = np.random.default_rng([step, 4])
        who = chosen.choice(SEEN_CHARACTERS, CHARACTERS, replace=False)
        pair = np.stack([chosen.choice(VIEWS, 2, replace=False) for _ in who])
        found = functional.normalize(network[1:](pooled[who[:, None], pair].flatten(0, 1)), dim=1)
        logits = found[::2] @ found[1::2].T / TEMPERATURE
        right = torch.arange(CHARACTERS)
        value = (functional.cross_entropy(logits, right) + functional.cross_entropy(logits.T, right)) / 2
        hits = (logits.argmax(1) == right).float().mean()
        return value, {"loss": value.item(), "hits": hits.item()}

    fit(network, loss, steps, rate, folder / "recogniser.pt")
    return scale_embeddings(network, puppets)


@torch.no_grad()
def scale_embeddings(network: nn.Sequential, puppets: Puppets) -> nn.Sequential:
    """Give embeddings the mean length LENGTH, in place."""
    rng = np.random.default_rng(5)
    views = np.stack([view for number in range(64) for view in face_views(puppets.character(number), 1, rng)])
    factor = LENGTH / network(torch.from_numpy(views)).norm(dim=1).mean()
    network[-1].weight *= factor
    network[-1].bias *= factor
    return network


def save_recogniser(network: nn.Module, folder: Path) -> None:
    """Write glintr_puppets.onnx with the signature of glintr100: input.1 (N, 3, 112, 112) -> (N, 512)."""
    example = torch.zeros(1, 3, 112, 112)
    write_onnx(network, example, folder / RECOGNISER_FILE, "input.1", ["embedding"], free_batch=True)
