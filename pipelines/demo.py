"""The demo: the embedded picture, driving video and tiny model through every stage of the main job."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import repeat
from pathlib import Path

import numpy as np

from ..media.pictures import load_picture, save_picture
from ..media.strips import resized, strip, write_side_by_side
from ..media.video import open_source
from .driving import PoseSettings
from .inputs import Clip
from .job import TINY_SAMPLING, Animate, Weights, animate_to_file

DEMO_FOLDER = Path(__file__).resolve().parent.parent / "assets" / "demo"
REFERENCE_FILE, DRIVING_FILE, TRUTH_FILE = "reference.png", "driving.mp4", "truth.mp4"
SIZE = (128, 128)


@dataclass(frozen=True)
class Demo:
    """Animate the embedded picture with the embedded video by the tiny model; needs no files and no network."""

    output: Path = Path("outputs/demo.mp4")
    """The video to write; beside it NAME_poses.mp4, NAME_side_by_side.mp4 and a picture of some frames, NAME.png."""


def run_demo(demo: Demo) -> tuple[Path, Path, Path]:
    """Run the demo; returns the paths of the video, of the side-by-side video and of the picture.

    Side by side: reference, driving pose, result, and the truth: the same character drawn in the same motion.
    """
    poses = demo.output.with_name(f"{demo.output.stem}_poses.mp4")
    job = Animate(
        DEMO_FOLDER / REFERENCE_FILE,
        DEMO_FOLDER / DRIVING_FILE,
        output=demo.output,
        save_pose_video=poses,
        side_by_side=False,
        size=SIZE,
        clip=Clip(stride=1),
        pose=PoseSettings(align="none"),  # the puppets have the same proportions and stand alike
        networks=Weights("tiny"),
        sampling=TINY_SAMPLING,
    )
    animate_to_file(job)
    reference = resized(load_picture(job.reference), SIZE)
    rows = [
        np.stack([resized(frame, SIZE) for frame in open_source(path)])
        for path in (poses, demo.output, DEMO_FOLDER / TRUTH_FILE)
    ]
    together = demo.output.with_name(f"{demo.output.stem}_side_by_side.mp4")
    write_side_by_side(together, open_source(demo.output).fps, repeat(reference), *rows)
    picture = demo.output.with_suffix(".png")
    save_picture(picture, strip(reference, rows))
    return demo.output, together, picture
