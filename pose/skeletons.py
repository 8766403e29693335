"""Ready skeleton pictures in place of keypoints: brought to a size, and to the channel order a network expects."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, islice

import cv2
import numpy as np

from .styles import Style, find_style

FIT_MODES = ("auto", "letterbox", "cover", "stretch")
ORDERS = ("straight", "reversed")
SAME_RATIO = 0.03  # pictures whose ratio is this close are resized as they are: under 1 joint width of distortion
LOOKED_AT = 16  # pictures at the start of a clip that tell its channel order
_LEAST_PIXELS = 20  # of one colour; fewer are noise


@dataclass(frozen=True)
class Skeletons:
    """A prepared clip of skeleton pictures.

    frames:  uint8 (height, width, 3) RGB, one by one; can be read once.
    found:   channel order of the pictures that came in: "straight", "reversed" or "unknown".
    swapped: whether red and blue were exchanged for the style.
    note:    what was found and done, in a sentence.
    """

    frames: Iterator[np.ndarray]
    found: str
    swapped: bool
    note: str


def prepare_skeletons(
    pictures: Iterable[np.ndarray],
    size: tuple[int, int],
    style: str | Style,
    *,
    fit: str = "auto",
    order: str | None = None,
) -> Skeletons:
    """Skeleton pictures, uint8 (h, w, 3) RGB, at `size` (height, width) in the channel order of `style`.

    fit:   see :func:`fit_picture`.
    order: channel order of the pictures where it is known; None tells it from the colours of the first pictures.
    Pictures are read as they are used, but for the first `LOOKED_AT`. ValueError when there are none.
    """
    wanted = find_style(style).channel_order
    if order is not None and order not in ORDERS:
        raise ValueError(f"Unknown channel order {order!r}; choose one of {', '.join(ORDERS)}.")
    if fit not in FIT_MODES:
        raise ValueError(f"Unknown way to fit skeleton pictures {fit!r}; choose one of {', '.join(FIT_MODES)}.")
    remaining = iter(pictures)
    first = list(islice(remaining, LOOKED_AT))
    if not first:
        raise ValueError("No skeleton pictures were given; at least one is needed.")
    found = order or channel_order(first)
    swap = found not in ("unknown", wanted)
    if found == "unknown":
        note = f"The channel order of the skeleton pictures cannot be told from their colours; taken as {wanted}."
    else:
        said = "Channel order given" if order else "Skeleton pictures found"
        note = f"{said}: {found}; {find_style(style).name} expects {wanted}, " + (
            "red and blue were exchanged." if swap else "nothing to change."
        )
    frames = (fit_picture(picture, size, fit) for picture in chain(first, remaining))
    if swap:
        frames = (np.ascontiguousarray(frame[..., ::-1]) for frame in frames)
    return Skeletons(frames, found, swap, note)


def fit_picture(picture: np.ndarray, size: tuple[int, int], mode: str = "auto") -> np.ndarray:
    """One skeleton picture, uint8 (h, w, 3), at `size` (height, width).

    "letterbox" keeps the ratio and the whole figure and pads with black, "cover" keeps the ratio and cuts off what
    sticks out, "stretch" changes the ratio. "auto" stretches where the ratios differ by less than 3 % and
    letterboxes elsewhere. Shrinks by area, so that thin lines stay, and enlarges bilinearly. Always fresh.
    """
    if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3 or 0 in picture.shape:
        raise ValueError(f"A skeleton picture must be uint8 (height, width, 3), got {picture.dtype} {picture.shape}.")
    height, width = size
    down, across = height / picture.shape[0], width / picture.shape[1]
    if mode == "auto":
        mode = "stretch" if abs(down / across - 1) < SAME_RATIO else "letterbox"
    if mode == "stretch":
        return _resized(picture, height, width)
    scale = max(down, across) if mode == "cover" else min(down, across)
    inner = _resized(picture, *(max(1, round(side * scale)) for side in picture.shape[:2]))
    target = np.zeros((height, width, 3), dtype=np.uint8)
    to_rows, from_rows = _centred(height, inner.shape[0])
    to_columns, from_columns = _centred(width, inner.shape[1])
    target[to_rows, to_columns] = inner[from_rows, from_columns]
    return target


def _resized(picture: np.ndarray, height: int, width: int) -> np.ndarray:
    if picture.shape[:2] == (height, width):
        return picture.copy()
    shrinks = height * width < picture.shape[0] * picture.shape[1]
    return cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)


def _centred(outer: int, inner: int) -> tuple[slice, slice]:
    """(slice of the outer axis, slice of the inner axis) when one is centred on the other."""
    both, to, start = min(outer, inner), max(0, (outer - inner) // 2), max(0, (inner - outer) // 2)
    return slice(to, to + both), slice(start, start + both)


def channel_order(pictures: Iterable[np.ndarray]) -> str:
    """ "straight" (right shoulder red, hand dots blue), "reversed" (the other way round) or "unknown".

    pictures: uint8 (h, w, 3) RGB; each has one vote. The OpenPose rainbow with red and blue exchanged is nearly the
    same set of colours, so what tells is which colours are where (legs below arms, neck above shoulders) and
    hand dots (many of pure blue against the one red nose).
    """
    votes = sum(_vote(picture) for picture in pictures)
    if votes == 0:
        return "unknown"
    return "straight" if votes > 0 else "reversed"


def _vote(picture: np.ndarray) -> int:
    """1 for straight, -1 for reversed, 0 for no idea."""
    degrees, saturation, value = (cv2.cvtColor(picture, cv2.COLOR_RGB2HSV)[..., i] for i in range(3))
    degrees = degrees.astype(np.int16) * 2
    coloured = (saturation > 180) & (value > 40)
    arms, legs = _height(coloured & _near(degrees, 40, 25)), _height(coloured & _near(degrees, 200, 25))
    if arms is not None and legs is not None and abs(legs - arms) > 0.05 * len(picture):
        return 1 if legs > arms else -1
    bright = (saturation > 180) & (value > 165)  # limbs are dimmed to 153
    blue_dots, red_dots = bright & _near(degrees, 240, 10), bright & _near(degrees, 0, 10)
    counts = np.count_nonzero(blue_dots), np.count_nonzero(red_dots)
    if max(counts) > 2.5 * min(counts) and _reach(blue_dots if counts[0] > counts[1] else red_dots) > 0.04:
        return 1 if counts[0] > counts[1] else -1
    shoulder, neck = _height(coloured & _near(degrees, 0, 8)), _height(coloured & _near(degrees, 240, 8))
    if shoulder is not None and neck is not None and abs(shoulder - neck) > 0.01 * len(picture):
        return 1 if neck < shoulder else -1
    return 0


def _near(degrees: np.ndarray, hue: int, width: int) -> np.ndarray:
    """Where a hue is within `width` degrees of `hue`."""
    return np.abs((degrees - hue + 180) % 360 - 180) <= width


def _height(mask: np.ndarray) -> float | None:
    """Median row of the pixels of a mask; None when there are too few."""
    rows = np.flatnonzero(mask) // mask.shape[1]
    return float(np.median(rows)) if len(rows) >= _LEAST_PIXELS else None


def _reach(mask: np.ndarray) -> float:
    """How far the pixels of a mask lie apart, as a share of the longer side; a single dot is a point."""
    return max(float(np.ptp(axis)) for axis in np.nonzero(mask)) / max(mask.shape)


def with_pose_zero(
    frames: Iterable[np.ndarray], given: np.ndarray | None = None, detected: np.ndarray | None = None
) -> tuple[Iterator[np.ndarray], str]:
    """The pictures a network wants: the reference's own skeleton, then those of the clip; and where it came from.

    given:    the reference's skeleton from the user, at the size and in the order of the frames.
    detected: its drawing from keypoints found in the reference picture.
    Without either the first skeleton stands for the reference and then comes twice, so that every frame of the clip
    still gives one of the result. The source is "given", "detected" or "first skeleton".
    """
    if given is not None:
        return chain([given], frames), "given"
    if detected is not None:
        return chain([detected], frames), "detected"
    remaining = iter(frames)
    first = next(remaining, None)
    if first is None:
        raise ValueError("No skeleton pictures were given; at least one is needed.")
    return chain([first, first.copy()], remaining), "first skeleton"
