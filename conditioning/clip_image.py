"""A picture for the CLIP image tower: published squash and ComfyUI's centre crop."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from torch import nn
from torch.nn import functional

ClipMethod = Literal["squash", "centre crop"]
CLIP_METHODS: tuple[ClipMethod, ...] = ("squash", "centre crop")
CLIP_SIZE = 224
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


def resize_with_antialiasing(pixels: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Gaussian blur matched to the reduction, then bicubic interpolation with aligned corners.

    pixels (B, C, H, W) float, any range -> (B, C, *size); values may overshoot the range a little.
    """
    from kornia.filters import gaussian_blur2d

    factors = [side / wanted for side, wanted in zip(pixels.shape[-2:], size, strict=True)]
    sigmas = [max((factor - 1) / 2, 0.001) for factor in factors]
    kernels = [int(max(4 * sigma, 3)) // 2 * 2 + 1 for sigma in sigmas]
    blurred = gaussian_blur2d(pixels, tuple(kernels), tuple(sigmas), border_type="reflect")
    return functional.interpolate(blurred, size=size, mode="bicubic", align_corners=True)


def clip_pixels(picture: np.ndarray, method: ClipMethod = "squash", size: int = CLIP_SIZE) -> torch.Tensor:
    """Normalised input of the CLIP image tower, float32 (1, 3, size, size), from a uint8 (H, W, 3) picture.

    "squash":      the whole picture, aspect ratio not kept (MimicMotion, SVD).
    "centre crop": the short side fitted, the centre cut out, rounded to 8 bit (ComfyUI's CLIP vision).
    """
    pixels = torch.from_numpy(np.ascontiguousarray(picture)).permute(2, 0, 1)[None].float() / 255
    if method == "squash":
        pixels = resize_with_antialiasing(pixels, (size, size))
    elif method == "centre crop":
        pixels = _centre_crop(pixels, size)
    else:
        raise ValueError(f"Unknown CLIP preprocessing {method!r}; choose one of {', '.join(CLIP_METHODS)}.")
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (CLIP_MEAN, CLIP_STD))
    return (pixels - mean) / std


def _centre_crop(pixels: torch.Tensor, size: int) -> torch.Tensor:
    scale = size / min(pixels.shape[-2:])
    sides = [round(side * scale) for side in pixels.shape[-2:]]
    pixels = functional.interpolate(pixels, size=sides, mode="bicubic", antialias=True)
    top, left = ((side - size) // 2 for side in sides)
    pixels = pixels[:, :, top : top + size, left : left + size]
    return (pixels.clamp(0, 1) * 255).round() / 255


def embed_picture(image_encoder: nn.Module, pixels: torch.Tensor) -> torch.Tensor:
    """Projected CLIP embedding (1, 1, D) of :func:`clip_pixels`, where and in the dtype the tower is."""
    weight = next(image_encoder.parameters())
    return image_encoder(pixels.to(weight.device, weight.dtype)).image_embeds[:, None]
