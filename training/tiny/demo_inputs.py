"""What the demo runs on: two puppets that no training saw, one moving, and the other making the same motion."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path

import numpy as np

from ...datasets.puppets import Puppets, render
from ...datasets.puppets.character import Character
from ...datasets.puppets.motion import draw_motion
from ...datasets.puppets.source import FPS
from ...media.pictures import save_picture
from ...media.write import VideoWriter
from ...pipelines.demo import DEMO_FOLDER, DRIVING_FILE, REFERENCE_FILE, TRUTH_FILE

SIZE = (256, 256)
FRAMES = 32
HERO, ACTOR = 10, 3  # numbers of held-out puppets
MOTION, KIND = 3, "dance"


def write_demo_inputs(folder: Path = DEMO_FOLDER) -> None:
    """Write reference.png, driving.mp4 and truth.mp4.

    The two puppets have the same proportions, so that the truth is exactly what the animated picture should show.
    """
    puppets = Puppets(held_out=True, seed=2)
    hero = puppets.character(HERO)
    actor = replace(puppets.character(ACTOR), **_proportions(hero))
    motion = draw_motion(np.random.default_rng(MOTION), KIND)
    save_picture(folder / REFERENCE_FILE, puppets.reference(HERO, SIZE)[0])
    for name, character in ((DRIVING_FILE, actor), (TRUTH_FILE, hero)):
        with VideoWriter(folder / name, SIZE, FPS) as video:
            for frame in render(character, motion, FRAMES, SIZE)[0]:
                video.write(frame)


def _proportions(character: Character) -> dict[str, float]:
    lengths = ("height", "torso", "leg", "arm", "shoulders", "hips", "head", "limb")
    return {field.name: getattr(character, field.name) for field in fields(character) if field.name in lengths}
