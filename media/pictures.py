"""Pictures in and out: any file Pillow can read becomes 8-bit RGB the right way up."""

from __future__ import annotations

import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from .files import complete_file

Colour = tuple[int, int, int]
WHITE: Colour = (255, 255, 255)

PICTURE_SUFFIXES = frozenset(
    {".png", ".apng", ".jpg", ".jpeg", ".jfif", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".tga", ".avif"}
)
SAVE_OPTIONS: dict[str, dict] = {
    ".png": {"compress_level": 4},
    ".jpg": {"quality": 95, "subsampling": 0},
    ".jpeg": {"quality": 95, "subsampling": 0},
    ".webp": {"lossless": True},
    ".bmp": {},
    ".tif": {},
    ".tiff": {},
}
_ORIENTATION = 0x0112  # the EXIF tag
_DAMAGE = (OSError, SyntaxError, ValueError, EOFError, struct.error)  # what Pillow's readers raise for bad data


def load_picture(path: str | Path, background: Colour = WHITE) -> np.ndarray:
    """Read a picture as uint8 (H, W, 3) RGB.

    EXIF orientation is applied, transparency is laid over `background`, 16-bit and floating point samples are scaled
    to 8 bits, grey, palette and CMYK become RGB, an animated picture gives its first frame; colour profiles are left
    alone. Raises FileNotFoundError or ValueError with one sentence that names the file.
    """
    with open_picture(path) as image:
        return to_rgb(image, background)


def picture_size(path: str | Path) -> tuple[int, int]:
    """(H, W) as :func:`load_picture` will return it, read from the header only."""
    with open_picture(path) as image:
        width, height = image.size
        return (width, height) if _orientation(image) >= 5 else (height, width)


@contextmanager
def open_picture(path: str | Path) -> Iterator[Image.Image]:
    """A Pillow image whose errors, also those of reading its pixels inside the block, are sentences about the file."""
    path = Path(path)
    _check_is_file(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # large, but below the limit of refusal
            image = Image.open(path)
    except UnidentifiedImageError:
        raise ValueError(f"{path} is not a picture that can be read: expected PNG, JPEG, WebP or the like.") from None
    except Image.DecompressionBombError as error:
        raise ValueError(f"{path} has too many pixels to be read safely ({error}); make it smaller first.") from None
    except _DAMAGE as error:
        raise ValueError(f"{path} is damaged and cannot be read as a picture ({error}).") from error
    with image:
        yield image


def to_rgb(image: Image.Image, background: Colour = WHITE) -> np.ndarray:
    """The current frame of an open Pillow image as uint8 (H, W, 3) RGB; see :func:`load_picture`."""
    try:
        image.load()
    except _DAMAGE as error:
        name = getattr(image, "filename", "") or "The picture"
        raise ValueError(f"{name} is damaged or cut off: its pixels cannot be read ({error}).") from error
    upright = _upright(image)
    if upright.mode == "F" or upright.mode.startswith("I"):
        return np.repeat(_to_8_bits(np.asarray(upright))[..., None], 3, axis=-1)
    if "A" in upright.mode or "a" in upright.mode or "transparency" in upright.info:
        return blend(np.asarray(upright.convert("RGBA")), background)
    return np.array(upright.convert("RGB"))


def blend(rgba: np.ndarray, background: Colour) -> np.ndarray:
    """Lay uint8 (H, W, 4) RGBA over a colour: uint8 (H, W, 3)."""
    alpha = rgba[..., 3:].astype(np.uint32)
    mixed = rgba[..., :3] * alpha + np.asarray(background, np.uint32) * (255 - alpha)
    return ((mixed + 127) // 255).astype(np.uint8)


def save_picture(path: str | Path, picture: np.ndarray) -> None:
    """Write uint8 (H, W, 3) RGB or (H, W) grey; the suffix names the format, missing folders are made.

    The file appears complete or not at all.
    """
    path = Path(path)
    options = SAVE_OPTIONS.get(path.suffix.lower())
    if options is None:
        known = ", ".join(SAVE_OPTIONS)
        raise ValueError(f"{path} has no suffix of a picture that can be written: use one of {known}.")
    if picture.dtype != np.uint8 or picture.ndim not in (2, 3) or picture.shape[2:] not in ((), (3,)):
        raise ValueError(f"A picture to save must be uint8 (H, W, 3) or (H, W), not {picture.dtype} {picture.shape}.")
    with complete_file(path) as temporary:
        Image.fromarray(picture).save(temporary, **options)


def _check_is_file(path: Path) -> None:
    if path.is_dir():
        raise ValueError(f"{path} is a folder, but one picture file was expected.")
    if not path.exists():
        raise FileNotFoundError(f"The picture {path} does not exist.")
    if path.stat().st_size == 0:
        raise ValueError(f"The picture {path} is empty (0 bytes).")


def _orientation(image: Image.Image) -> int:
    try:
        return image.getexif().get(_ORIENTATION, 1)
    except _DAMAGE:
        return 1  # broken metadata say nothing about the pixels


def _upright(image: Image.Image) -> Image.Image:
    if _orientation(image) not in range(2, 9):
        return image
    try:
        return ImageOps.exif_transpose(image)
    except _DAMAGE:
        return image


def _to_8_bits(samples: np.ndarray) -> np.ndarray:
    """Wide grey samples to uint8: integers are 16-bit, floats are 0..1 unless their maximum says 8 or 16 bits."""
    values = np.nan_to_num(samples.astype(np.float64), nan=0.0, posinf=np.inf, neginf=0.0)
    full = 65535.0
    if samples.dtype.kind == "f":
        full = next((limit for limit in (1.0, 255.0, 65535.0) if values.max() <= limit), 1.0)
    return np.rint(np.clip(values / full, 0.0, 1.0) * 255.0).astype(np.uint8)
