"""Measures of animated clips against the truth; docs/evaluation.md has the definitions in one place.

Frames are (F, H, W, 3) or (H, W, 3) RGB, uint8 or floating point in 0..1; all arithmetic is in floating point and on
the range 0..1. Measures of pictures return one value a frame, float64 (F,), so that nothing is averaged in secret.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from importlib import import_module
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from ..model_loaders.weights import read_weights
from ..pose.poses import BODY, FACE, LEFT_HAND, RIGHT_HAND, VISIBLE, Poses
from ..runtime import current

SSIM_WINDOW = 11  # pixels; the Gaussian in it has sigma 1.5, as in the paper
PARTS: dict[str, tuple[slice, ...]] = {"body": (BODY,), "hands": (LEFT_HAND, RIGHT_HAND), "face": (FACE,)}
MIN_SIDE = 1e-6  # a person smaller than this share of a pixel has no size


def floats(frames: np.ndarray, name: str = "the frames") -> Iterator[np.ndarray]:
    """Each frame as float64 (H, W, 3) in 0..1; a single picture (H, W, 3) is one frame.

    Raises ValueError for another shape, type or range, FloatingPointError for NaN and infinity, naming the frame.
    """
    frames = np.asarray(frames)
    frames = frames[None] if frames.ndim == 3 else frames
    if frames.ndim != 4 or frames.shape[-1] != 3 or 0 in frames.shape:
        raise ValueError(f"{name} must be (frames, height, width, 3), got {frames.shape}.")
    if frames.dtype != np.uint8 and frames.dtype.kind != "f":
        raise ValueError(f"{name} must be uint8, or floating point in 0..1, got {frames.dtype}.")
    return (as_float(frame, f"frame {index} of {name}") for index, frame in enumerate(frames))


def as_float(frame: np.ndarray, name: str) -> np.ndarray:
    """A picture of any shape as float64 in 0..1; the errors of :func:`floats`, in the name given."""
    if frame.dtype == np.uint8:
        return frame / 255.0
    if not np.isfinite(frame).all():
        raise FloatingPointError(f"{name} holds NaN or infinity.")
    if frame.min() < 0 or frame.max() > 1:
        raise ValueError(f"{name} is floating point and must lie in 0..1, got {frame.min():.3g} to {frame.max():.3g}.")
    return frame.astype(np.float64)


def mean_squared_error(found: np.ndarray, true: np.ndarray) -> np.ndarray:
    """(F,) mean over pixels and channels of (found - true)^2, in units of the full range squared."""
    return np.array([np.mean((a - b) ** 2) for a, b in _pairs(found, true)])


def psnr(found: np.ndarray, true: np.ndarray) -> np.ndarray:
    """(F,) peak signal-to-noise ratio in dB, 10 log10(1 / mean squared error); infinity for equal pictures."""
    with np.errstate(divide="ignore"):
        return -10.0 * np.log10(mean_squared_error(found, true))


def l1(found: np.ndarray, true: np.ndarray) -> np.ndarray:
    """(F,) mean over pixels and channels of |found - true|, 0..1."""
    return np.array([np.mean(np.abs(a - b)) for a, b in _pairs(found, true)])


def ssim(found: np.ndarray, true: np.ndarray) -> np.ndarray:
    """(F,) structural similarity (Wang et al., 2004), -1..1, 1 for equal pictures.

    Gaussian window of 11 x 11 pixels with sigma 1.5, C1 = 0.01^2 and C2 = 0.03^2 for the data range 1, in each of the
    three channels; the mean over the pixels whose window lies inside the picture. Raises ValueError below 11 pixels.
    """
    import torch
    from kornia.metrics import ssim as ssim_map

    values = []
    for a, b in _pairs(found, true):
        if min(a.shape[:2]) < SSIM_WINDOW:
            raise ValueError(f"SSIM needs pictures of at least {SSIM_WINDOW} pixels a side, got {a.shape[:2]}.")
        one, other = (torch.from_numpy(picture).permute(2, 0, 1)[None].contiguous() for picture in (a, b))
        values.append(ssim_map(one, other, SSIM_WINDOW, max_val=1.0, eps=0.0, padding="valid").mean().item())
    return np.array(values)


class Lpips:
    """LPIPS (Zhang et al., 2018) by the package `lpips`: 0 for equal pictures, larger is worse.

    vgg: torchvision's VGG-16 (`vgg16-397923af.pth`); None is AlexNet, whose weights the construction downloads when
        they are not in torch's cache, so make one only when the user asked for it.
    unsigned: show the network pictures in 0..1, as DisCo's evaluation does, instead of -1..1.
    Raises ImportError that says how to get the package, ValueError for another file.
    """

    def __init__(self, vgg: Path | None = None, *, unsigned: bool = False) -> None:
        if find_spec("lpips") is None:
            raise ImportError("LPIPS needs the package lpips: pip install lpips.")
        self.device, self.unsigned = current().device, unsigned
        made = import_module("lpips").LPIPS
        network = made(net="alex", verbose=False) if vgg is None else made(net="vgg", pnet_rand=True, verbose=False)
        if vgg is not None:
            _fill_vgg(network.net, vgg)
        self.network = network.to(self.device).eval()

    @staticmethod
    def ready() -> bool:
        """Whether it can be measured without a download: the package and AlexNet's weights are on this machine."""
        import torch

        weights = Path(torch.hub.get_dir()) / "checkpoints"
        return find_spec("lpips") is not None and any(weights.glob("alexnet-owt-*.pth"))

    def __call__(self, found: np.ndarray, true: np.ndarray) -> np.ndarray:
        """(F,) distances."""
        import torch

        def tensor(picture: np.ndarray) -> torch.Tensor:
            shown = torch.from_numpy(picture).permute(2, 0, 1)[None].float().to(self.device)
            return shown if self.unsigned else shown * 2 - 1

        with torch.no_grad():
            return np.array([self.network(tensor(a), tensor(b)).item() for a, b in _pairs(found, true)])


def _fill_vgg(network: Any, path: Path) -> None:
    """Load torchvision's VGG-16 into that of the package, which numbers its layers alike inside of slices."""
    weights = read_weights(path)
    names = {name: f"features.{name.partition('.')[2]}" for name in network.state_dict()}
    if missing := [old for old in names.values() if old not in weights]:
        raise ValueError(f"{path} is not torchvision's VGG-16 (vgg16-397923af.pth): it has no {missing[0]}.")
    network.load_state_dict({name: weights[old] for name, old in names.items()})


def counted_points(true: Poses, part: str = "body", min_score: float = VISIBLE) -> np.ndarray:
    """(F, N) bool: the points of a part ("body", "hands" or "face") that are judged, of a clip of one person.

    Those with a score above min_score, in a frame where the person is present, inside the picture (0 <= x, y < 1).
    """
    points, scores = _part(true.points[:, 0], part), _part(true.scores[:, 0], part)
    inside = ((points >= 0) & (points < 1)).all(axis=-1)
    return inside & (scores > min_score) & true.present[:, :1]


def person_sizes(true: Poses, min_score: float = VISIBLE) -> np.ndarray:
    """(F,) larger side in pixels of the box around the body joints with a score above min_score, in the picture or not.

    0 where there are none.
    """
    points, scores = true.pixels()[:, 0, BODY], true.scores[:, 0, BODY]
    seen = ((scores > min_score) & true.present[:, :1])[..., None]
    low, high = np.where(seen, points, np.inf).min(axis=1), np.where(seen, points, -np.inf).max(axis=1)
    return np.where(seen.any(axis=(1, 2)), (high - low).max(axis=-1, initial=0.0), 0.0)


def pck(
    found: Poses, true: Poses, threshold: float = 0.1, part: str = "body", min_score: float = VISIBLE
) -> tuple[int, int]:
    """Percentage of correct keypoints as (correct, judged) counts over a clip; the share is correct / judged.

    A judged point (:func:`counted_points` of `true`) is correct when `found` puts it, with whatever score, no farther
    than threshold * :func:`person_sizes` away, in pixels of `true`. Both clips are of one person; a frame in which
    `found` has nobody counts as wrong in every point. Raises ValueError for clips of different length.
    """
    if len(found) != len(true):
        raise ValueError(f"Poses of {len(found)} frames cannot be judged by those of {len(true)} frames.")
    counted = counted_points(true, part, min_score)
    if found.num_people == 0 or true.num_people == 0:
        return 0, int(counted.sum())
    canvas = (true.size[1], true.size[0])
    distances = np.linalg.norm((_part(found.points[:, 0], part) - _part(true.points[:, 0], part)) * canvas, axis=-1)
    sizes = person_sizes(true, min_score)[:, None]
    close = (distances <= threshold * sizes) & (sizes > MIN_SIDE)
    return int((close & found.present[:, :1] & counted).sum()), int(counted.sum())


def frame_jumps(frames: np.ndarray) -> np.ndarray:
    """(F - 1,) mean absolute difference, 0..1, between each frame and the one before."""
    return np.array([np.mean(np.abs(b - a)) for a, b in pairwise(floats(frames))])


def change_error(found: np.ndarray, true: np.ndarray) -> np.ndarray:
    """(F - 1,) mean absolute difference, 0..1, between the changes from frame to frame of the two clips.

    A still error does not count, one that flickers does; 0 for equal motion.
    """
    errors = (a - b for a, b in _pairs(found, true))
    return np.array([np.mean(np.abs(later - earlier)) for earlier, later in pairwise(errors)])


def border_jump(found: np.ndarray, true: np.ndarray, borders: Sequence[int]) -> float:
    """How much more a clip jumps at window borders than elsewhere, above what the truth does there; 0 is seamless.

    borders: numbers of the first frame behind each border, from 1. With d = :func:`frame_jumps` the value is
    mean over borders of (d_found - d_true) minus the mean over all other steps, in 0..1 units of brightness.
    NaN when there is no border, or nothing else.
    """
    excess = frame_jumps(found) - frame_jumps(true)
    at = np.zeros(len(excess), dtype=bool)
    at[[border - 1 for border in borders if 1 <= border <= len(excess)]] = True
    return float(excess[at].mean() - excess[~at].mean()) if at.any() and not at.all() else float("nan")


def _part(values: np.ndarray, part: str) -> np.ndarray:
    """The points of a part of (F, 134, ...)."""
    return np.concatenate([values[:, piece] for piece in PARTS[part]], axis=1)


def _pairs(found: np.ndarray, true: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Frame after frame of two clips, float64 (H, W, 3) in 0..1."""
    shapes = [np.asarray(clip).shape for clip in (found, true)]
    if shapes[0] != shapes[1]:
        raise ValueError(f"Only clips of one shape can be compared, not {shapes[0]} with {shapes[1]}.")
    return zip(floats(found, "the result"), floats(true, "the truth"), strict=True)
