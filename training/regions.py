"""What counts more in the loss: hands with a trustworthy pose (MimicMotion, section 3.3), faces (StableAnimator)."""

from __future__ import annotations

import numpy as np
import torch
from torch.nn import functional

from ..datasets.clips import Clip
from ..pose.masks import masks_from_poses, points_boxes
from ..pose.poses import LEFT_HAND, RIGHT_HAND, Poses

THRESHOLD = 0.7
MARGIN = 10 / 576  # around a hand's points, as a share of the picture's short side


def hand_boxes(
    poses: Poses, size: tuple[int, int], threshold: float = THRESHOLD, margin: float = MARGIN
) -> list[list[tuple[int, int, int, int]]]:
    """Per frame the boxes (top, bottom, left, right) in pixels of every hand whose 21 scores all exceed the threshold.

    size: (height, width) of the picture that the boxes are for. Boxes are clipped to it; empty ones are left out.
    """
    height, width = size
    border = round(margin * min(size))
    frames = []
    for number in range(len(poses)):
        boxes = []
        for points, scores in zip(*poses.frame(number), strict=True):
            for hand in (LEFT_HAND, RIGHT_HAND):
                if (scores[hand] <= threshold).any():
                    continue
                x1, y1, x2, y2 = points_boxes(points[hand], size, border)
                top, bottom = np.clip([y1, y2], 0, height)
                left, right = np.clip([x1, x2], 0, width)
                if top < bottom and left < right:
                    boxes.append((int(top), int(bottom), int(left), int(right)))
        frames.append(boxes)
    return frames


def hand_shares(
    poses: Poses, size: tuple[int, int], latent_size: tuple[int, int], threshold: float = THRESHOLD
) -> torch.Tensor:
    """(F, h, w) float32 in [0, 1]: how much of each latent pixel lies in a trustworthy hand's box."""
    mask = torch.zeros(len(poses), *size)
    for number, boxes in enumerate(hand_boxes(poses, size, threshold)):
        for top, bottom, left, right in boxes:
            mask[number, top:bottom, left:right] = 1
    return mask_shares(mask, latent_size)


def face_shares(clip: Clip, latent_size: tuple[int, int]) -> torch.Tensor:
    """(F, h, w) float32 in [0, 1]: how much of each latent pixel is face.

    By the clip's face masks where it has them, else by boxes around the faces of its poses. A frame without a face, or
    with a mask that is white everywhere (which published tools write where they found none), has none.
    """
    if clip.faces is None and clip.poses is None:
        return torch.zeros(len(clip.frames), *latent_size)
    size = clip.frames.shape[1:3]
    faces = list(masks_from_poses(clip.poses, size=size, empty=0)) if clip.faces is None else clip.faces
    masks = torch.from_numpy(np.stack(list(faces))) / 255
    return mask_shares(masks * (masks < 1).flatten(1).any(dim=1).view(-1, 1, 1), latent_size)


def mask_shares(masks: torch.Tensor, latent_size: tuple[int, int], nearest: bool = False) -> torch.Tensor:
    """(F, h, w): how much of each latent pixel lies in a mask (F, H, W) of 0..1.

    nearest: the value at its first corner instead, as StableAnimator's trainer takes it.
    """
    if nearest:
        return functional.interpolate(masks[:, None], latent_size, mode="nearest")[:, 0]
    return functional.adaptive_avg_pool2d(masks[:, None], latent_size)[:, 0]


def region_weights(shares: torch.Tensor, factor: float) -> torch.Tensor:
    """1 outside the regions, `factor` inside: 1 + (factor - 1) m."""
    return 1 + (factor - 1) * shares
