"""Distances between what two sets of frames look like to a network: FID and FVD (docs/evaluation.md)."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional

from ..runtime import current

INCEPTION_SIDE, I3D_SIDE = 299, 224  # pixels
WINDOW = 16  # frames of a video that I3D is shown
BATCH = 16  # pictures or windows at once

Features = Callable[[np.ndarray], np.ndarray]
"""uint8 frames (F, H, W, 3) -> float32 (n, D), one row a frame or a window of frames."""
Rows = Mapping[str, np.ndarray]


def frechet_distance(found: np.ndarray, true: np.ndarray) -> float:
    """The Fréchet distance of the normal distributions of two sets of features (Heusel et al., 2017).

    found (n, D), true (m, D), at least 2 rows each, else NaN.
    |difference of means|^2 + tr S1 + tr S2 - 2 tr (S1 S2)^(1/2) with sample covariances S = A^T A; the last trace is
    the sum of the singular values of A1 A2^T, exactly.
    """
    if min(len(found), len(true)) < 2:
        return float("nan")
    means = [features.mean(axis=0, dtype=np.float64) for features in (found, true)]
    roots = [
        (features - mean) / np.sqrt(len(features) - 1) for features, mean in zip((found, true), means, strict=True)
    ]
    small = [np.linalg.qr(root, mode="r") if len(root) > root.shape[1] else root for root in roots]
    common = np.linalg.norm(small[0] @ small[1].T, "nuc")
    return float(((means[0] - means[1]) ** 2).sum() + sum((root**2).sum() for root in roots) - 2 * common)


class FrameFeatures:
    """What Inception sees in each frame, as clean-fid shows it: 299 x 299 bicubic with antialias, in float.

    path: NVIDIA's `inception-2015-12-05.pt`, or any TorchScript network from (N, 3, 299, 299) in -1..1 to (N, D).
    """

    def __init__(self, path: Path) -> None:
        self.network = load_script(path, "FID")

    def __call__(self, frames: np.ndarray) -> np.ndarray:
        """(F, D)."""
        network = getattr(self.network, "layers", self.network)  # NVIDIA's would resize once more outside of these
        pictures = np.stack([_inception_picture(frame) for frame in frames])
        return _features(network, torch.from_numpy(pictures).permute(0, 3, 1, 2))


def _inception_picture(frame: np.ndarray) -> np.ndarray:
    """Float32 (299, 299, 3) in -1..127/128."""
    from PIL import Image

    size = (INCEPTION_SIDE, INCEPTION_SIDE)
    channels = (Image.fromarray(channel).resize(size, Image.Resampling.BICUBIC) for channel in _channels(frame))
    return (np.stack([np.asarray(channel) for channel in channels], axis=-1).clip(0, 255) - 128) / 128


def _channels(frame: np.ndarray) -> Iterable[np.ndarray]:
    return frame.transpose(2, 0, 1).astype(np.float32)


class VideoFeatures:
    """What I3D sees in every 16 frames that follow one another: 224 x 224 bilinear, in -1..1.

    path: `i3d_torchscript.pt`, or any TorchScript network from (N, 3, 16, 224, 224) to (N, D).
    """

    def __init__(self, path: Path) -> None:
        self.network = load_script(path, "FVD")

    def __call__(self, frames: np.ndarray) -> np.ndarray:
        """(F - 15, D); none for a shorter clip."""
        if len(frames) < WINDOW:
            return np.zeros((0, 1), np.float32)
        pixels = torch.from_numpy(np.ascontiguousarray(frames)).permute(0, 3, 1, 2).float() / 127.5 - 1
        size = (I3D_SIDE, I3D_SIDE)
        pixels = functional.interpolate(pixels, size, mode="bilinear", align_corners=False)
        arguments = {"rescale": False, "resize": False, "return_features": True}  # those of i3d_torchscript.pt
        known = {argument.name for argument in self.network.forward.schema.arguments}
        options = {name: value for name, value in arguments.items() if name in known}
        return _features(self.network, pixels.unfold(0, WINDOW, 1).permute(0, 1, 4, 2, 3), **options)


def _features(network: torch.jit.ScriptModule, inputs: torch.Tensor, **options: bool) -> np.ndarray:
    device = current().device
    with torch.no_grad():
        parts = [network(part.contiguous().to(device), **options).flatten(1) for part in inputs.split(BATCH)]
    return torch.cat(parts).float().cpu().numpy()


def load_script(path: Path, measure: str) -> torch.jit.ScriptModule:
    """A TorchScript network on the runtime's device; ValueError naming the file for anything else."""
    try:
        return torch.jit.load(str(path), map_location=current().device).eval()
    except (RuntimeError, ValueError) as error:
        raise ValueError(
            f"{path} is no TorchScript network, which {measure} needs; take a file of weights for another program "
            f"through torch.jit.save first ({str(error).splitlines()[0]})."
        ) from error


class Distributions:
    """The features of all clips of an evaluation, by row and measure.

    extractors: "fid", "fvd" -> what makes features of frames.
    """

    def __init__(self, extractors: Mapping[str, Features]) -> None:
        self.extractors = dict(extractors)
        self.collected: dict[str, dict[str, list[np.ndarray]]] = {name: {} for name in self.extractors}

    def packed(self, rows: Rows) -> dict[str, dict[str, list]]:
        """Features of a clip's frames as JSON can hold them, `[measure][row]`, for :meth:`add`."""
        return {
            name: {row: _pack(extract(frames)) for row, frames in rows.items()}
            for name, extract in self.extractors.items()
        }

    def add(self, packed: Mapping[str, Mapping[str, list]]) -> None:
        """Take in the features of a clip."""
        for name, rows in packed.items():
            for row, features in rows.items():
                if len(unpacked := _unpack(features)):
                    self.collected[name].setdefault(row, []).append(unpacked)

    def distances(self) -> dict[str, dict[str, float]]:
        """`[row][measure]`: the Fréchet distance of each row from the truth, as far as there is one."""
        found: dict[str, dict[str, float]] = {}
        for name, rows in self.collected.items():
            features = {row: np.concatenate(parts) for row, parts in rows.items()}
            true = features.pop("truth", None)
            for row, each in features.items():
                if np.isfinite(distance := frechet_distance(each, true)):
                    found.setdefault(row, {})[name] = distance
        return found

    def counts(self) -> dict[str, int]:
        """How many rows of features the truth has."""
        return {name: sum(map(len, rows.get("truth", ()))) for name, rows in self.collected.items()}


def _pack(features: np.ndarray) -> list:
    return [*features.shape, base64.b64encode(features.astype(np.float32).tobytes()).decode()]


def _unpack(packed: list) -> np.ndarray:
    *shape, text = packed
    return np.frombuffer(base64.b64decode(text), np.float32).reshape(shape)
