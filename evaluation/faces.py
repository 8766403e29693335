"""Whose face a clip shows, by ArcFace embeddings at known places; see docs/evaluation.md."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from ..pose.face import align_112, arcface_input, landmarks_of
from ..pose.onnx_kinds import ARCFACE
from ..pose.onnx_models import open_model
from ..pose.poses import Poses

Embed = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""(picture uint8 (H, W, 3) RGB, landmarks (5, 2) in pixels) -> the embedding (D,) of the face there."""


@contextmanager
def recogniser(path: str | Path, provider: str = "auto") -> Iterator[Embed]:
    """An ArcFace network (glintr100.onnx, or another of its kind), open."""
    with open_model(path, provider, expect=ARCFACE) as model:
        yield lambda picture, landmarks: model.run(arcface_input(align_112(picture, landmarks)))[0][0]


def face_likeness(rows: Mapping[str, np.ndarray], poses: Poses, embed: Embed) -> dict[str, float]:
    """Of each row, the mean cosine of its faces' embeddings and what the true ones have in common, -1..1.

    rows: uint8 (F, H, W, 3) each, "truth" among them; poses: of the person in the true frames. In every row the face
    is cut out where the true keypoints have it, in the frames that show all of :func:`..pose.face.landmarks_of`. What
    the true faces have in common is the sum of their directions; a true face is compared with those of the other
    frames. Empty when fewer than two frames show the face.
    """
    places = {frame: points for frame in range(len(poses)) if (points := landmarks_of(poses, frame)) is not None}
    if len(places) < 2:
        return {}
    found = {
        name: _directions(np.stack([embed(frames[frame], points) for frame, points in places.items()]))
        for name, frames in rows.items()
    }
    common = found["truth"].sum(axis=0, keepdims=True)
    wanted = {name: _directions(common - found["truth"] if name == "truth" else common) for name in rows}
    return {name: float((found[name] * wanted[name]).sum(axis=1).mean()) for name in rows}


def _directions(embeddings: np.ndarray) -> np.ndarray:
    """Rows of length 1; 0 stays 0."""
    lengths = np.linalg.norm(embeddings, axis=-1, keepdims=True)
    return embeddings / np.where(lengths > 0, lengths, 1)
