"""python -m tests.host.make_thumbnails [NAME …] (in the host's environment): write workflows/*.jpg.

Every picture comes from a run of its workflow on the demo's inputs and the built-in networks.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import numpy as np
import torch
from PIL import Image

from .harness import Host, Run, open_host
from .make_workflows import load_extras, object_info, path_of
from .test_workflows import give_inputs, on_tiny, run
from .ui_workflow import to_api
from .workflow_plans import DEMO_SIZE, PLANS

HEIGHT, FRAMES, FRAME = 288, 16, 12
TILES = {  # node types whose pictures stand side by side
    "choreo_tiny_demo": ("ChoreoFitPicture", "ChoreoDrawPoses", "ChoreoDecodeVideo"),
    "mimicmotion_basic": ("ChoreoDrawPoses", "ChoreoDecodeVideo"),
    "mimicmotion_ksampler_latent_fusion": ("ChoreoDecodeVideo", "ChoreoDecodeVideo", "ChoreoDecodeVideo"),
    "magicpose_retarget": ("ChoreoFitPicture", "ChoreoDrawPoses"),  # its networks are not built in
    "magicpose_talking_expression": ("ChoreoFitPicture", "ChoreoDrawPoses"),
    "stableanimator_basic": ("ChoreoFitPicture", "ChoreoDrawPoses"),
    "stableanimator_face_optimised": ("ChoreoDrawPoses", "ChoreoFitPicture", "ChoreoDrawPoses"),
    "pose_toolkit": ("ChoreoPoseOverlay", "ChoreoDrawPoses"),
}
STEPS = {"ChoreoMimicMotionSampler": {"steps": 10, "schedule": "ays"}, "KSampler": {"steps": 25}}


def thumbnail(host: Host, name: str) -> Image.Image:
    """The pictures of a workflow side by side; those of one node are spread over its clip."""
    prompt = on_tiny(to_api(json.loads(path_of(name).read_text(encoding="utf-8")), object_info(host)))
    for node in prompt.values():
        _give_pictures(node)
        if node["class_type"] == "ChoreoFitPicture":
            node["inputs"] |= DEMO_SIZE
        node["inputs"] |= STEPS.get(node["class_type"], {})
        if node["class_type"] == "ChoreoExtractPoses":
            node["inputs"]["max_frames"] = FRAMES
    result = run(host, _needed(prompt, TILES[name]))
    if result.error is not None:
        raise RuntimeError(result.error)
    tiles = TILES[name]
    frames = np.linspace(0, FRAME, tiles.count(tiles[-1])).astype(int) if len(set(tiles)) == 1 else len(tiles) * [FRAME]
    pictures = [_picture(_images(prompt, result, tile), frame) for tile, frame in zip(tiles, frames, strict=True)]
    whole = Image.new("RGB", (sum(picture.width for picture in pictures), HEIGHT))
    x = 0
    for picture in pictures:
        whole.paste(picture, (x, 0))
        x += picture.width
    return whole


def _give_pictures(node: dict[str, Any]) -> None:
    """Turn a node that draws a video into one that gives its pictures; MimicMotion's own style is dark and thin."""
    if node["class_type"] == "ChoreoPoseVideo":
        inputs = {"style": "classic"} | {k: node["inputs"][k] for k in ("poses", "frames") if k in node["inputs"]}
        over_a_clip = "frames" in inputs
        node["class_type"] = "ChoreoPoseOverlay" if over_a_clip else "ChoreoDrawPoses"
        node["inputs"] = inputs if over_a_clip else inputs | {"height": HEIGHT}


def _needed(prompt: dict[str, Any], node_types: tuple[str, ...]) -> dict[str, Any]:
    """The nodes of these types, and what is in front of them."""
    left = [key for key, node in prompt.items() if node["class_type"] in node_types]
    found: dict[str, Any] = {}
    while left:
        key = left.pop()
        found[key] = prompt[key]
        left += [value[0] for value in prompt[key]["inputs"].values() if isinstance(value, list)]
    return found


def _images(prompt: dict[str, Any], result: Run, node_type: str) -> torch.Tensor:
    return next(result.outputs[key][0] for key, node in prompt.items() if node["class_type"] == node_type)


def _picture(images: torch.Tensor, frame: int) -> Image.Image:
    pixels = (images[min(frame, len(images) - 1)] * 255).round().byte().numpy()
    picture = Image.fromarray(pixels)
    return picture.resize((round(picture.width * HEIGHT / picture.height), HEIGHT), Image.Resampling.LANCZOS)


def write_thumbnails(host: Host, *names: str) -> None:
    """Of the named workflows, or of all."""
    load_extras(host)
    give_inputs(host.folder / "input")
    for name in names or PLANS:
        thumbnail(host, name).save(path_of(name).with_suffix(".jpg"), quality=85)


if __name__ == "__main__":
    write_thumbnails(open_host(), *sys.argv[1:])
