"""The drawing conventions of the published systems as data; `draw.py` is the one routine that follows them.

Indices are OpenPose-18 joints: 0 nose, 1 neck, 2-4 right arm, 5-7 left arm, 8-10 right leg, 11-13 left leg,
14 and 15 right and left eye, 16 and 17 right and left ear. Colours are RGB.
"""

from __future__ import annotations

import colorsys
from dataclasses import dataclass

Colour = tuple[int, int, int]
Link = tuple[int, int]

RAINBOW: tuple[Colour, ...] = (
    *((255, 0, 0), (255, 85, 0), (255, 170, 0), (255, 255, 0), (170, 255, 0), (85, 255, 0)),
    *((0, 255, 0), (0, 255, 85), (0, 255, 170), (0, 255, 255), (0, 170, 255), (0, 85, 255)),
    *((0, 0, 255), (85, 0, 255), (170, 0, 255), (255, 0, 255), (255, 0, 170), (255, 0, 85)),
)
OPENPOSE_LIMBS: tuple[Link, ...] = (
    *((1, 2), (1, 5), (2, 3), (3, 4), (5, 6), (6, 7), (1, 8), (8, 9), (9, 10)),
    *((1, 11), (11, 12), (12, 13), (1, 0), (0, 14), (14, 16), (0, 15), (15, 17)),
)
HAND_EDGES: tuple[Link, ...] = tuple(
    (0 if joint == 0 else finger + joint, finger + joint + 1) for finger in range(0, 20, 4) for joint in range(4)
)
# floats, because OpenCV rounds colours half to even where int() would truncate
HAND_EDGE_COLOURS = tuple(colorsys.hsv_to_rgb(edge / len(HAND_EDGES), 1.0, 1.0) for edge in range(len(HAND_EDGES)))
HAND_DOT: Colour = (0, 0, 255)
FACE_DOT: Colour = (255, 255, 255)
LIMB_DIMMING = 0.6
# A canvas of 2160 shrunk to 576 leaves limbs 2 pixels wide; shrunk to 128 it would leave dotted traces of half a pixel.
SMALL_PICTURE, SMALL_SHRINKING = 384, 4

_LEFT, _RIGHT, _MIDDLE = (0, 255, 0), (0, 128, 255), (255, 153, 51)
# COCO-17 links in the order that mmpose draws them, with the palette read as BGR
COCO_LINKS: tuple[tuple[Link, Colour], ...] = (
    *(((13, 12), _LEFT), ((12, 11), _LEFT), ((10, 9), _RIGHT), ((9, 8), _RIGHT), ((11, 8), _MIDDLE)),
    *(((5, 11), _MIDDLE), ((2, 8), _MIDDLE), ((5, 2), _MIDDLE), ((5, 6), _LEFT), ((2, 3), _RIGHT)),
    *(((6, 7), _LEFT), ((3, 4), _RIGHT), ((15, 14), _MIDDLE), ((0, 15), _MIDDLE), ((0, 14), _MIDDLE)),
    *(((15, 17), _MIDDLE), ((14, 16), _MIDDLE), ((17, 5), _MIDDLE), ((16, 2), _MIDDLE)),
)


@dataclass(frozen=True)
class Style:
    """One drawing convention.

    limbs, limb_colours: joint pairs and the colour of each, before dimming.
    joint_colours:       one a joint, or empty where joints have no dots.
    limb_dimming:        limb colours are truncated after this factor; joints, hands and face stay bright.
    line_width:          share of the short side that plain limb lines are wide; None draws ellipses instead.
    stick_scaling:       ellipses get wider on pictures from 500 pixels on (the option of the xinsr control nets).
    hands, face:         whether the convention knows hands and faces at all.
    eyes_in_face:        the two body eyes are dotted once more with the face.
    confidence:          scores scale the colours; then hand and face points of any score are drawn.
    threshold:           body joints are drawn above this score; where confidence does not dim them, hand and face
                         points are drawn from this score on.
    at_threshold:        body joints that are exactly at the threshold are drawn too.
    person_by_person:    people cover one another as a whole, instead of limbs, joints, hands, faces of everybody.
    canvas_short_side:   drawn at this short side and shrunk (bilinear, no antialias); None draws at the final size.
                         Pictures below SMALL_PICTURE pixels use a smaller canvas unless the published one is asked for.
    channel_order:       "straight": limb 0 is red and hand dots blue in RGB; "reversed": the other way round.
    """

    name: str
    limbs: tuple[Link, ...] = OPENPOSE_LIMBS
    limb_colours: tuple[Colour, ...] = RAINBOW
    joint_colours: tuple[Colour, ...] = RAINBOW
    limb_dimming: float = LIMB_DIMMING
    line_width: float | None = None
    stick_scaling: bool = False
    hands: bool = True
    face: bool = True
    eyes_in_face: bool = False
    confidence: bool = False
    threshold: float = 0.3
    at_threshold: bool = False
    person_by_person: bool = False
    canvas_short_side: int | None = None
    channel_order: str = "straight"

    def stick(self, size: tuple[int, int]) -> int:
        """Half width of a limb ellipse, or the width of a limb line, on a canvas (height, width), in pixels."""
        if self.line_width is not None:
            return max(1, round(self.line_width * min(size)))
        if not self.stick_scaling or max(size) < 500:
            return 4
        return 4 * min(2 + max(size) // 1000, 7)

    def canvas(self, size: tuple[int, int], published: bool = False) -> tuple[int, int]:
        """(height, width) that a drawing of this size is made at; see `docs/drawing.md` on small pictures."""
        short = min(size)
        if self.canvas_short_side is None or self.canvas_short_side == short:
            return size
        side = self.canvas_short_side
        if short < SMALL_PICTURE and not published:
            side = min(side, SMALL_SHRINKING * short)
        scale = side / short
        return int(size[0] * scale), int(size[1] * scale)


_ALL = (
    Style("mimicmotion", confidence=True, canvas_short_side=2160, channel_order="reversed"),
    Style("stableanimator", confidence=True, canvas_short_side=2160),
    Style("classic"),
    Style("controlnet_aux", at_threshold=True, person_by_person=True, eyes_in_face=True),
    Style("controlnet_aux_xinsr", at_threshold=True, person_by_person=True, eyes_in_face=True, stick_scaling=True),
    Style(
        "followyourpose",
        limbs=tuple(link for link, _ in COCO_LINKS),
        limb_colours=tuple(colour for _, colour in COCO_LINKS),
        joint_colours=(),
        limb_dimming=1.0,
        line_width=0.012,
        hands=False,
        face=False,
    ),
)
STYLES: dict[str, Style] = {style.name: style for style in _ALL}


def find_style(style: str | Style) -> Style:
    """A style by its name; a :class:`Style` is returned as it is. Unknown names raise ValueError."""
    if isinstance(style, Style):
        return style
    if style not in STYLES:
        raise ValueError(f"Unknown drawing style {style!r}; choose one of {', '.join(STYLES)}.")
    return STYLES[style]
