"""The poses of a clip as data: 134 whole-body points with scores, for any number of people."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

NUM_POINTS = 134
BODY = slice(0, 18)  # OpenPose-18: nose, neck, right arm, left arm, right leg, left leg, eyes, ears
FEET = slice(18, 24)  # left big toe, small toe, heel, then right
FACE = slice(24, 92)  # 68 iBUG points
LEFT_HAND = slice(92, 113)
RIGHT_HAND = slice(113, 134)
VISIBLE = 0.3  # the score above which every published system calls a body joint visible


def _frozen(array: np.ndarray, dtype: type, shape: tuple[int | None, ...], name: str) -> np.ndarray:
    array = np.array(array, dtype=dtype)  # a copy: nobody else holds it, so it stays as it is
    if array.ndim != len(shape) or any(s not in (None, n) for s, n in zip(shape, array.shape, strict=True)):
        wanted = ", ".join("any" if s is None else str(s) for s in shape)
        raise ValueError(f"{name} must have the shape ({wanted}), got {array.shape}")
    array.flags.writeable = False
    return array


@dataclass(frozen=True, eq=False)
class Poses:
    """Poses of every person in every frame of a clip; immutable.

    points:  (frames, people, 134, 2) float64, x and y as shares of the canvas width and height (0..1 inside
             the picture, any value outside), in OpenPose order; see the slices of this module.
    scores:  (frames, people, 134) float64, 0 for a point that was not found; raw activations, may exceed 1.
    present: (frames, people) bool; False marks a slot that is empty in this frame (its points mean nothing).
    size:    (height, width) of the canvas in pixels that the poses were found on.
    fps:     frames per second of these frames, or None for a still picture or when unknown.
    """

    points: np.ndarray
    scores: np.ndarray
    present: np.ndarray
    size: tuple[int, int]
    fps: float | None = None

    def __post_init__(self) -> None:
        points = _frozen(self.points, np.float64, (None, None, NUM_POINTS, 2), "points")
        frames, people = points.shape[:2]
        height, width = (int(side) for side in self.size)
        if height < 1 or width < 1:
            raise ValueError(f"size must be (height, width) in pixels, got {self.size}")
        set_field = object.__setattr__
        set_field(self, "points", points)
        set_field(self, "scores", _frozen(self.scores, np.float64, (frames, people, NUM_POINTS), "scores"))
        set_field(self, "present", _frozen(self.present, np.bool_, (frames, people), "present"))
        set_field(self, "size", (height, width))
        set_field(self, "fps", None if self.fps is None else float(self.fps))

    @classmethod
    def from_frames(
        cls,
        frames: Iterable[tuple[np.ndarray, np.ndarray]],
        size: tuple[int, int],
        fps: float | None = None,
    ) -> Poses:
        """Poses from one (points (n, 134, 2), scores (n, 134)) pair a frame; n may differ and may be 0."""
        frames = list(frames)
        people = max((len(points) for points, _ in frames), default=0)
        points = np.zeros((len(frames), people, NUM_POINTS, 2))
        scores = np.zeros((len(frames), people, NUM_POINTS))
        present = np.zeros((len(frames), people), dtype=bool)
        for f, (frame_points, frame_scores) in enumerate(frames):
            n = len(frame_points)
            points[f, :n], scores[f, :n], present[f, :n] = frame_points, frame_scores, True
        return cls(points, scores, present, size, fps)

    def __len__(self) -> int:
        return len(self.points)

    @property
    def num_people(self) -> int:
        """Number of person slots (the largest number of people in any frame, or of tracks)."""
        return self.points.shape[1]

    def __getitem__(self, frames: int | slice | Sequence[int] | np.ndarray) -> Poses:
        """The given frames; a single index keeps the frame axis."""
        if isinstance(frames, (int, np.integer)):
            frames = [frames]
        return replace(self, points=self.points[frames], scores=self.scores[frames], present=self.present[frames])

    def frame(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """(points (n, 134, 2), scores (n, 134)) of the n people present in one frame, in slot order."""
        there = self.present[index]
        return self.points[index][there], self.scores[index][there]

    def person(self, slot: int) -> Poses:
        """The clip with only the person of one slot; the person axis is kept with length 1."""
        return replace(
            self,
            points=self.points[:, slot : slot + 1],
            scores=self.scores[:, slot : slot + 1],
            present=self.present[:, slot : slot + 1],
        )

    def pixels(self) -> np.ndarray:
        """(frames, people, 134, 2) points in pixels of the canvas."""
        return self.points * (self.size[1], self.size[0])

    def with_points(self, points: np.ndarray, scores: np.ndarray | None = None) -> Poses:
        """The same clip with other coordinates (and scores) of the same shape."""
        return replace(self, points=points, scores=self.scores if scores is None else scores)


def concatenate(clips: Sequence[Poses]) -> Poses:
    """Clips one after another; size and fps are those of the first, empty slots are added where needed."""
    if not clips:
        raise ValueError("concatenate needs at least one clip of poses")
    frames = [clip.frame(i) for clip in clips for i in range(len(clip))]
    if all(clip.num_people == clips[0].num_people for clip in clips):
        return replace(
            clips[0],
            points=np.concatenate([clip.points for clip in clips]),
            scores=np.concatenate([clip.scores for clip in clips]),
            present=np.concatenate([clip.present for clip in clips]),
        )
    return Poses.from_frames(frames, clips[0].size, clips[0].fps)
