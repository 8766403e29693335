"""Finding people with YOLOX (or YOLO-NAS): picture -> network input, network output -> boxes.

As every published DWPose pipeline does it. Pictures are fed in RGB although YOLOX was trained on BGR: all
published systems do so, and poses change when it is "corrected".
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from .boxes import suppress

STRIDES = (8, 16, 32)
PADDING = 114  # grey level around the picture
PERSON = 0  # class
CANDIDATE_SCORE = 0.1  # a box below this never takes part in the suppression
PERSON_SCORE = 0.3
SUPPRESSION = 0.45


def fit(height: int, width: int, side: int = 640) -> tuple[float, tuple[int, int]]:
    """The scale at which a picture just fits into a square, and its (height, width) there."""
    ratio = min(side / height, side / width)
    return ratio, (max(1, int(height * ratio)), max(1, int(width * ratio)))


def letterbox(picture: np.ndarray, side: int = 640) -> np.ndarray:
    """(side, side, 3) uint8: the picture (H, W, 3) uint8 scaled as :func:`fit` says, top left on a grey square."""
    _, (height, width) = fit(*picture.shape[:2], side)
    square = np.full((side, side, 3), PADDING, dtype=np.uint8)
    square[:height, :width] = cv2.resize(picture, (width, height), interpolation=cv2.INTER_LINEAR)
    return square


def network_input(square: np.ndarray, dtype: type = np.float32) -> np.ndarray:
    """(1, 3, side, side), values 0..255 and not normalised; YOLO-NAS exports want uint8."""
    return np.ascontiguousarray(square.transpose(2, 0, 1)[None], dtype=dtype)


def decode(raw: np.ndarray, side: int = 640) -> np.ndarray:
    """Boxes of every grid cell in pixels of the square: raw (n, 85) or (1, n, 85) -> (n, 85).

    Columns of the result: centre x, centre y, width, height, objectness, 80 class probabilities.
    """
    raw = raw.reshape(-1, raw.shape[-1])
    cells, strides = _grid(side)
    if len(cells) != len(raw):
        raise ValueError(f"a YOLOX output for {side} x {side} pixels must have {len(cells)} rows, got {len(raw)}")
    decoded = raw.copy()
    decoded[:, :2] = (raw[:, :2] + cells) * strides
    decoded[:, 2:4] = np.exp(raw[:, 2:4]) * strides
    return decoded


def _grid(side: int) -> tuple[np.ndarray, np.ndarray]:
    cells, strides = [], []
    for stride in STRIDES:
        y, x = np.mgrid[: side // stride, : side // stride].reshape(2, -1)
        cells.append(np.stack([x, y], axis=-1))
        strides.append(np.full((x.size, 1), stride))
    return np.concatenate(cells).astype(np.float32), np.concatenate(strides).astype(np.float32)


def find_objects(decoded: np.ndarray, ratio: float, classes: Sequence[int] | None = None) -> np.ndarray:
    """Objects left by suppression within each class: (n, 6) of x1, y1, x2, y2 in picture pixels, score, class.

    decoded: the result of :func:`decode`; ratio: that of :func:`fit`; classes: only these (all: None).
    Ordered by class, then by falling score. Boxes are not clipped to the picture.
    """
    found = [np.zeros((0, 6))]
    for index in range(decoded.shape[1] - 5) if classes is None else classes:
        scores = decoded[:, 4] * decoded[:, 5 + index]
        rows = np.flatnonzero(scores > CANDIDATE_SCORE)
        centres, halves = decoded[rows, :2], decoded[rows, 2:4] / 2
        boxes = np.concatenate([centres - halves, centres + halves], axis=1) / ratio
        kept = suppress(boxes, scores[rows], SUPPRESSION)
        labels = np.full((len(kept), 1), index)
        found.append(np.concatenate([boxes[kept], scores[rows][kept, None], labels], axis=1))
    return np.concatenate(found)


def find_people(raw: np.ndarray, ratio: float, side: int = 640, min_score: float = PERSON_SCORE) -> np.ndarray:
    """(n, 4) boxes of people in picture pixels, best first, from the output (1, cells, 85) of YOLOX.

    Suppression works within one class, so looking at people only gives what looking at all classes would.
    """
    objects = find_objects(decode(raw, side), ratio, classes=(PERSON,))
    return objects[objects[:, 4] > min_score, :4]


def find_people_nas(
    boxes: np.ndarray, scores: np.ndarray, classes: np.ndarray, ratio: float, min_score: float = PERSON_SCORE
) -> np.ndarray:
    """(n, 4) boxes of people in picture pixels, from a YOLO-NAS export that suppresses inside the network.

    boxes (1, n, 4) in pixels of the square, scores (1, n), classes (1, n).
    """
    people = (classes[0] == PERSON) & (scores[0] > min_score)
    return boxes[0][people] / ratio
