"""Whose face it is: the raw ArcFace embedding of a person in one or several pictures, with a word where it is doubtful.

The published program takes the largest face of one picture. Pictures are RGB.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from typing import Literal

import numpy as np

from .face import FACE_SCORE, FaceAnalyser, Faces

ATTEMPTS = (  # least score, side of the network's input: what a large or a faint face needs comes after the usual
    (FACE_SCORE, 640),
    (FACE_SCORE, 320),
    (0.3, 640),
    (0.3, 320),
    (0.3, 1024),
)
EMBEDDING = 512
LEAST_SIDE = 20  # pixels; ArcFace sees 112, so nobody is to be known from less
TURNED = 0.45  # how far the nose is from the middle of the eyes, in distances of the eyes; 0 from the front
NARROW = 0.45  # distance of the eyes by that from eyes to mouth; about 0.87 from the front
SAME_PERSON = 0.2  # cosine of embeddings; of different people it is about 0


def face_embedding(
    pictures: Iterable[np.ndarray],
    analyser: FaceAnalyser,
    *,
    without_face: Literal["stop", "zeros"] = "stop",
    channel_order: str = "bgr",
) -> np.ndarray:
    """Identity (512) float32 of the largest face of each picture, raw; of several pictures, their mean.

    pictures: uint8 (H, W, 3) RGB. Directions are averaged, and the mean gets their mean length.
    without_face: what to do when no picture shows a face that can be used: "stop" raises ValueError, "zeros" warns and
        gives zeros, as the published program does, which carry no identity.
    channel_order: see :meth:`.face.FaceAnalyser.find`.
    Warns (RuntimeWarning) of several faces, a face from the side, pictures without a face beside others that have one,
    and pictures of different people.
    """
    found, problems, pictures = [], [], list(pictures)
    for number, picture in enumerate(pictures, start=1):
        what = f"Picture {number}" if len(pictures) > 1 else "The picture"
        try:
            found.append(_embed_largest(picture, analyser, channel_order, what))
        except NoFaceError as problem:
            problems.append(str(problem))
    if not found:
        sentence = " ".join(problems) or "There is no picture to take a face from."
        if without_face == "stop":
            raise ValueError(f"{sentence} Take a larger or sharper picture of the face from the front.")
        _warn(f"{sentence} No identity is kept.")
        return np.zeros(EMBEDDING, np.float32)
    for problem in problems:
        _warn(f"{problem} It is left out.")
    return _mean(np.stack(found))


def find_faces(picture: np.ndarray, analyser: FaceAnalyser, channel_order: str = "bgr") -> Faces:
    """Faces of a picture; where the usual search finds none, with other input sizes and a lower score."""
    for score, side in ATTEMPTS:
        faces = analyser.find(picture, score, (side, side), channel_order)
        if len(faces):
            break
    return faces


def largest_box(picture: np.ndarray, analyser: FaceAnalyser) -> np.ndarray | None:
    """(4) whole-number box x1, y1, x2, y2 of the largest face of a picture, inside of it; None without a face."""
    faces = find_faces(picture, analyser)
    if not len(faces):
        return None
    height, width = picture.shape[:2]
    box = faces.boxes[faces.largest()].astype(int)
    return np.concatenate([box[:2].clip(min=0), np.minimum(box[2:], (width - 1, height - 1))])


class NoFaceError(ValueError):
    """A picture shows no face that a person could be known from."""


def _embed_largest(picture: np.ndarray, analyser: FaceAnalyser, channel_order: str, what: str) -> np.ndarray:
    faces = find_faces(picture, analyser, channel_order)
    if not len(faces):
        other = "released" if channel_order == "bgr" else "bgr"
        swapped = len(analyser.find(picture, channel_order=other)) > 0
        hint = " (with red and blue swapped one is found: is it BGR instead of RGB?)" if swapped else ""
        raise NoFaceError(f"{what} shows no face{hint}.")
    largest = faces.largest()
    width, height = faces.boxes[largest, 2:] - faces.boxes[largest, :2]
    if min(width, height) < LEAST_SIDE:
        raise NoFaceError(
            f"The face of {what.lower()} has only {width:.0f}x{height:.0f} pixels, {LEAST_SIDE} are the least."
        )
    if len(faces) > 1:
        _warn(f"{what} shows {len(faces)} faces; the largest is taken. Cut the picture to keep another.")
    if is_turned(faces.landmarks[largest]):
        _warn(f"The face of {what.lower()} is seen from the side; from the front a person is known far better.")
    return analyser.embed(picture, faces.landmarks[largest], channel_order)


def is_turned(landmarks: np.ndarray) -> bool:
    """Whether a face with these landmarks (5, 2) is seen from the side."""
    left, right, nose = np.asarray(landmarks, dtype=np.float64)[:3]
    eyes, mouth = (left + right) / 2, np.mean(landmarks[3:], axis=0)
    across = right - left
    distance = np.linalg.norm(across)
    if distance < NARROW * np.linalg.norm(mouth - eyes):
        return True
    return bool(abs((nose - eyes) @ across) > TURNED * distance**2)


def _mean(embeddings: np.ndarray) -> np.ndarray:
    if len(embeddings) == 1:
        return embeddings[0]
    lengths = np.linalg.norm(embeddings, axis=1)
    directions = embeddings / lengths[:, None]
    likeness = directions @ directions.T
    if likeness.min() < SAME_PERSON:
        first, second = np.unravel_index(likeness.argmin(), likeness.shape)
        _warn(
            f"The faces {first + 1} and {second + 1} seem to be different people (cosine {likeness.min():.2f}); the "
            "identity is a mixture of them."
        )
    mean = directions.mean(axis=0)
    return (mean / np.linalg.norm(mean) * lengths.mean()).astype(np.float32)


def _warn(message: str) -> None:
    warnings.warn(message, RuntimeWarning, stacklevel=1)
