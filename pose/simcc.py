"""The DWPose network: a box in a picture -> a normalised crop; its two SimCC outputs -> points with scores.

The network sees every person upright in a crop of one size and answers with two one-dimensional
classifications a point, one over x and one over y, with two bins a pixel (SimCC, arXiv:2107.03332).
"""

from __future__ import annotations

from functools import cache

import cv2
import numpy as np

INPUT_SIZE = (288, 384)  # width, height
BOX_PADDING = 1.25
BINS_PER_PIXEL = 2.0
MEAN = (123.675, 116.28, 103.53)
STD = (58.395, 57.12, 57.375)


def centres_and_scales(
    boxes: np.ndarray, input_size: tuple[int, int] = INPUT_SIZE, padding: float = BOX_PADDING
) -> tuple[np.ndarray, np.ndarray]:
    """Centre and (width, height) in picture pixels of what the network sees for each box.

    Boxes (n, 4) are grown by the padding, then enlarged on one side to the ratio of the network's input.
    Returns two arrays (n, 2) of float64.
    """
    boxes = np.asarray(boxes, dtype=np.float64)
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2
    width, height = ((boxes[:, 2:] - boxes[:, :2]) * padding).T
    ratio = input_size[0] / input_size[1]
    wide = width > height * ratio
    scales = np.stack([np.where(wide, width, height * ratio), np.where(wide, width / ratio, height)], axis=1)
    return centres, scales


def crop_matrix(centre: np.ndarray, scale: np.ndarray, input_size: tuple[int, int] = INPUT_SIZE) -> np.ndarray:
    """(2, 3) affine map from picture pixels to pixels of the network's input, solved as published from three
    points that are rounded to float32; centre (2) and scale (2) as :func:`centres_and_scales` gives them."""
    width, height = input_size
    half = scale[0] / 2
    source = np.array([centre, centre - [0, half], centre - [half, half]], dtype=np.float32)
    middle = np.array([width / 2, height / 2])
    target = np.array([middle, middle - [0, width / 2], middle - [width / 2, width / 2]], dtype=np.float32)
    return cv2.getAffineTransform(source, target)


def crop(picture: np.ndarray, matrix: np.ndarray, input_size: tuple[int, int] = INPUT_SIZE) -> np.ndarray:
    """(height, width, 3) uint8 as the network sees it; black outside the picture (H, W, 3)."""
    return cv2.warpAffine(picture, matrix, input_size, flags=cv2.INTER_LINEAR)


@cache
def _normalised_levels() -> np.ndarray:
    levels = (np.arange(256)[:, None] - MEAN) / STD
    return levels.astype(np.float32)[None].transpose(1, 0, 2)  # (256, 1, 3), as cv2.LUT wants it


def normalise(crops: np.ndarray) -> np.ndarray:
    """Network input (n, 3, height, width) float32 from crops (n, height, width, 3) uint8 in RGB.

    (level - mean) / std, computed in float64 once for each of the 256 levels.
    """
    n, height, width = crops.shape[:3]
    out = np.empty((n, 3, height, width), dtype=np.float32)
    for i, one in enumerate(crops):
        out[i] = cv2.LUT(one, _normalised_levels()).transpose(2, 0, 1)
    return out


def decode(simcc_x: np.ndarray, simcc_y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Locations (n, points, 2) in bins and scores (n, points), both float32.

    simcc_x (n, points, bins) and simcc_y (n, points, bins). The score is the lesser of the two maxima: a raw
    activation, usually 0..1, sometimes more. A score of 0 or less means not found: location (-1, -1).
    """
    locations = np.stack([simcc_x.argmax(-1), simcc_y.argmax(-1)], axis=-1).astype(np.float32)
    scores = np.minimum(simcc_x.max(-1), simcc_y.max(-1))
    locations[scores <= 0] = -1
    return locations, scores


def to_picture(
    locations: np.ndarray, centres: np.ndarray, scales: np.ndarray, input_size: tuple[int, int] = INPUT_SIZE
) -> np.ndarray:
    """Points (n, points, 2) float64 in picture pixels; a point that was not found lies just outside its crop."""
    shares = locations.astype(np.float64) / BINS_PER_PIXEL / input_size
    return shares * scales[:, None] + (centres - scales / 2)[:, None]
