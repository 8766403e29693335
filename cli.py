"""The command line: `choreo animate`, `pose`, `dataset`, `train`, `evaluate`, `demo` and more (`choreo --help`)."""

from __future__ import annotations

import contextlib
import functools
import importlib.metadata
import io
import logging
import os
import signal
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
import tyro
from tqdm.contrib.logging import logging_redirect_tqdm

from .datasets.build import BuildDataset, build_dataset
from .datasets.reading import Reading
from .datasets.show import ShowDataset, describe, show_dataset
from .doctor import report
from .evaluation.ablation import Ablate, run_ablation
from .evaluation.command import Evaluate, EvaluateTiny, run_evaluation
from .evaluation.magicpose import EvaluateMagicPose
from .evaluation.stableanimator import EvaluateStableAnimator
from .model_loaders import inspection
from .model_loaders.catalogue import model_folders, table
from .model_loaders.download import download
from .pipelines.demo import Demo, run_demo
from .pipelines.job import Animate, AnimateTiny, Decode, animate_to_file, decode_to_file
from .pipelines.magicpose_job import AnimateMagicPose, DecodeMagicPose
from .pipelines.pose_job import (
    AlignPoses,
    DrawPoses,
    FindPoses,
    ShowPoses,
    align_poses,
    draw_poses,
    find_poses,
    show_poses,
)
from .pipelines.stableanimator_job import AnimateStableAnimator, DecodeStableAnimator
from .runtime import use
from .terminal import TerminalRuntime
from .training.command import (
    MAGICPOSE_LOOP,
    MAGICPOSE_READING,
    STABLEANIMATOR_READING,
    train_magicpose,
    train_mimicmotion,
    train_stableanimator,
)
from .training.settings import Loop, TrainMagicPose, TrainMimicMotion, TrainStableAnimator

DISTRIBUTION = "comfyui-choreo"
DEBUG_VARIABLE = "CHOREO_DEBUG"
EXPECTED = (ValueError, OSError, MemoryError, FloatingPointError, ImportError)  # their messages are for the user


@dataclass(frozen=True)
class Device:
    """Where the networks compute."""

    device: str | None = None
    """A torch device such as cuda:1, mps or cpu; None picks the best there is."""
    dtype: Literal["float32", "float16", "bfloat16"] | None = None
    """Floating point type of the networks; None is float16 on CUDA and float32 elsewhere."""

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """This device is the runtime inside the block; stage times are printed at its end, however it ends."""
        runtime = TerminalRuntime(self.device, None if self.dtype is None else getattr(torch, self.dtype))
        try:
            with use(runtime), logging_redirect_tqdm():
                yield
        finally:
            runtime.close()
            if runtime.times:
                print(runtime.summary())


def animate(job: Animate, device: Device) -> None:
    """Animate the person of a picture with the motion of a video, of poses, or of ready skeleton pictures."""
    with device.in_use():
        print(f"Wrote {animate_to_file(job)}")


def animate_stableanimator(job: AnimateStableAnimator, device: Device) -> None:
    """Animate the person of a picture by StableAnimator, which keeps the face (docs/stableanimator.md)."""
    animate(job, device)


def animate_magicpose(job: AnimateMagicPose, device: Device) -> None:
    """Redraw the person of a picture in the poses of a clip by MagicPose, frame by frame (docs/magicpose.md)."""
    animate(job, device)


def animate_tiny(job: AnimateTiny, device: Device) -> None:
    """Animate a drawn puppet by the embedded tiny model, in tests and demos."""
    animate(job, device)


def pose() -> None:
    """Poses alone, from file to file: `choreo pose extract`, `align`, `draw` and `show`."""
    _parsed(["pose", "--help"])()


def pose_extract(job: FindPoses, device: Device) -> None:
    """Find the poses of a video (or take them from JSON), clean them, and save or draw them."""
    with device.in_use():
        found = find_poses(job)
        people = found.present.sum(axis=1)
        print(f"{len(found)} frames of {found.size[1]}x{found.size[0]}, {people.min()} to {people.max()} people each")


def pose_align(job: AlignPoses, device: Device) -> None:
    """Fit the poses of a clip to the person of a picture."""
    with device.in_use():
        print(align_poses(job) or f"Aligned by {job.align}.")
        print(f"Wrote {job.output}")


def pose_draw(job: DrawPoses) -> None:
    """Draw the poses of a clip as a video."""
    print(f"Wrote {job.output}, {draw_poses(job)} frames")


def pose_show(job: ShowPoses) -> None:
    """Lay poses over the video that they were found in, for checking."""
    print(f"Wrote {job.output}, {show_poses(job)} frames")


def dataset() -> None:
    """Training sets: `choreo dataset build` and `show`."""
    _parsed(["dataset", "--help"])()


def dataset_build(videos: tyro.conf.Positional[Path], job: BuildDataset, device: Device) -> None:
    """Make a training set of a folder of videos; started again, it goes on with the videos that are missing.

    Args:
        videos: The folder; its subfolders are looked through too.
    """
    with device.in_use():
        print("\n".join(describe(build_dataset(videos, job))))


def dataset_show(name: tyro.conf.Positional[str], job: ShowDataset) -> None:
    """Say what is in a data set of any layout, and lay clips of it out in a picture.

    Args:
        name: Folder of the data set, or "puppets".
    """
    print(show_dataset(name, job))


def decode(job: Decode, device: Device) -> None:
    """Write the video of latents that a job kept because it could not write its video."""
    with device.in_use():
        print(f"Wrote {decode_to_file(job)}")


def decode_stableanimator(job: DecodeStableAnimator, device: Device) -> None:
    """Write the video of latents that a job of StableAnimator kept because it could not write its video."""
    decode(job, device)


def decode_magicpose(job: DecodeMagicPose, device: Device) -> None:
    """Write the video of latents that a job of MagicPose kept because it could not write its video."""
    decode(job, device)


def demo(job: Demo, device: Device) -> None:
    """Animate the embedded picture with the embedded video by the tiny model; needs no files and no network."""
    with device.in_use():
        video, together, picture = run_demo(job)
        print(f"Wrote {video}; with reference, poses and truth beside it: {together} and {picture}")


def train() -> None:
    """Train a system on your own clips: `choreo train mimicmotion`, `stableanimator` and `magicpose`."""
    _parsed(["train", "--help"])()


def train_mimicmotion_command(job: TrainMimicMotion, loop: Loop, reading: Reading, device: Device) -> None:
    """Train MimicMotion's UNet and PoseNet; docs/training.md is the guide."""
    with device.in_use():
        train_mimicmotion(job, loop, reading)
        print(f"Wrote {loop.output}")


def train_stableanimator_command(
    job: TrainStableAnimator, loop: Loop, device: Device, reading: Reading = STABLEANIMATOR_READING
) -> None:
    """Train StableAnimator's identity adapter, PoseNet and face encoder; docs/training.md is the guide."""
    with device.in_use():
        train_stableanimator(job, loop, reading)
        print(f"Wrote {loop.output}")


def train_magicpose_command(
    job: TrainMagicPose, device: Device, loop: Loop = MAGICPOSE_LOOP, reading: Reading = MAGICPOSE_READING
) -> None:
    """Train MagicPose's appearance network and pose ControlNet; docs/training.md is the guide."""
    with device.in_use():
        train_magicpose(job, loop, reading)
        print(f"Wrote {loop.output}")


def evaluate(job: Evaluate, device: Device) -> int:
    """Judge a system on a data set by the truth; exit status 0 when the targets are reached (docs/evaluation.md)."""
    with device.in_use():
        reached, summary = run_evaluation(job)
    print(summary)
    return 0 if reached else 1


def evaluate_stableanimator(job: EvaluateStableAnimator, device: Device) -> int:
    """Judge StableAnimator on a data set by the truth; exit status 0 when the targets are reached."""
    return evaluate(job, device)


def evaluate_magicpose(job: EvaluateMagicPose, device: Device) -> int:
    """Judge MagicPose on a data set by the truth; exit status 0 when the targets are reached (docs/evaluation.md)."""
    return evaluate(job, device)


def evaluate_tiny(job: EvaluateTiny, device: Device) -> int:
    """Judge the embedded tiny model on a data set by the truth; exit status 0 when the targets are reached."""
    return evaluate(job, device)


def ablation(job: Ablate, device: Device) -> None:
    """Change one setting at a time, and print what it does to the measures as a Markdown table."""
    with device.in_use():
        run_ablation(job)


def inspect(path: tyro.conf.Positional[Path]) -> None:
    """Say what a weights file is, or every one in a folder: what it holds, what is missing and what is surplus.

    Args:
        path: The file or folder.
    """
    for file in inspection.inspect(path):
        dtypes = ", ".join(f"{number} {name}" for name, number in file.dtypes.items())
        print(f"{file.path}: {file.title}")
        print(f"  {file.num_tensors} tensors ({dtypes}), {file.num_parameters:,} parameters, {file.num_bytes:,} bytes")
        for line in (*file.notes, *file.problems):
            print(f"  {line}")


def doctor(models: Path | None = None) -> None:
    """Say what this machine has (devices, providers, weights) and what would run.

    Args:
        models: A models folder to look in first.
    """
    print(report(() if models is None else (models,)))


def models(models: Path | None = None) -> None:
    """List the model files that Choreo knows: where to get them, where to put them, and which are found.

    Args:
        models: A models folder to look in first.
    """
    folders = () if models is None else (models,)
    print("Looked for in: " + ", ".join(map(str, model_folders(folders))))
    for row in table(folders):
        print(f"\n{row['file']}  ({row['system']}; {row['licence']})")
        print(f"  get it:      {row['where']}\n  put it into: {row['folder'] or '.'}/")
        print(f"  found:       {row['found'] or 'no'}")


def fetch(name: tyro.conf.Positional[str], folder: Path | None = None) -> None:
    """Download a file that `choreo models` lists; goes on where it was interrupted, and checks what it got.

    Args:
        name: Name of the file or folder.
        folder: The models folder to put it in; None is the first usual one.
    """
    print(f"Wrote {download(name, folder)}")


COMMANDS: dict[str, Callable[..., int | None]] = {
    "animate": animate,
    "pose": pose,
    "dataset": dataset,
    "decode": decode,
    "demo": demo,
    "train": train,
    "evaluate": evaluate,
    "ablation": ablation,
    "inspect": inspect,
    "doctor": doctor,
    "models": models,
    "download": fetch,
}
BY_MODEL: dict[tuple[str, str], Callable[..., int | None]] = {
    ("animate", "tiny"): animate_tiny,
    ("evaluate", "tiny"): evaluate_tiny,
    ("animate", "stableanimator"): animate_stableanimator,
    ("decode", "stableanimator"): decode_stableanimator,
    ("evaluate", "stableanimator"): evaluate_stableanimator,
    ("animate", "magicpose"): animate_magicpose,
    ("decode", "magicpose"): decode_magicpose,
    ("evaluate", "magicpose"): evaluate_magicpose,
}
POSE_COMMANDS: dict[str, Callable[..., None]] = {
    "extract": pose_extract,
    "align": pose_align,
    "draw": pose_draw,
    "show": pose_show,
}
TRAIN_COMMANDS: dict[str, Callable[..., None]] = {
    "mimicmotion": train_mimicmotion_command,
    "stableanimator": train_stableanimator_command,
    "magicpose": train_magicpose_command,
}
DATASET_COMMANDS: dict[str, Callable[..., None]] = {"build": dataset_build, "show": dataset_show}
GROUPS = {"pose": POSE_COMMANDS, "dataset": DATASET_COMMANDS, "train": TRAIN_COMMANDS}


def main(arguments: list[str] | None = None) -> int:
    """Run one command; returns the exit status: 0, 1 after an error that was explained or for a target that was
    missed, 130 after Ctrl-C.

    Leaves with status 2 when the arguments cannot be understood.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    if arguments == ["--version"]:
        print(f"choreo {_version()}")
        return 0
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    logging.getLogger("httpx").setLevel(logging.WARNING)
    warnings.showwarning = lambda message, *_, **__: logging.warning("Warning: %s", message)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # what schedulers of clusters send before they kill
    try:
        return _parsed(arguments or ["--help"])() or 0
    except KeyboardInterrupt:
        print("Stopped.", file=sys.stderr)
        return 130
    except EXPECTED as error:
        if os.environ.get(DEBUG_VARIABLE):
            raise
        print(f"choreo: {_sentence(error)}", file=sys.stderr)
        return 1


def _parsed(arguments: list[str]) -> Callable[[], int | None]:
    """The command with its values; ValueError in our own words for values that cannot work."""

    def later(command: Callable[..., int | None]) -> Callable[..., Callable[[], int | None]]:
        return functools.wraps(command)(lambda *values, **named: functools.partial(command, *values, **named))

    chosen, prog = COMMANDS, "choreo"
    if arguments[0] in GROUPS:
        chosen, prog, arguments = GROUPS[arguments[0]], f"choreo {arguments[0]}", arguments[1:] or ["--help"]
    model = _model(arguments)
    commands = {name: later(BY_MODEL.get((name, model), command)) for name, command in chosen.items()}
    config = (tyro.conf.OmitArgPrefixes, tyro.conf.OmitSubcommandPrefixes)
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            return tyro.extras.subcommand_cli_from_dict(commands, prog=prog, args=arguments, config=config)
    except SystemExit as leaving:
        # tyro frames the errors of our settings and names them after its own wrappers; they are whole sentences
        refused = leaving.__context__
        if isinstance(getattr(refused, "arg", None), str) and isinstance(refused.__context__, ValueError):
            raise refused.__context__ from None
        sys.stderr.write(said.getvalue())
        raise


def _model(arguments: list[str]) -> str:
    """The value of --model, which decides on a command's other options; "" when it is left out."""
    for argument, following in zip(arguments, [*arguments[1:], ""], strict=True):
        if argument == "--model":
            return following
        if argument.startswith("--model="):
            return argument.partition("=")[2]
    return ""


def _sentence(error: Exception) -> str:
    """What an error says, without the number and the quotes of the operating system's."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}." if error.filename else error.strerror
    return str(error) or ("Out of memory." if isinstance(error, MemoryError) else type(error).__name__)


def _version() -> str:
    try:
        return importlib.metadata.version(DISTRIBUTION)
    except importlib.metadata.PackageNotFoundError:
        return "of an unknown version (it is not installed as a package)"
