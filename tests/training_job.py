"""A small training run, in this process or (not StableAnimator) as `python tests/training_job.py OUTPUT SETTINGS`."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from choreo.datasets.clips import Clip
from choreo.model_loaders.tiny import SVD_FOLDER
from choreo.model_loaders.untrained import UNTRAINED_FACE_ENCODER, UNTRAINED_UNET, write_untrained
from choreo.model_loaders.untrained_magicpose import MAGICPOSE_FILE, write_untrained_magicpose
from choreo.runtime import Runtime, use
from choreo.training.command import train_magicpose, train_mimicmotion, train_stableanimator
from choreo.training.mimicmotion import MimicMotionTraining
from choreo.training.settings import Loop, TrainMagicPose, TrainMimicMotion, TrainStableAnimator
from choreo.training.system import TrainingSystem

SETTINGS = {
    "data": "puppets",
    "size": (32, 32),
    "frames": 3,
    "clips": 3,
    "half": False,
    "steps": 4,
    "warmup": 2,
    "lr": 1e-3,
    "checkpoint_every": 2,
    "log_every": 1,
    "threads": 1,
    "validate_frames": 4,
    "validate_clips": 1,
    "validate_steps": 1,
}
MADE_ONCE = tempfile.TemporaryDirectory()


def small_parts(folder: Path) -> Path:
    """A folder with a small VAE and image tower, and the configuration of a small UNet; made where missing."""
    if not (folder / "networks.json").is_file():
        write_untrained(folder)
        config = {"unet": UNTRAINED_UNET, "face_encoder": UNTRAINED_FACE_ENCODER}
        (folder / "networks.json").write_text(json.dumps(config), encoding="utf-8")
    return folder


def train(output: Path, **changes) -> None:
    """Train fresh networks as SETTINGS and the changes say, with the parts beside the output folder."""
    loop, job = _settings(output, {"hand_threshold": 0.5} | changes)
    with use(Runtime("cpu", torch.float32)):
        train_mimicmotion(TrainMimicMotion(**job), loop)


def train_identity(output: Path, identify, **changes) -> None:
    """The same for StableAnimator; identify: gives the embedding of a picture."""
    loop, job = _settings(output, changes)
    with use(Runtime("cpu", torch.float32)):
        train_stableanimator(TrainStableAnimator(**job), loop, identify=identify)


def small_magicpose(folder: Path) -> Path:
    """A small MagicPose in a folder; there it is put where missing."""
    path = folder / MAGICPOSE_FILE
    if not path.is_file():
        made = Path(MADE_ONCE.name) / MAGICPOSE_FILE
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(made if made.is_file() else write_untrained_magicpose(MADE_ONCE.name), path)
    return path


def train_pairs(output: Path, **changes) -> None:
    """Train the small MagicPose of the folder of parts beside the output folder."""
    without = {name: value for name, value in SETTINGS.items() if name != "frames"}
    loop, job = _split(output, without | {"weights": output.parent / "parts" / MAGICPOSE_FILE} | changes)
    if job["weights"] == output.parent / "parts" / MAGICPOSE_FILE:
        small_magicpose(output.parent / "parts")
    with use(Runtime("cpu", torch.float32)):
        train_magicpose(TrainMagicPose(**job), loop)


def loss_on_clip(system: TrainingSystem, clip: Clip) -> float:
    """The loss of some noise, always the same, on a clip."""
    rows = system.encode_rows(system.layout.rows(clip))
    sample = system.layout.take(rows, np.random.default_rng(0))
    batch = {name: torch.stack(8 * [tensor]) for name, tensor in sample.items()}
    with torch.no_grad():
        return float(system.loss(system.module, batch, [torch.Generator().manual_seed(n) for n in range(8)])[0])


def _settings(output: Path, changes: dict) -> tuple[Loop, dict]:
    parts = small_parts(output.parent / "parts")
    return _split(output, SETTINGS | {"svd": parts / SVD_FOLDER, "config": parts / "networks.json"} | changes)


def _split(output: Path, settings: dict) -> tuple[Loop, dict]:
    for name in {"latent_cache"} & {*settings}:
        settings[name] = Path(settings[name])
    of_loop = {name: value for name, value in settings.items() if name in Loop.__dataclass_fields__}
    of_job = {name: value for name, value in settings.items() if name not in of_loop}
    of_job["size"] = tuple(of_job["size"])
    return Loop(output=output, **of_loop), of_job


def die_while_writing(step: int) -> None:
    """Make the process kill itself, as `kill -9` would, in the middle of the checkpoint of a step."""
    export = MimicMotionTraining.export

    def deadly(system, folder, weights):
        export(system, folder, weights)
        if f"checkpoint-{step}." in folder.name:
            os.kill(os.getpid(), signal.SIGKILL)

    MimicMotionTraining.export = deadly


if __name__ == "__main__":
    changes = json.loads(sys.argv[2])
    if "die" in changes:
        die_while_writing(changes.pop("die"))
    run = train_pairs if changes.pop("magicpose", False) else train
    run(Path(sys.argv[1]), **changes)
