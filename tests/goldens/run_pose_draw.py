"""Drawing of poses in the published conventions, and the sizes they are drawn at."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from choreo.pose.draw import Renderer
from choreo.pose.poses import BODY
from choreo.pose.published_sizes import (
    draw_moore,
    moore_network_picture,
    moore_size,
    resize_controlnet_aux,
)
from choreo.pose.styles import STYLES, Style
from choreo.pose.wholebody import best_person

from .cases import Case
from .registry import runner
from .tables import Frame, frame_from_tables

LAYERS = {"layer_body": "body", "layer_hands": "hands", "layer_faces": "face"}
SWITCHES = {"body": "body", "hand": "hands", "face": "face"}
PARTS = ("body", "hands", "face")


def chw(picture: np.ndarray) -> np.ndarray:
    return picture.transpose(2, 0, 1)


def draw(style: str | Style, size: np.ndarray, frame: Frame, parts: tuple[str, ...] = PARTS) -> np.ndarray:
    shown = {part: part in parts for part in PARTS}
    return Renderer(style, tuple(size.tolist()), **shown, published=True).draw(*frame)


@runner("pose/draw_mimicmotion")
def draw_mimicmotion(case: Case) -> dict:
    size, ref_w = case.arrays["hw"], int(case.arrays["ref_w"].item())
    frame = frame_from_tables(case.arrays, "")
    style = replace(STYLES["mimicmotion"], canvas_short_side=ref_w)
    straight = replace(STYLES["stableanimator"], canvas_short_side=ref_w)
    image = chw(draw(style, size, frame))
    layers = replace(straight, canvas_short_side=None)
    return {
        "image_chw": image,
        "image_chw_sub": image[:, 1::4, 1::4],
        "row_sums": image.sum(axis=2, dtype=np.int64),
        "canvas_hw": style.canvas(tuple(size.tolist()), published=True),
        "stableanimator_png_rgb": draw(straight, size, frame),
        **{name: draw(layers, size, frame, (part,)) for name, part in LAYERS.items()},
    }


@runner("mimicmotion/draw_pose")
def draw_pose(case: Case) -> dict:
    outputs = {}
    for full_name in case.expected:
        name = full_name.removeprefix("out.")
        scene, _, kind = name.partition(".")
        given = {
            key.removeprefix(f"{scene}."): value for key, value in case.arrays.items() if key.startswith(f"{scene}.")
        }
        style = STYLES["mimicmotion"]
        if "ref_w" in given:
            style = replace(style, canvas_short_side=int(given["ref_w"].item()))
        parts = tuple(SWITCHES[word] for word in kind.split("_")[1:] if word in SWITCHES) or PARTS
        image = chw(draw(style, given["hw"], frame_from_tables(given, "", "body_score"), parts))
        if kind == "crop128":
            top, left = given["crop_yx"].tolist()
            image = image[:, top : top + 128, left : left + 128]
        elif kind == "block16_mean":
            rows, columns = image.shape[1] // 16, image.shape[2] // 16
            image = image.reshape(3, rows, 16, columns, 16).mean(axis=(2, 4)).astype(np.float32)
        outputs[name] = image
    return outputs


@runner("pose/draw_classic")
def draw_classic(case: Case) -> dict:
    frame = case.arrays["keypoints134"] / case.arrays["hw"][::-1], case.arrays["scores134"]
    parts = PARTS if case.config.get("face", True) else ("body", "hands")
    return {"image_hwc": draw("classic", case.arrays["hw"], frame, parts)}


@runner("pose/draw_controlnet_aux")
def draw_controlnet_aux(case: Case) -> dict:
    style = "controlnet_aux_xinsr" if case.config.get("xinsr_stick_scaling") else "controlnet_aux"
    shown = {"body": "draw_body", "hands": "draw_hand", "face": "draw_face"}
    renderer = Renderer(
        style,
        tuple(case.arrays["hw"].tolist()),
        **{part: case.config.get(switch, True) for part, switch in shown.items()},
    )
    image = renderer.draw(case.arrays["points134"], case.arrays["present134"], units="by part")
    return {"image_hwc": image}


@runner("pose/draw_moore")
def draw_moore_case(case: Case) -> dict:
    picture, scores = case.arrays["image_rgb"], case.arrays["scores134"]
    size = picture.shape[:2]
    detect, image = case.config["detect_resolution"], case.config["image_resolution"]
    best = best_person(scores)
    return {
        "network_image_bgr_sub": moore_network_picture(picture, detect)[::3, ::3],
        "detect_hw": moore_size(size, detect),
        "image_hwc": draw_moore(case.arrays["keypoints134"] / size[::-1], scores, size, detect, image),
        "body_score": scores[best : best + 1, BODY],
    }


@runner("pose/controlnet_aux_resize")
def controlnet_aux_resize(case: Case) -> dict:
    padded, unpadded = resize_controlnet_aux(case.arrays["image"], case.config["resolution"])
    return {"padded": padded[::2, ::2] if case.config.get("padded_subsampled") else padded, "unpadded_hw": unpadded}
