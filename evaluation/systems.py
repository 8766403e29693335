"""Systems as the protocol wants them: a callable from a task to frames."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import chain
from typing import Any

import numpy as np

from ..pipelines import magicpose, stableanimator
from ..pipelines.mimicmotion import Settings, animate
from ..samplers.windows import windows
from .protocol import Task

Embed = Callable[[np.ndarray], np.ndarray | None]  # whole reference picture -> ArcFace embedding, as of pipelines.faces


class MimicMotion:
    """MimicMotion under the protocol.

    networks, parts, settings: as in :func:`..pipelines.mimicmotion.generate`; the seed is the task's.
    fusion: windows overlap and are fused (section 3.4 of the paper); without it the clip is cut into pieces of a
    window each, which are made one by one.
    A reference without a pose of its own takes the first pose.
    """

    reference_frames = 1  # in every window, before those of the video

    def __init__(self, networks: Any, parts: Any, settings: Settings, *, fusion: bool = True) -> None:
        self.networks, self.parts, self.settings, self.fusion = networks, parts, settings, fusion
        self.window = settings.window or networks.window

    def __call__(self, task: Task) -> Iterator[np.ndarray]:
        """One uint8 (H, W, 3) frame for every pose picture."""
        settings = replace(self.settings, seed=task.seed)
        for piece in self._pieces(len(task.pose_pictures)):
            yield from self._animate(task, task.pose_pictures[piece], settings)

    def _animate(self, task: Task, pose_pictures: np.ndarray, settings: Settings) -> Iterator[np.ndarray]:
        first = task.pose_pictures[0] if task.reference_pose is None else task.reference_pose
        return animate(self.networks, self.parts, task.reference, chain([first], pose_pictures), settings)

    def borders(self, num_frames: int) -> Sequence[int]:
        """Frames of the video that are predicted by other windows than the frame before; what opens every window,
        the reference or the first frame, is not counted."""
        if not self.fusion:
            return [piece.start for piece in self._pieces(num_frames)[1:]]
        first = self.reference_frames
        inside = [set(window) for window in windows(num_frames + first, self.window, self.settings.overlap)]
        covered = [[frame in window for window in inside] for frame in range(first, num_frames + first)]
        return [frame for frame in range(2 - first, num_frames) if covered[frame] != covered[frame - 1]]

    def _pieces(self, num_frames: int) -> list[slice]:
        step = num_frames if self.fusion else self.window - self.reference_frames
        return [slice(start, start + step) for start in range(0, num_frames, step)]


class StableAnimator(MimicMotion):
    """StableAnimator under the protocol, with the face of each task's reference.

    networks, parts, settings, fusion: as of :class:`MimicMotion`. embed: whose face it is.
    Pose pictures must be in the style "stableanimator".
    """

    reference_frames = 0

    def __init__(
        self,
        networks: Any,
        parts: Any,
        settings: stableanimator.Settings,
        *,
        fusion: bool = True,
        embed: Embed = lambda _: None,
    ) -> None:
        super().__init__(networks, parts, settings, fusion=fusion)
        self.embed = embed

    def _animate(self, task: Task, pose_pictures: np.ndarray, settings: Settings) -> Iterator[np.ndarray]:
        identity = self.embed(task.reference)
        return stableanimator.animate(
            self.networks, self.parts, task.reference, pose_pictures, settings, identity=identity
        )


class MagicPose:
    """MagicPose under the protocol; every frame is made for itself.

    networks, parts, settings: as in :func:`..pipelines.magicpose.generate`; the seed is the task's.
    """

    def __init__(self, networks: Any, parts: Any, settings: magicpose.MagicPoseSettings) -> None:
        self.networks, self.parts, self.settings = networks, parts, settings

    def __call__(self, task: Task) -> Iterator[np.ndarray]:
        """One uint8 (H, W, 3) frame for every pose picture."""
        settings = replace(self.settings, seed=task.seed)
        return magicpose.animate(self.networks, self.parts, task.reference, task.pose_pictures, settings)

    def borders(self, num_frames: int) -> Sequence[int]:
        """None: no frame knows another."""
        return []
