"""What a puppet looks like: proportions, colours, clothes, hair and the background it stands before."""

from __future__ import annotations

import colorsys
from dataclasses import dataclass

import numpy as np

Colour = tuple[int, int, int]  # RGB, 0..255

HAIR = ("short", "long", "bun", "cap")
PATTERNS = ("plain", "plain", "stripes", "sash")


@dataclass(frozen=True)
class Character:
    """A puppet. Lengths are shares of its height, colours RGB in 0..255."""

    height: float  # share of the picture's height, standing upright
    torso: float
    leg: float
    arm: float
    shoulders: float  # half the distance between the shoulder joints
    hips: float
    head: float  # half the head's height
    limb: float  # thickness of arms; legs are a little thicker
    skin: Colour
    hair_colour: Colour
    top: Colour
    trim: Colour  # second colour of a pattern
    trousers: Colour
    shoes: Colour
    sky: Colour  # the background's upper colour, running into `wall`
    wall: Colour
    floor: Colour
    horizon: float  # share of the picture's height
    hair: str
    pattern: str
    short_sleeves: bool
    shorts: bool

    def colours(self) -> np.ndarray:
        """float32 (27,): the nine colours in 0..1, the order of the fields."""
        names = ("skin", "hair_colour", "top", "trim", "trousers", "shoes", "sky", "wall", "floor")
        return np.array([getattr(self, name) for name in names], np.float32).ravel() / 255


def draw_character(rng: np.random.Generator) -> Character:
    """A random puppet."""
    top_hue = rng.random()
    trousers_hue = (top_hue + rng.uniform(0.2, 0.8)) % 1
    wall_hue = rng.random()
    tone = rng.random()
    leg = rng.uniform(0.44, 0.5)
    head = rng.uniform(0.095, 0.115)
    return Character(
        height=rng.uniform(0.72, 0.82),
        torso=1 - leg - 2 * head - 0.02,
        leg=leg,
        arm=rng.uniform(0.33, 0.38),
        shoulders=rng.uniform(0.1, 0.13),
        hips=rng.uniform(0.055, 0.08),
        head=head,
        limb=rng.uniform(0.055, 0.075),
        skin=_mix((255, 224, 196), (110, 70, 45), tone),
        hair_colour=_colour(rng.choice([0.04, 0.08, 0.12, rng.random()]), rng.uniform(0.4, 0.9), rng.uniform(0.1, 0.7)),
        top=_colour(top_hue, rng.uniform(0.55, 1), rng.uniform(0.5, 1)),
        trim=_colour(rng.random(), rng.uniform(0, 0.8), rng.uniform(0.6, 1)),
        trousers=_colour(trousers_hue, rng.uniform(0.4, 1), rng.uniform(0.25, 0.85)),
        shoes=_colour(rng.random(), rng.uniform(0, 0.8), rng.uniform(0.1, 0.6)),
        sky=_colour(wall_hue, rng.uniform(0, 0.35), rng.uniform(0.55, 1)),
        wall=_colour(wall_hue, rng.uniform(0, 0.35), rng.uniform(0.55, 1)),
        floor=_colour(rng.random(), rng.uniform(0, 0.4), rng.uniform(0.35, 0.8)),
        horizon=rng.uniform(0.68, 0.84),
        hair=str(rng.choice(HAIR)),
        pattern=str(rng.choice(PATTERNS)),
        short_sleeves=bool(rng.random() < 0.5),
        shorts=bool(rng.random() < 0.25),
    )


def _colour(hue: float, saturation: float, value: float) -> Colour:
    red, green, blue = colorsys.hsv_to_rgb(float(hue) % 1, float(saturation), float(value))
    return round(255 * red), round(255 * green), round(255 * blue)


def _mix(a: Colour, b: Colour, share: float) -> Colour:
    return tuple(round((1 - share) * x + share * y) for x, y in zip(a, b, strict=True))
