"""Puppets as a data set."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ...pose.draw import draw_clip
from ...pose.poses import NUM_POINTS, Poses
from ..clips import Clip
from .character import Character, draw_character
from .motion import Motion, draw_motion
from .paint import paint, paint_background
from .skeleton import pose_skeleton

FPS = 12.0
STYLE = "mimicmotion"
_ENDLESS = 2**31 - 1
_CHARACTER, _MOTION, _REFERENCE = range(3)  # what a random stream is for


def render(
    character: Character, motion: Motion, num_frames: int, size: tuple[int, int], start: float = 0.0
) -> tuple[np.ndarray, Poses]:
    """The puppet in motion, from frame `start` on.

    Returns frames uint8 (F, H, W, 3) RGB and the true keypoints of every frame (one person; scores as in
    `Skeleton.scores`).
    """
    background = paint_background(character, size)
    frames = np.empty((num_frames, *size, 3), np.uint8)
    points, scores = np.empty((num_frames, 1, NUM_POINTS, 2)), np.empty((num_frames, 1, NUM_POINTS))
    for f in range(num_frames):
        skeleton = pose_skeleton(character, motion.at(start + f), size)
        frames[f] = paint(character, skeleton, background)
        points[f, 0], scores[f, 0] = skeleton.points / (size[1], size[0]), skeleton.scores
    present = np.ones((num_frames, 1), bool)
    return frames, Poses(points, scores, present, size, FPS)


@dataclass(frozen=True)
class Puppets:
    """Endless drawn clips (a `ClipSource`): clip `index` is a character, `seed` gives it another motion.

    held_out: characters and motions that the ones for training never share.
    seed:     another set of characters.
    style:    what poses are drawn in, see docs/drawing.md.
    """

    held_out: bool = False
    seed: int = 0
    style: str = STYLE

    def __len__(self) -> int:
        return _ENDLESS

    def character(self, index: int) -> Character:
        """The puppet number `index`."""
        return draw_character(self._random(_CHARACTER, index))

    def clip(self, index: int, num_frames: int, size: tuple[int, int], seed: int = 0) -> Clip:
        """See `ClipSource.clip`. The reference picture shows the puppet in another pose, at another place."""
        character = self.character(index)
        motion = draw_motion(self._random(_MOTION, index, seed))
        frames, poses = render(character, motion, num_frames, size)
        pictures = np.stack(list(draw_clip(poses, size, self.style)))
        reference, pose = self.reference(index, size, seed)
        return Clip(reference, frames, pictures, poses, FPS, f"puppet {index} ({motion.kind})", pose)

    def reference(self, index: int, size: tuple[int, int], seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
        """Puppet `index` standing, facing the viewer, and its pose drawn: uint8 (H, W, 3) RGB each."""
        picture, poses = self.standing(index, size, seed)
        return picture, next(draw_clip(poses, size, self.style))

    def standing(self, index: int, size: tuple[int, int], seed: int = 0) -> tuple[np.ndarray, Poses]:
        """The picture of :meth:`reference` with its true keypoints, one frame of one person."""
        rng = self._random(_REFERENCE, index, seed)
        motion = draw_motion(rng, "wave")
        frames, poses = render(self.character(index), motion, 1, size, start=float(rng.uniform(0, 100)))
        return frames[0], poses

    def _random(self, purpose: int, *numbers: int) -> np.random.Generator:
        return np.random.default_rng([int(self.held_out), self.seed, purpose, *numbers])
