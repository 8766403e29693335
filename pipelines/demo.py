"""The demo: the embedded picture, driving video and tiny model through every stage of the main job."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import numpy as np

from ..media.pictures import load_picture, save_picture
from ..media.video import open_source
from .job import Animate, Weights, animate_to_file
from .mimicmotion import Settings

DEMO_FOLDER = Path(__file__).resolve().parent.parent / "assets" / "demo"
STRIP_FRAMES = 4


@dataclass(frozen=True)
class Demo:
    """Animate the embedded picture with the embedded video by the tiny model; needs no files and no network."""

    output: Path = Path("outputs/demo.mp4")
    """The video to write; the poses and a picture of all stages are written beside it."""


def run_demo(demo: Demo) -> tuple[Path, Path]:
    """Run the demo; returns the paths of the video and of the picture of its stages."""
    reference, video = DEMO_FOLDER / "reference.png", DEMO_FOLDER / "driving.mp4"
    poses = demo.output.with_name(demo.output.stem + "_poses.mp4")
    settings = Settings(steps=10, schedule="ays")
    job = Animate(reference, video, output=demo.output, save_pose_video=poses, size=(128, 192), sampling=settings)
    animate_to_file(replace(job, networks=Weights("tiny")))
    strip = demo.output.with_suffix(".png")
    save_picture(strip, _strip(load_picture(reference), [video, poses, demo.output]))
    return demo.output, strip


def _strip(reference: np.ndarray, videos: list[Path]) -> np.ndarray:
    """The reference, and to its right a row per video with some of its frames, uint8 RGB."""
    height, width = open_source(videos[-1]).size
    rows = [_some_frames(path, (height, width)) for path in videos]
    picture = np.full((height * len(rows), width * (STRIP_FRAMES + 1), 3), 24, dtype=np.uint8)
    picture[:height, :width] = _resized(reference, (height, width))
    for r, row in enumerate(rows):
        for c, frame in enumerate(row, start=1):
            picture[r * height : (r + 1) * height, c * width : (c + 1) * width] = frame
    return picture


def _some_frames(path: Path, size: tuple[int, int]) -> list[np.ndarray]:
    source = open_source(path)
    step = max(1, source.num_frames // STRIP_FRAMES)
    return [_resized(frame, size) for frame in islice(source, 0, step * STRIP_FRAMES, step)]


def _resized(picture: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    import cv2

    return cv2.resize(picture, size[::-1], interpolation=cv2.INTER_AREA)
