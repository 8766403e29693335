"""Faces: SCRFD detection, alignment by five points, ArcFace identity. Pictures are RGB throughout.

StableAnimator conditions on the raw embedding of the largest face. insightface's networks see RGB in the end
(its BGR pictures are swapped on the way in), so that is what they get here; its released inference scripts swap
once too often, which `channel_order="released"` repeats for parity.
"""

from __future__ import annotations

import hashlib
import logging
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from .boxes import suppress
from .onnx_kinds import ARCFACE, SCRFD
from .onnx_models import open_model
from .poses import FACE, Poses

log = logging.getLogger(__name__)
_told: set[Path] = set()

STRIDES = (8, 16, 32)
ANCHORS = 2  # a cell
FACE_SCORE = 0.5
LANDMARKS = (14, 15, 0, FACE.start + 48, FACE.start + 54)  # of the whole body: eyes, nose, corners of the mouth
LANDMARK_SCORE = 0.5
SUPPRESSION = 0.4
CHANNEL_ORDERS = ("bgr", "released")
AURAFACE = "a7933ea5330113b01c9b60351d8f4c33003f145d8470ac5f0e52ee2effe25c60"  # also published as glintr100.onnx
AURAFACE_SIZE = 260_694_151

# Left eye, right eye (as seen in the picture), nose tip, left and right corner of the mouth.
TEMPLATE_112 = np.array(
    [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]]
)
TEMPLATE_512 = np.array(
    [
        [192.98138, 239.94708],
        [318.90277, 240.1936],
        [256.63416, 314.01935],
        [201.26117, 371.41043],
        [313.08905, 371.15118],
    ]
)
BORDER_512 = (132, 133, 135)


@dataclass(frozen=True, eq=False)
class Faces:
    """Faces of one picture, best first: boxes (n, 4), scores (n), landmarks (n, 5, 2), in pixels, float32."""

    boxes: np.ndarray
    scores: np.ndarray
    landmarks: np.ndarray

    def __len__(self) -> int:
        return len(self.boxes)

    def take(self, indices: np.ndarray) -> Faces:
        """The faces of these indices, in their order."""
        return Faces(self.boxes[indices], self.scores[indices], self.landmarks[indices])

    def best(self, count: int, size: tuple[int, int], metric: str = "default") -> Faces:
        """At most `count` faces (0: all) of a picture of (height, width).

        metric: "max" ranks by area, "default" by area less twice the squared distance to the picture's centre.
        Faces that are few enough keep their order.
        """
        if metric not in ("default", "max"):
            raise ValueError(f'metric must be "default" or "max", got {metric!r}')
        if not 0 < count < len(self):
            return self
        value = (self.boxes[:, 2:] - self.boxes[:, :2]).prod(axis=1)
        if metric == "default":
            offsets = (self.boxes[:, :2] + self.boxes[:, 2:]) / 2 - (size[1] // 2, size[0] // 2)
            value = value - 2 * (offsets**2).sum(axis=1)
        return self.take(np.argsort(-value, kind="stable")[:count])

    def largest(self) -> int:
        """Index of the face with the largest box."""
        return int((self.boxes[:, 2:] - self.boxes[:, :2]).prod(axis=1).argmax())


def scrfd_input(picture: np.ndarray, size: tuple[int, int] = (640, 640)) -> tuple[np.ndarray, float]:
    """Network input (1, 3, height, width) float32 and its scale against the picture (H, W, 3) uint8 RGB.

    size: (width, height) of the input, multiples of 32. The picture is fitted into the top left corner of a black
    canvas; levels become (v - 127.5) / 128.
    """
    width, height = size
    ratio = picture.shape[0] / picture.shape[1]
    inner = (int(height / ratio), height) if ratio > height / width else (width, int(width * ratio))
    inner = max(1, inner[0]), max(1, inner[1])
    canvas = np.zeros((height, width, 3), dtype=np.uint8)
    canvas[: inner[1], : inner[0]] = cv2.resize(picture, inner, interpolation=cv2.INTER_LINEAR)
    return _blob(canvas, 128.0), inner[1] / picture.shape[0]


def _blob(picture: np.ndarray, divisor: float) -> np.ndarray:
    return np.ascontiguousarray(((picture.astype(np.float32) - 127.5) / divisor).transpose(2, 0, 1)[None])


def scrfd_decode(
    outputs: Sequence[np.ndarray], scale: float, size: tuple[int, int] = (640, 640), min_score: float = FACE_SCORE
) -> Faces:
    """Faces from SCRFD's nine outputs: scores, boxes, landmarks, each at the strides 8, 16, 32.

    outputs: arrays (n, 1), (n, 4), (n, 10), or with a leading axis of 1; scale and size of :func:`scrfd_input`.
    Boxes and landmarks are distances from their anchor in strides.
    """
    levels = len(STRIDES)
    found = []
    for level, stride in enumerate(STRIDES):
        scores, boxes, points = (outputs[level + i * levels].reshape(-1, n) for i, n in enumerate((1, 4, 10)))
        rows = np.flatnonzero(scores[:, 0] >= min_score)
        cells = rows // ANCHORS
        columns = size[0] // stride
        anchors = np.stack([cells % columns, cells // columns], axis=1).astype(np.float32) * stride
        distances = boxes[rows] * stride
        corners = np.concatenate([anchors - distances[:, :2], anchors + distances[:, 2:]], axis=1)
        landmarks = anchors[:, None] + points[rows].reshape(-1, 5, 2) * stride
        found.append((corners / scale, scores[rows, 0], landmarks / scale))
    boxes, scores, landmarks = (np.concatenate(parts).astype(np.float32) for parts in zip(*found, strict=True))
    return Faces(boxes, scores, landmarks).take(suppress(boxes, scores, SUPPRESSION))


def similarity(points: np.ndarray, template: np.ndarray) -> np.ndarray:
    """(2, 3) rotation, uniform scale and translation, without reflection, that maps points (n, 2) onto a template
    (n, 2) with the least squared error (Umeyama 1991)."""
    points, template = np.asarray(points, dtype=np.float64), np.asarray(template, dtype=np.float64)
    from_mean, to_mean = points.mean(axis=0), template.mean(axis=0)
    spread = points - from_mean
    variance = (spread**2).sum() / len(points)
    if variance == 0:
        raise ValueError("all face points lie on one spot: this is not a face that can be aligned")
    u, singular, v = np.linalg.svd((template - to_mean).T @ spread / len(points))
    signs = np.array([1.0, np.sign(np.linalg.det(u) * np.linalg.det(v))])
    rotation = u @ np.diag(signs) @ v * (singular @ signs) / variance
    return np.column_stack([rotation, to_mean - rotation @ from_mean])


def align_112(picture: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
    """(112, 112, 3) uint8 face from a picture (H, W, 3) by its landmarks (5, 2); black outside the picture.

    OpenCV's warpAffine rounds where it samples, before version 5 to 1/32 of a pixel; here every version gives the same.
    """
    to_picture = cv2.invertAffineTransform(similarity(landmarks, TEMPLATE_112))
    rows, columns = np.mgrid[0:112, 0:112]
    places = np.stack([columns, rows, np.ones_like(rows)], axis=-1) @ to_picture.T
    padded = np.pad(picture, ((1, 1), (1, 1), (0, 0))).astype(np.float32)
    places = np.clip(places + 1, 0, np.array(padded.shape[1::-1]) - 1 - 1e-6)
    x, y = places.astype(np.int64).transpose(2, 0, 1)
    right, down = (places - np.stack([x, y], axis=-1)).astype(np.float32).transpose(2, 0, 1)[..., None]
    above = padded[y, x] * (1 - right) + padded[y, x + 1] * right
    below = padded[y + 1, x] * (1 - right) + padded[y + 1, x + 1] * right
    return np.rint(above * (1 - down) + below * down).astype(np.uint8)


def landmarks_of(poses: Poses, frame: int = 0, person: int = 0) -> np.ndarray | None:
    """(5, 2) in pixels: what :func:`align_112` takes, from a whole body; None unless all of it is surely seen."""
    seen = poses.present[frame, person] and (poses.scores[frame, person, LANDMARKS] >= LANDMARK_SCORE).all()
    return poses.pixels()[frame, person, LANDMARKS] if seen else None


def fallback_matrix(landmarks: np.ndarray) -> np.ndarray:
    """(2, 3) map of landmarks (5, 2) onto the 512-pixel FFHQ template that lets go of outliers (least median)."""
    matrix, _ = cv2.estimateAffinePartial2D(
        np.asarray(landmarks, dtype=np.float32), TEMPLATE_512.astype(np.float32), method=cv2.LMEDS
    )
    if matrix is None:
        raise ValueError("the face points fit no similarity: this is not a face that can be aligned")
    return matrix


def align_512(picture: np.ndarray, landmarks: np.ndarray, border: tuple[int, int, int] = BORDER_512) -> np.ndarray:
    """(512, 512, 3) uint8 face as StableAnimator's second way frames it: wider, grey outside the picture."""
    return cv2.warpAffine(
        picture,
        fallback_matrix(landmarks),
        (512, 512),
        flags=cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_CONSTANT,
        borderValue=border,
    )


def arcface_input(face: np.ndarray) -> np.ndarray:
    """(1, 3, 112, 112) float32, (v - 127.5) / 127.5, of an aligned face (h, w, 3) uint8; other sizes are squeezed."""
    if face.shape[:2] != (112, 112):
        face = cv2.resize(face, (112, 112), interpolation=cv2.INTER_LINEAR)
    return _blob(face, 127.5)


class FaceAnalyser:
    """SCRFD and ArcFace, open: finds faces and their identities. A context manager that frees both.

    detector_path: scrfd_10g_bnkps.onnx; recogniser_path: glintr100.onnx, or None to find faces only.
    provider, strict: see :func:`.onnx_models.open_model`.
    """

    def __init__(
        self,
        detector_path: str | Path,
        recogniser_path: str | Path | None = None,
        provider: str = "auto",
        strict: bool = False,
    ) -> None:
        self.detector = open_model(detector_path, provider, strict, expect=SCRFD)
        self.recogniser = None
        if recogniser_path is not None:
            self.recogniser = open_model(recogniser_path, provider, strict, expect=ARCFACE)
            _say_what_it_is(self.recogniser.path)

    def close(self) -> None:
        """Free the networks."""
        for model in (self.detector, self.recogniser):
            if model is not None:
                model.close()

    def __enter__(self) -> FaceAnalyser:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def find(
        self,
        picture: np.ndarray,
        min_score: float = FACE_SCORE,
        size: tuple[int, int] = (640, 640),
        channel_order: str = "bgr",
    ) -> Faces:
        """Faces of a picture (H, W, 3) uint8 RGB, best first.

        channel_order: "bgr" as the networks were trained, "released" as StableAnimator's scripts swap them.
        """
        blob, scale = scrfd_input(_ordered(picture, channel_order), size)
        return scrfd_decode(self.detector.run(blob), scale, size, min_score)

    def embed(self, picture: np.ndarray, landmarks: np.ndarray, channel_order: str = "bgr") -> np.ndarray:
        """Identity (512) float32 of the face with these landmarks (5, 2); raw, its length is about 20 to 30."""
        return self.embed_aligned(align_112(_ordered(picture, channel_order), landmarks))

    def embed_aligned(self, face: np.ndarray) -> np.ndarray:
        """Identity (512) float32 of an aligned face (h, w, 3) uint8 in the order that the network is to see."""
        if self.recogniser is None:
            raise ValueError("this FaceAnalyser was opened without a recogniser: give the path of glintr100.onnx")
        return self.recogniser.run(arcface_input(face))[0][0]


def _say_what_it_is(path: Path) -> None:
    """Tell the licence of glintr100.onnx once, and a network that only has its name from it."""
    if path.name != "glintr100.onnx":
        return
    if path.stat().st_size == AURAFACE_SIZE and hashlib.sha256(path.read_bytes()).hexdigest() == AURAFACE:
        warnings.warn(
            f"{path} is AuraFace, not antelopev2: StableAnimator was trained on the identities of antelopev2 and will "
            "not keep the face by these.",
            RuntimeWarning,
            stacklevel=1,
        )
    elif path not in _told:
        _told.add(path)
        log.info("%s and the detector beside it are for research and other non-commercial use only.", path)


def _ordered(picture: np.ndarray, channel_order: str) -> np.ndarray:
    if channel_order not in CHANNEL_ORDERS:
        raise ValueError(f"channel_order must be one of {', '.join(CHANNEL_ORDERS)}; got {channel_order!r}")
    return picture if channel_order == "bgr" else np.ascontiguousarray(picture[..., ::-1])
