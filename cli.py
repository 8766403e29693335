"""The command line: `choreo animate`, `poses`, `decode`, `demo`, `models` and `download`."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
import tyro

from .model_loaders.catalogue import model_folders, table
from .model_loaders.download import download
from .pipelines.demo import Demo, run_demo
from .pipelines.job import Animate, Decode, animate_to_file, decode_to_file
from .pipelines.pose_job import FindPoses, find_poses
from .runtime import use
from .terminal import TerminalRuntime

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
        """This device is the runtime inside the block; stage times are printed at its end."""
        runtime = TerminalRuntime(self.device, None if self.dtype is None else getattr(torch, self.dtype))
        try:
            with use(runtime):
                yield
        finally:
            runtime.close()
        print(runtime.summary())


def animate(job: Animate, device: Device) -> None:
    """Animate the person of a picture with the motion of a video, of poses, or of ready skeleton pictures."""
    with device.in_use():
        print(f"Wrote {animate_to_file(job)}")


def poses(job: FindPoses, device: Device) -> None:
    """Find the poses of a video (or take them from JSON), clean them, and save or draw them."""
    with device.in_use():
        found = find_poses(job)
        people = found.present.sum(axis=1)
        print(f"{len(found)} frames of {found.size[1]}x{found.size[0]}, {people.min()} to {people.max()} people each")


def decode(job: Decode, device: Device) -> None:
    """Write the video of latents that a job left behind when its video could not be written."""
    with device.in_use():
        print(f"Wrote {decode_to_file(job)}")


def demo(job: Demo, device: Device) -> None:
    """Animate the embedded picture with the embedded video by the tiny model; needs no files and no network."""
    with device.in_use():
        video, picture = run_demo(job)
        print(f"Wrote {video}, and all its stages in {picture}")


def models(models: Path | None = None) -> None:
    """List the model files that Choreo knows: where to get them, where to put them, and which are found.

    Args:
        models: A models folder to look in first.
    """
    folders = () if models is None else (models,)
    print("Looked for in: " + ", ".join(map(str, model_folders(folders))))
    for row in table(folders):
        print(f"\n{row['file']}  ({row['system']}; {row['licence']})")
        print(f"  get it:      {row['where']}\n  put it into: {row['folder']}/\n  found:       {row['found'] or 'no'}")


def fetch(name: tyro.conf.Positional[str], folder: Path | None = None) -> None:
    """Download a file that `choreo models` lists; goes on where it was interrupted, and checks what it got.

    Args:
        name: Name of the file or folder.
        folder: The models folder to put it in; None is the first usual one.
    """
    print(f"Wrote {download(name, folder)}")


COMMANDS: dict[str, Callable[..., None]] = {
    "animate": animate,
    "poses": poses,
    "decode": decode,
    "demo": demo,
    "models": models,
    "download": fetch,
}


def main(arguments: list[str] | None = None) -> int:
    """Run one command; returns the exit status: 0, 1 after an error that was explained, 130 after Ctrl-C."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    logging.getLogger("httpx").setLevel(logging.WARNING)
    warnings.showwarning = lambda message, *_, **__: print(f"Warning: {message}", file=sys.stderr)
    config = (tyro.conf.OmitArgPrefixes, tyro.conf.OmitSubcommandPrefixes)
    try:
        tyro.extras.subcommand_cli_from_dict(COMMANDS, prog="choreo", args=arguments, config=config)
    except KeyboardInterrupt:
        print("Stopped.", file=sys.stderr)
        return 130
    except EXPECTED as error:
        if os.environ.get(DEBUG_VARIABLE):
            raise
        print(f"choreo: {error}", file=sys.stderr)
        return 1
    return 0
