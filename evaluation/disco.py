"""Measures of pictures as DisCo's evaluation has them, whose numbers MagicPose's paper reports (docs/evaluation.md).

Each takes one picture, uint8 (H, W, 3) RGB, and the true one; a picture of another size is first brought to that of the
truth, bilinear without antialias.
"""

from __future__ import annotations

import numpy as np

SSIM_WINDOW = 7  # pixels


def resized(found: np.ndarray, true: np.ndarray) -> np.ndarray:
    """The picture at the size of the truth. Raises ValueError for anything but uint8 (H, W, 3)."""
    import cv2

    for picture in (found, true):
        if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[-1] != 3:
            raise ValueError(f"Pictures must be uint8 (height, width, 3), got {picture.dtype} {picture.shape}.")
    return found if found.shape == true.shape else cv2.resize(found, true.shape[1::-1], interpolation=cv2.INTER_LINEAR)


def l1_per_pixel(found: np.ndarray, true: np.ndarray) -> float:
    """Mean over pixels and channels of |found - true|, 0..255, divided once more by the number of pixels."""
    difference = np.abs(resized(found, true).astype(np.float64) - true)
    return float(difference.mean() / (true.shape[0] * true.shape[1]))


def wrapped_psnr(found: np.ndarray, true: np.ndarray) -> float:
    """The PSNR in dB that bytes give: differences and squares modulo 256. Near 28 for any two pictures.

    For comparison with published tables alone; infinity for equal pictures.
    """
    difference = resized(found, true) - true
    with np.errstate(divide="ignore"):
        return float(20 * np.log10(255 / np.sqrt(np.mean(difference * difference))))


def grey_ssim(found: np.ndarray, true: np.ndarray) -> float:
    """SSIM of grey pictures in bytes, 0..255: scikit-image's defaults.

    A uniform window of 7 x 7 pixels, sample covariances, C1 = (0.01 * 255)^2, C2 = (0.03 * 255)^2, the mean over pixels
    whose window lies inside. Raises ValueError below 7 pixels.
    """
    import cv2

    if min(true.shape[:2]) < SSIM_WINDOW:
        raise ValueError(f"SSIM needs pictures of at least {SSIM_WINDOW} pixels a side, got {true.shape[:2]}.")
    x, y = (cv2.cvtColor(each, cv2.COLOR_RGB2GRAY).astype(np.float64) for each in (resized(found, true), true))

    def mean(values: np.ndarray) -> np.ndarray:
        border = SSIM_WINDOW // 2
        return cv2.blur(values, (SSIM_WINDOW, SSIM_WINDOW))[border:-border, border:-border]

    sample = SSIM_WINDOW**2 / (SSIM_WINDOW**2 - 1)
    mean_x, mean_y = mean(x), mean(y)
    var_x, var_y = sample * (mean(x * x) - mean_x**2), sample * (mean(y * y) - mean_y**2)
    both = sample * (mean(x * y) - mean_x * mean_y)
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    likeness = (2 * mean_x * mean_y + c1) * (2 * both + c2)
    return float((likeness / ((mean_x**2 + mean_y**2 + c1) * (var_x + var_y + c2))).mean())
