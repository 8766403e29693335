"""Smoothing poses over time (docs/pose.md)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from .people import find_breaks
from .poses import Poses

METHODS = ("none", "one-euro", "gaussian", "median")
_FPS = 30.0  # for clips that do not say


class OneEuro:
    """The One-Euro filter (Casiez et al., CHI 2012): a low-pass whose cutoff rises with speed.

    Call it with frame after frame. min_cutoff: cutoff in Hz at rest, lower is steadier; beta: Hz by which the cutoff
    rises for each unit of speed (units of x per second), higher lags less; derivative_cutoff: Hz of the filter on
    the speed; interval: seconds from frame to frame.
    """

    def __init__(
        self, min_cutoff: float = 1.7, beta: float = 0.3, derivative_cutoff: float = 1.0, interval: float = 1 / _FPS
    ) -> None:
        for name, value in (("min_cutoff", min_cutoff), ("derivative_cutoff", derivative_cutoff)):
            if not value > 0:
                raise ValueError(f"{name} of the One-Euro filter must be above 0, got {value}")
        self.min_cutoff, self.beta, self.derivative_cutoff = min_cutoff, beta, derivative_cutoff
        self.interval = interval
        self._x: np.ndarray | None = None
        self._speed = np.zeros(())
        self._known = np.zeros((), dtype=bool)

    def __call__(self, x: np.ndarray, found: np.ndarray | None = None) -> np.ndarray:
        """Filter a frame of points x (..., 2); found (...) is False where there is no value.

        A point that was not found comes back as it is and starts anew when it is next found.
        """
        x = np.asarray(x, dtype=np.float64)
        found = np.ones(x.shape[:-1], dtype=bool) if found is None else np.asarray(found)
        if self._x is None:
            self._x, self._speed, self._known = x, np.zeros_like(x), np.zeros_like(found)
        goes_on = (found & self._known)[..., None]
        smoothed, speed = self._step(x)
        self._x, self._speed = np.where(goes_on, smoothed, x), np.where(goes_on, speed, 0.0)
        self._known = found
        return self._x

    def _alpha(self, cutoff: np.ndarray | float) -> np.ndarray | float:
        r = 2 * np.pi * cutoff * self.interval
        return r / (r + 1)

    def _step(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        a = self._alpha(self.derivative_cutoff)
        speed = a * (x - self._x) / self.interval + (1 - a) * self._speed
        a = self._alpha(self.min_cutoff + self.beta * np.abs(speed))
        return a * x + (1 - a) * self._x, speed


class MmposeOneEuro(OneEuro):
    """The filter as mmpose (and after it MIMO) publishes it for videos; here to compare with, not to use.

    Its time unit is the frame, so `fps` is the cutoff of the speed. A coordinate of 0 or less is missing: it comes
    out as -10, and the next value is filtered from there.
    """

    missing = -10.0

    def __init__(self, min_cutoff: float = 1.7, beta: float = 0.3, fps: float = _FPS) -> None:
        super().__init__(min_cutoff, beta, derivative_cutoff=fps, interval=1.0)

    def __call__(self, x: np.ndarray, found: np.ndarray | None = None) -> np.ndarray:
        """Filter a frame of points x (..., 2); `found` is not used. The first frame comes back as it is."""
        x = np.asarray(x, dtype=np.float64)
        if self._x is None:
            self._x, self._speed = x.astype(np.float32).astype(np.float64), np.zeros_like(x)
            return x
        smoothed, self._speed = self._step(x)
        self._x = np.where(x <= 0, self.missing, smoothed)
        return self._x


def smooth(
    poses: Poses,
    method: str = "none",
    *,
    min_cutoff: float = 1.7,
    beta: float = 0.3,
    sigma: float = 1.0,
    window: int = 3,
) -> Poses:
    """Smooth the motion of every slot; slots should be people (`people.track_people` or `choose_people`).

    method: "none"; "one-euro" with min_cutoff (Hz) and beta (Hz per pixel and second), see :class:`OneEuro`;
        "gaussian" with sigma in frames; "median" over a window of frames (odd).

    Never across a cut, a gap or another person (`people.find_breaks`). Points with a score of 0 or less stay as they
    are and do not count for the others. Scores do not change.
    """
    if method not in METHODS:
        raise ValueError(f"Unknown smoothing {method!r}; choose one of {', '.join(METHODS)}.")
    if method == "gaussian" and not sigma > 0:
        raise ValueError(f"sigma of the gaussian smoothing must be above 0 frames, got {sigma}")
    if method == "median" and (window < 1 or window % 2 == 0):
        raise ValueError(f"The window of the median must be an odd number of frames, got {window}")
    if method == "none":
        return poses
    points, found = poses.pixels(), poses.scores > 0
    for frames, slot in _runs(poses):
        run = points[frames, slot], found[frames, slot]
        if method == "one-euro":
            one_euro = OneEuro(min_cutoff, beta, interval=1 / (poses.fps or _FPS))
            smoothed = np.stack([one_euro(*frame) for frame in zip(*run, strict=True)])
        else:
            smoothed = _gaussian(*run, sigma) if method == "gaussian" else _median(*run, window)
        points[frames, slot] = np.where(run[1][..., None], smoothed, run[0])
    return poses.with_points(points / (poses.size[1], poses.size[0]))


def drop_low_scores(poses: Poses, threshold: float) -> Poses:
    """Points with a score below a threshold count as not found (score 0); so does a person with no point left."""
    scores = np.where(poses.scores < threshold, 0.0, poses.scores)
    return replace(poses, scores=scores, present=poses.present & (scores > 0).any(axis=-1))


def _runs(poses: Poses) -> Iterator[tuple[slice, int]]:
    """(frames, slot) of every uninterrupted stretch of one person."""
    breaks = find_breaks(poses)
    for slot in range(poses.num_people):
        there = poses.present[:, slot]
        starts = np.flatnonzero(there & (breaks[:, slot] | ~np.r_[False, there[:-1]]))
        ends = np.flatnonzero(~there | breaks[:, slot])
        for start in starts:
            later = ends[ends > start]
            yield slice(int(start), int(later[0]) if len(later) else len(poses)), slot


def _gaussian(points: np.ndarray, found: np.ndarray, sigma: float) -> np.ndarray:
    """Mean of points (frames, n, 2) over frames, weighted by a gaussian and by found (frames, n)."""
    frames = len(points)
    weights, total = found[..., None].astype(np.float64), np.zeros_like(points)
    norm = np.zeros_like(weights)
    reach = min(int(np.ceil(4 * sigma)), frames - 1)
    for offset in range(-reach, reach + 1):
        value = np.exp(-0.5 * (offset / sigma) ** 2)
        to = slice(max(0, -offset), frames - max(0, offset))
        source = slice(max(0, offset), frames - max(0, -offset))
        total[to] += value * weights[source] * points[source]
        norm[to] += value * weights[source]
    return np.divide(total, norm, out=points.copy(), where=norm > 0)


def _median(points: np.ndarray, found: np.ndarray, window: int) -> np.ndarray:
    """Median of points (frames, n, 2) over a window of frames, of those found (frames, n); shorter at the ends."""
    known = np.where(found[..., None], points, np.nan)
    padding = window // 2
    padded = np.pad(known, [(padding, padding), (0, 0), (0, 0)], constant_values=np.nan)
    ordered = np.sort(np.lib.stride_tricks.sliding_window_view(padded, window, axis=0), axis=-1)  # NaN comes last
    count = np.maximum((~np.isnan(ordered)).sum(axis=-1, keepdims=True), 1)
    middle = np.concatenate([(count - 1) // 2, count // 2], axis=-1)
    return np.take_along_axis(ordered, middle, axis=-1).mean(axis=-1)
