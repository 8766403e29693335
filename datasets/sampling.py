"""Which frames of a video make a clip, and which one the reference."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

BRIDGE = 3  # so many missing frames in a row do not end a stretch of frames that belong together


def clip_length(num_kept: int, num_frames: int, rate: int) -> int:
    """How many of `num_kept` frames a clip of every `rate`-th one spans; fewer where there are not as many."""
    return min(num_kept, (num_frames - 1) * rate + 1)


def clip_positions(num_kept: int, num_frames: int, rate: int, start: int) -> list[int]:
    """Positions in a list of `num_kept` frames of a clip of `num_frames` that begins at `start`, as published.

    Evenly from start over :func:`clip_length`, truncated. A list too short for the rate gives a smaller step, and one
    with fewer than `num_frames` entries repeats some (docs/datasets.md).
    """
    length = clip_length(num_kept, num_frames, rate)
    return np.linspace(start, start + length - 1, num_frames, dtype=int).tolist()


def random_clip(runs: Sequence[np.ndarray], num_frames: int, rate: int, generator: np.random.Generator) -> np.ndarray:
    """Frame numbers (num_frames) of a random clip within one of `runs`, rising frame numbers that belong together.

    All starts in all runs that are long enough are equally likely; when none is, the longest run is used as it is.
    With a single run this is the published rule.
    """
    span = clip_length(max(map(len, runs)), num_frames, rate)
    starts = np.array([max(0, len(run) - span + 1) for run in runs])
    chosen = int(generator.integers(starts.sum()))
    number = int(np.searchsorted(starts.cumsum(), chosen, side="right"))
    run = runs[number]
    start = chosen - int(starts[:number].sum())
    return run[clip_positions(len(run), num_frames, rate, start)]


def frames_outside(shot: np.ndarray, clip: np.ndarray) -> np.ndarray:
    """The frames of a shot that are not in a clip, rising: what the published trainers choose the reference from."""
    return np.setdiff1d(shot, clip)


def random_reference(
    shot: np.ndarray, clip: np.ndarray, away: int, generator: np.random.Generator, within: int | None = None
) -> int:
    """The number of a frame of `shot` for the reference of a clip: `away` frames from the clip where possible.

    Else outside the clip, else between its frames, else one of them. within: at most so many frames from the clip.
    """
    distance = np.maximum(clip.min() - shot, shot - clip.max())  # negative inside
    if within is not None:
        near = distance <= within
        shot, distance = shot[near], distance[near]
    for choice in (shot[distance > away], shot[distance > 0], frames_outside(shot, clip), shot):
        if len(choice):
            return int(generator.choice(choice))
    raise ValueError("A shot without frames has no reference.")


def split_runs(kept: np.ndarray, shots: np.ndarray, bridge: int = BRIDGE) -> list[np.ndarray]:
    """Rising frame numbers cut wherever more than `bridge` are missing in a row, and where a new shot begins.

    shots: numbers of the frames with which the second and every further shot begins.
    """
    gaps = np.diff(kept) > bridge + 1
    new_shot = np.diff(np.searchsorted(shots, kept, side="right")) > 0
    return np.split(kept, np.flatnonzero(gaps | new_shot) + 1)
