"""The reference picture at the size of the video: target geometry, cover resize, centre crop, value range."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch.nn import functional

SIZE_MULTIPLE = 64  # the VAE divides a side by 8, the UNet by another 8
PORTRAIT = 9 / 16  # width / height of a portrait video
MIN_SIDE = 16
MAX_RATIO = 16


def video_size(height: int, width: int, resolution: int = 576, aspect: float = PORTRAIT) -> tuple[int, int]:
    """(height, width) of the video for a picture: the short side is `resolution`, the long side in the ratio 16:9.

    The long side is rounded down to a multiple of 64; a square picture gives a landscape video.
    """
    long_side = int(resolution / aspect // SIZE_MULTIPLE * SIZE_MULTIPLE)
    return (long_side, resolution) if height > width else (resolution, long_side)


def check_size(height: int, width: int, multiple: int = SIZE_MULTIPLE) -> None:
    """Raise ValueError, naming the nearest sizes that fit, unless both sides are positive multiples of `multiple`."""
    if height > 0 and width > 0 and height % multiple == 0 and width % multiple == 0:
        return
    choices = sorted({f"{w}x{h}" for h in _nearest(height, multiple) for w in _nearest(width, multiple)})
    raise ValueError(
        f"The video size {width}x{height} (width x height) does not fit: both sides must be multiples of {multiple}. "
        f"The nearest sizes that fit are {', '.join(choices)}."
    )


def _nearest(side: int, multiple: int) -> set[int]:
    return {max(multiple, side // multiple * multiple), max(multiple, math.ceil(side / multiple) * multiple)}


def check_picture(picture: np.ndarray, what: str = "The reference picture") -> None:
    """Raise ValueError unless `picture` is uint8 (height, width, 3) RGB of a usable size."""
    if not isinstance(picture, np.ndarray) or picture.dtype != np.uint8:
        kind = getattr(picture, "dtype", type(picture).__name__)
        raise ValueError(f"{what} must be a uint8 array, got {kind}; convert it to 8-bit RGB first.")
    if picture.ndim != 3 or picture.shape[2] != 3:
        raise ValueError(f"{what} must have the shape (height, width, 3), got {picture.shape}.")
    height, width = picture.shape[:2]
    if min(height, width) < MIN_SIDE:
        raise ValueError(
            f"{what} is only {width}x{height} pixels; both sides need at least {MIN_SIDE} pixels to show a person."
        )
    if max(height, width) > MAX_RATIO * min(height, width):
        raise ValueError(
            f"{what} is {width}x{height} pixels, one side more than {MAX_RATIO} times the other; "
            "crop it around the person first."
        )


def cover_size(height: int, width: int, target: tuple[int, int]) -> tuple[int, int]:
    """(height, width) to resize a picture to so that it covers the target; float error may add one pixel."""
    ratio = float(height) / float(width)
    target_height, target_width = target
    if ratio < target_height / target_width:
        return target_height, math.ceil(target_height / ratio)
    return math.ceil(target_width * ratio), target_width


def cover_crop(picture: np.ndarray, target: tuple[int, int]) -> np.ndarray:
    """Resize a picture until it covers the target (height, width), then cut the centre out.

    Bilinear without antialias, rounded to 8 bit, as published (docs/mimicmotion.md, preprocessing).
    picture uint8 (H, W, 3) -> uint8 (height, width, 3). Raises ValueError for pictures that cannot be used.
    """
    check_picture(picture)
    size = cover_size(*picture.shape[:2], target)
    pixels = torch.from_numpy(np.ascontiguousarray(picture)).permute(2, 0, 1)[None].float()
    if size != picture.shape[:2]:
        pixels = functional.interpolate(pixels, size=size, mode="bilinear", align_corners=False, antialias=False)
    top, left = (round((side - wanted) / 2) for side, wanted in zip(size, target, strict=True))
    pixels = pixels[0, :, top : top + target[0], left : left + target[1]]
    return pixels.round().clamp(0, 255).to(torch.uint8).permute(1, 2, 0).contiguous().numpy()


def lanczos_fit(picture: np.ndarray, size: tuple[int, int], *, stretch: bool = False) -> np.ndarray:
    """A picture at a size (height, width), resized as Pillow does by Lanczos; uint8 (H, W, 3) -> (height, width, 3).

    Its centre in the ratio of the size, or with `stretch` all of it, whatever becomes of its proportions.
    Raises ValueError for pictures that cannot be used.
    """
    from PIL import Image

    check_picture(picture)
    height, width = picture.shape[:2]
    scale = min(height / size[0], width / size[1])
    wide, high = (width, height) if stretch else (scale * size[1], scale * size[0])
    left, top = (width - wide) / 2, (height - high) / 2
    box = (left, top, left + wide, top + high)
    return np.asarray(Image.fromarray(picture).resize(size[::-1], Image.Resampling.LANCZOS, box))


def centre_square(picture: np.ndarray, size: int = 512) -> np.ndarray:
    """The central square of the short side, resized bilinearly with antialias; uint8 (H, W, 3) -> (size, size, 3)."""
    return centre_fit(picture, (size, size))


def centre_fit(picture: np.ndarray, target: tuple[int, int]) -> np.ndarray:
    """The largest central part in the target's shape, resized bilinearly with antialias, as MagicPose does.

    uint8 (H, W, 3) -> (height, width, 3); a picture of the target's size stays as it is.
    """
    from PIL import Image

    check_picture(picture)
    sides = picture.shape[:2]
    scale = min(side / wanted for side, wanted in zip(sides, target, strict=True))
    height, width = (min(side, round(wanted * scale)) for side, wanted in zip(sides, target, strict=True))
    top, left = (sides[0] - height) // 2, (sides[1] - width) // 2
    part = Image.fromarray(picture[top : top + height, left : left + width])
    return np.array(part.resize(target[::-1], Image.Resampling.BILINEAR))


def as_rgb(picture: np.ndarray) -> np.ndarray:
    """Grey (H, W) or (H, W, 1) becomes (H, W, 3), of RGBA (H, W, 4) the alpha is dropped; others stay as they are."""
    if picture.ndim == 2:
        picture = picture[..., None]
    if picture.ndim == 3 and picture.shape[2] in (1, 4):
        picture = picture[..., :3] if picture.shape[2] == 4 else np.repeat(picture, 3, axis=2)
    return picture


def to_signed(pixels: torch.Tensor, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """8-bit values (any shape) -> [-1, 1], computed in `dtype`."""
    return pixels.to(dtype) / 127.5 - 1


def truncating_round_trip(pixels: torch.Tensor, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """8-bit values -> [-1, 1] -> 8 bit by truncation, as the published program does before CLIP and VAE."""
    return ((to_signed(pixels, dtype) + 1) * 127.5).to(torch.uint8)
