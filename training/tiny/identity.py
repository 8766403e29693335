"""A tiny StableAnimator, and whether its identity adapter gives a face that the reference picture does not show."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch

from ...datasets.clips import Clip
from ...datasets.puppets import Puppets
from ...datasets.puppets.character import Character
from ...evaluation.ablation import cell
from ...evaluation.faces import Embed, recogniser
from ...evaluation.protocol import Settings, evaluate
from ...evaluation.report import Report
from ...evaluation.systems import StableAnimator
from ...model_loaders.mimicmotion import load_mimicmotion
from ...model_loaders.stableanimator import load_stableanimator
from ...model_loaders.svd import load_svd_parts
from ...model_loaders.tiny import SVD_FOLDER, TINY_FOLDER, UNET_FILE
from ...pipelines import stableanimator
from ...pose.face import landmarks_of
from ..command import STABLEANIMATOR_READING, train_stableanimator
from ..settings import Loop, TrainStableAnimator
from ..stableanimator import StableAnimatorTraining
from ..starts import from_mimicmotion
from ..windows import FaceWindows
from .faces import RECOGNISER_FILE

SIZE = (128, 128)
GREY = 128
HEAD = 1.45  # radius of what covers a head, in halves of its height: hair and bun too
RAISED = 0.15  # of that radius, from the nose up
CLIPS, STEPS = 1000, 2000
FACE_ENCODER = {"inner_dim": 128, "depth": 2}
JUDGED = Settings(clips=24, frames=8, size=SIZE, references=0)
SAMPLING = stableanimator.Settings(
    steps=10, guidance_first=1.0, guidance_last=1.0, window=8, overlap=2, noise_aug_strength=0.0
)


def covered(picture: np.ndarray, nose: np.ndarray, character: Character) -> np.ndarray:
    """The picture (H, W, 3) uint8 with a grey disc over the head; nose: x, y in pixels."""
    height, width = picture.shape[:2]
    radius = HEAD * character.head * character.height * height
    y, x = np.mgrid[:height, :width]
    inside = (x - nose[0]) ** 2 + (y - nose[1] + RAISED * radius) ** 2 < radius**2
    return np.where(inside[..., None], np.uint8(GREY), picture)


@dataclass
class FacedPuppets:
    """Puppets as a `ClipSource` that knows the faces of its references; also an `Identify` and a `systems.Embed`.

    embed:   knows faces. covers: whether the head is covered in the reference of a puppet of this number; its identity
    is that of the uncovered face. name: a short one for the network behind `embed`.
    """

    puppets: Puppets
    embed: Embed
    covers: Callable[[int], bool]
    name: str = ""
    _known: dict[bytes, np.ndarray] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.puppets)

    def clip(self, index: int, num_frames: int, size: tuple[int, int], seed: int = 0) -> Clip:
        """See `ClipSource.clip`. ValueError when the reference does not show the whole face."""
        clip = self.puppets.clip(index, num_frames, size, seed)
        picture, poses = self.puppets.standing(index, size, seed)
        points = landmarks_of(poses)
        if points is None:
            raise ValueError(f"The face of {clip.name} is not seen in its reference.")
        if self.covers(index):
            clip = replace(clip, reference=covered(picture, points[2], self.puppets.character(index)))
        self._known[_key(clip.reference)] = self.embed(picture, points)
        return clip

    def __call__(self, picture: np.ndarray) -> np.ndarray:
        """The embedding (512,) of the face behind a reference that :meth:`clip` has given."""
        return self._known[_key(picture)]

    def fingerprint(self) -> str:
        """A short name for what embeddings depend on."""
        return f"true landmarks {self.name}"


def _key(picture: np.ndarray) -> bytes:
    return hashlib.sha256(np.ascontiguousarray(picture).tobytes()).digest()


def write_start(folder: Path) -> Path:
    """The embedded MimicMotion with a fresh identity adapter and a small face encoder, in the folder `start`."""
    start = folder / "start"
    start.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(1)
    networks = from_mimicmotion(load_mimicmotion(TINY_FOLDER / UNET_FILE), **FACE_ENCODER)
    parts = load_svd_parts(TINY_FOLDER / SVD_FOLDER)
    system = StableAnimatorTraining(networks, parts, FaceWindows(SAMPLING.window), lambda _: None)
    system.export(start, system.module.state_dict())
    return start


def train_identity(folder: Path, steps: int = STEPS, clips: int = CLIPS, threads: int | None = None) -> Path:
    """Train on puppets, every second one with a covered head in its reference; the folder of the last checkpoint.

    folder: has the recogniser of `faces`; gets `identity`. A second call goes on where the first one was stopped.
    """
    output = folder / "identity"
    job = TrainStableAnimator(
        "puppets",
        svd=TINY_FOLDER / SVD_FOLDER,
        weights=write_start(output),
        size=SIZE,
        frames=3,
        clips=clips,
        latent_cache=output / "cache",
        dropout=0.1,
        unet_part="all",
        pose_net_lr=1e-4,
        face_encoder_lr=1e-3,
        face_weight=8.0,
    )
    loop = Loop(
        output=output,
        steps=steps,
        batch=6,
        lr=6e-4,
        schedule="cosine",
        warmup=30,
        clip_gradients=1.0,
        ema=0.99,
        threads=threads,
    )
    network = folder / RECOGNISER_FILE
    with recogniser(network, "cpu") as embed:
        name = hashlib.sha256(network.read_bytes()).hexdigest()[:16]
        puppets = FacedPuppets(Puppets(style="stableanimator"), embed, lambda index: index % 2 == 1, name)
        train_stableanimator(job, loop, STABLEANIMATOR_READING, puppets, puppets)
    return output / f"checkpoint-{steps}"


def judge_identity(folder: Path, weights: Path, judged: Settings = JUDGED) -> dict[tuple[str, str], Report]:
    """Reports by (reference, adapter), on puppets that no training saw.

    reference: "shown" or "covered"; adapter: "on", "off" (identity strength 0).
    """
    networks, parts = load_stableanimator(weights), load_svd_parts(TINY_FOLDER / SVD_FOLDER)
    reports = {}
    with recogniser(folder / RECOGNISER_FILE, "cpu") as embed:
        for reference in ("shown", "covered"):
            puppets = Puppets(held_out=True, seed=judged.seed, style="stableanimator")
            source = FacedPuppets(puppets, embed, lambda _, hidden=reference == "covered": hidden)
            for adapter, strength in (("on", 1.0), ("off", 0.0)):
                sampling = replace(SAMPLING, identity_strength=strength)
                system = StableAnimator(networks, parts, sampling, embed=source)
                reports[reference, adapter] = evaluate(system, source, judged, faces=embed)
    return reports


def identity_table(reports: dict[tuple[str, str], Report]) -> str:
    """Likeness of faces and PSNR of each report, and what the adapter is worth, clip by clip."""
    lines = [f"{'reference':<12}{'adapter':<10}{'likeness of faces':>20}{'PSNR (dB)':>18}"]
    for (reference, adapter), report in reports.items():
        cells = report.cell("result", "faces"), report.cell("result", "psnr")
        lines.append(f"{reference:<12}{adapter:<10}{cells[0]:>20}{cells[1]:>18}")
    for reference in ("shown", "covered"):
        on, off = (reports[reference, adapter] for adapter in ("on", "off"))
        more = on.values("result", "faces") > off.values("result", "faces")
        lines.append(f"{reference}: on (on - off) {cell(on, off, 'faces')}, more in {more.sum()} of {len(more)}")
    truth = next(iter(reports.values()))
    return "\n".join([*lines, f"truth {truth.cell('truth', 'faces')}"])
