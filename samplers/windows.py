"""Progressive latent fusion (MimicMotion, section 3.4): windows over a clip and the weighted mean of their predictions.

Frame 0 opens every window: MimicMotion's reference frame, StableAnimator's first frame.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch


def check_window(window: int, overlap: int) -> None:
    """Raise ValueError for a window and overlap (in frames, frame 0 counted) that cannot cover a clip."""
    if window < 2:
        raise ValueError(
            f"The window must hold at least 2 frames (the first one of the clip and one more), got {window}."
        )
    if overlap < 1:
        raise ValueError(f"The window overlap must be at least 1 frame, got {overlap}; frames would be left out.")
    if overlap >= window:
        raise ValueError(f"The window overlap ({overlap}) must be smaller than the window ({window}).")


def windows(num_frames: int, window: int, overlap: int) -> list[list[int]]:
    """Frame indices of each window, in the order of execution; every window starts with frame 0.

    num_frames counts frame 0. A clip shorter than the window is one window.
    """
    check_window(window, overlap)
    if num_frames < 1:
        raise ValueError("A clip needs at least 1 frame, got none.")
    if num_frames <= window:
        return [list(range(num_frames))]
    starts = list(range(0, num_frames - window + 1, window - overlap))
    if starts[-1] + window < num_frames:
        starts.append(num_frames - window)
    return [[0, *range(start + 1, start + window)] for start in starts]


def window_weights(length: int) -> torch.Tensor:
    """(length,) float32: triangular weight of a position in its window, highest in the middle."""
    rise = (torch.arange(length) + 0.5) * 2 / length
    return torch.minimum(rise, 2 - rise)


class LatentFusion:
    """Running weighted mean, over the windows of a clip, of the predictions of one or more passes.

    shape: (passes, frames, channels, height, width) of the mean; dtype: of weights and sums.
    """

    def __init__(self, shape: Sequence[int], dtype: torch.dtype = torch.float32) -> None:
        self.total = torch.zeros(*shape, dtype=dtype)
        self.weight = torch.zeros(*shape[:2], dtype=dtype)

    def add(self, row: int, frames: list[int], prediction: torch.Tensor) -> None:
        """Add what one pass predicted for the frames of one window; prediction (len(frames), 4, h, w)."""
        weights = window_weights(len(frames)).to(self.total.dtype)
        self.total[row, frames] += prediction.to(self.total) * weights.view(-1, 1, 1, 1)
        self.weight[row, frames] += weights

    def mean(self) -> torch.Tensor:
        """(passes, frames, channels, height, width): the fused predictions."""
        return self.total / self.weight[:, :, None, None, None]
