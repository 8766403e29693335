"""The commands behind training/README.md: the tiny set's small networks, and the embedded files.

python -m choreo.training.tiny parts FOLDER    train VAE, image tower, detector and pose network
python -m choreo.training.tiny faces FOLDER    train a face detector and a recogniser for puppets
python -m choreo.training.tiny identity FOLDER    train a tiny StableAnimator with them, and judge its adapter
python -m choreo.training.tiny install FOLDER WEIGHTS    put them, and trained MimicMotion weights, into assets/tiny
python -m choreo.training.tiny demo    draw the demo's pictures and videos into assets/demo
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import torch
import tyro

from ...model_loaders.svd import CLIP_FOLDER, VAE_FOLDER, write_svd_part
from ...model_loaders.tiny import SVD_FOLDER
from ...runtime import Runtime, use
from .config import IMAGE_TOWER, UNET, VAE, WINDOW
from .demo_inputs import write_demo_inputs
from .detector import save_detector, train_detector
from .faces import save_face_detector, save_recogniser, train_face_detector, train_recogniser
from .files import embed, write_unet_config
from .identity import STEPS as IDENTITY_STEPS
from .identity import identity_table, judge_identity, train_identity
from .pose_network import save_pose_network, train_pose_network
from .tower import train_image_tower
from .vae import train_vae

PARTS = ("vae", "tower", "detector", "pose")
Part = Literal["vae", "tower", "detector", "pose"]
STEPS = {"vae": 1300, "tower": 7500, "detector": 800, "pose": 1200, "faces": 1600, "recogniser": 500}

app = tyro.extras.SubcommandApp()


@app.command
def parts(folder: tyro.conf.Positional[Path], only: tuple[Part, ...] = PARTS, threads: int | None = None) -> None:
    """Train the networks that are not MimicMotion's own; state is kept in the folder, a second call goes on from it.

    Args:
        folder: where state and results go.
        only: which of them.
        threads: threads of the CPU; None is torch's choice.
    """
    if threads:
        torch.set_num_threads(threads)
    folder.mkdir(parents=True, exist_ok=True)
    if "vae" in only:
        vae = train_vae(VAE, STEPS["vae"], folder)
        write_svd_part(folder / SVD_FOLDER, VAE_FOLDER, VAE, vae.state_dict())
    if "tower" in only:
        tower = train_image_tower(IMAGE_TOWER, STEPS["tower"], folder)
        write_svd_part(folder / SVD_FOLDER, CLIP_FOLDER, IMAGE_TOWER, tower.state_dict())
    if "detector" in only:
        save_detector(train_detector(STEPS["detector"], folder), folder)
    if "pose" in only:
        save_pose_network(train_pose_network(STEPS["pose"], folder), folder)
    write_unet_config({"unet": UNET, "window": WINDOW}, folder)


@app.command
def faces(folder: tyro.conf.Positional[Path]) -> None:
    """Train what StableAnimator's training needs to know puppets: scrfd_puppets.onnx and glintr_puppets.onnx.

    Args:
        folder: where state and results go.
    """
    folder.mkdir(parents=True, exist_ok=True)
    save_recogniser(train_recogniser(STEPS["recogniser"], folder), folder)
    save_face_detector(train_face_detector(STEPS["faces"], folder), folder)


@app.command
def identity(
    folder: tyro.conf.Positional[Path],
    steps: int = IDENTITY_STEPS,
    weights: Path | None = None,
    threads: int | None = None,
) -> None:
    """Train a tiny StableAnimator on puppets, and print what its identity adapter is worth.

    Args:
        folder: the folder given to `faces`.
        steps: of the training.
        weights: judge this checkpoint folder instead of training.
        threads: threads of the CPU; None is torch's choice.
    """
    if threads:
        torch.set_num_threads(threads)
    with use(Runtime("cpu", torch.float32)):
        trained = train_identity(folder, steps, threads=threads) if weights is None else weights
        print(identity_table(judge_identity(folder, trained)))


@app.command
def install(folder: tyro.conf.Positional[Path], weights: tyro.conf.Positional[Path]) -> None:
    """Copy what `parts` trained, and MimicMotion's exported weights, to where the package looks for the tiny model.

    Args:
        folder: the folder given to `parts`.
        weights: MimicMotion.safetensors of a checkpoint.
    """
    embed(folder, weights)


@app.command
def demo() -> None:
    """Draw the demo's reference picture, driving video and truth."""
    write_demo_inputs()


if __name__ == "__main__":
    app.cli()
