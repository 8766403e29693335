"""What every data set hands out: a clip of one person, with the reference picture and the pose pictures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from ..pose.poses import Poses


@dataclass(frozen=True, eq=False)
class Clip:
    """One sample for training or evaluation.

    reference:     uint8 (H, W, 3) RGB, a picture of the person, as a rule in another pose than any frame.
    frames:        uint8 (F, H, W, 3) RGB.
    pose_pictures: uint8 (F, H, W, 3) RGB, the poses of the frames drawn the way the network is shown them.
    poses:         the keypoints of the frames with their scores, where the data set has them: drives the regional loss
                   and the pose accuracy; None for data sets that keep only pictures of poses.
    fps:           frames per second.
    name:          what messages and tables call the clip.
    reference_pose: uint8 (H, W, 3) RGB, the pose of the reference drawn likewise: what frame 0 of every window is shown
                   when the clip is animated. None where the data set does not know it.
    faces:         uint8 (F, H, W), face masks of the frames, 255 on faces; None for data sets without.
    """

    reference: np.ndarray
    frames: np.ndarray
    pose_pictures: np.ndarray
    poses: Poses | None
    fps: float
    name: str
    reference_pose: np.ndarray | None = None
    faces: np.ndarray | None = None


class ClipSource(Protocol):
    """A data set: clips by number, the same clip for the same arguments on every machine and in every process.

    `len(source)` is the number of different videos or characters; endless sources name a large number.
    """

    def __len__(self) -> int: ...

    def clip(self, index: int, num_frames: int, size: tuple[int, int], seed: int = 0) -> Clip:
        """The clip of video `index`, 0 <= index < len(source).

        num_frames: frames wanted; size: (height, width) in pixels; seed: chooses start and reference where the data
        set leaves a choice. Raises ValueError, naming the video, for one that gives no such clip.
        """
        ...
