"""python -m tests.host.make_workflows (in the host's environment): write workflows/*.json from their plans.

Node definitions come from the host itself, so that inputs, outputs and values of widgets are in its order.
"""

from __future__ import annotations

import json
import math
import re
import uuid
from pathlib import Path
from typing import Any

from .harness import ROOT, Host, open_host
from .ui_workflow import Info, extra_value, inputs_of, is_widget
from .workflow_plans import PLANS, Box, Plan

FOLDER = ROOT / "workflows"
EXTRAS = ("nodes_video", "nodes_video_model")
VERSION = "0.1.0"
CORE_VERSION = "0.3.64"
WIDTH, GAP, TITLE, ROW = 340, 40, 40, 26
NOTE_WIDTH, NOTE_LINE, NOTE_LETTERS = 460, 17, 78
VIEW = {"scale": 0.6, "offset": [120, 150]}  # how a workflow opens: beside and below the frontend's bars
HIGHEST = 1620  # a group that would make its column higher begins the next one
# room for what a node shows: a picture, or a video up to 9:16, which is fitted into the room that there is
PICTURE, VIDEO = 230, WIDTH * 16 // 9
SHOWING = {
    "LoadImage": PICTURE,
    "ChoreoExtractPoses": PICTURE,
    "ChoreoAlignPoses": PICTURE,
    "ChoreoDecodeVideo": PICTURE,
    "ChoreoMimicMotionSampler": PICTURE,
    "KSampler": PICTURE,
    "ChoreoPoseVideo": WIDTH,
    "LoadVideo": VIDEO,
    "SaveVideo": VIDEO,
}
COLOURS = {  # groups in the order of their places
    "Models": "#88a",
    "Inputs": "#3f789e",
    "Poses": "#8a8",
    "Check": "#b58b2a",
    "Face": "#a8554f",
    "Sampling": "#a1309b",
    "Output": "#b06634",
}


def object_info(host: Host) -> Info:
    """What the server gives for /object_info, of the nodes that are loaded."""
    info = {}
    for name, node in host.nodes.NODE_CLASS_MAPPINGS.items():
        if hasattr(node, "GET_NODE_INFO_V1"):
            info[name] = node.GET_NODE_INFO_V1()
        else:
            outputs = list(node.RETURN_TYPES)
            names = list(getattr(node, "RETURN_NAMES", outputs))
            info[name] = {"input": node.INPUT_TYPES(), "output": outputs, "output_name": names}
    return info


def load_extras(host: Host) -> None:
    """Load the host's own nodes that workflows use, once."""
    for name in EXTRAS:
        if not any(name in str(getattr(node, "__module__", "")) for node in host.nodes.NODE_CLASS_MAPPINGS.values()):
            host.load_extra(name)


def build(name: str, plan: Plan, info: Info) -> dict[str, Any]:
    """The workflow of a plan in UI format 0.4."""
    boxes = [box for group in plan.groups.values() for box in group]
    ids = {box.key: number for number, box in enumerate(boxes, start=2)}
    nodes = {box.key: _node(box, ids[box.key], order, info) for order, box in enumerate(boxes, start=1)}
    links = _connect(boxes, nodes, ids)
    note = _note(plan.note)
    groups = _lay_out(plan, note, nodes)
    return {
        "id": str(uuid.uuid5(uuid.NAMESPACE_URL, f"choreo/{name}")),
        "revision": 0,
        "last_node_id": max(ids.values()),
        "last_link_id": len(links),
        "nodes": [note, *nodes.values()],
        "links": links,
        "groups": groups,
        "config": {},
        "extra": {"ds": VIEW},
        "version": 0.4,
    }


def _node(box: Box, node_id: int, order: int, info: Info) -> dict[str, Any]:
    about = info[box.type]
    inputs = inputs_of(about)
    wrong = (box.widgets.keys() | box.sources.keys()) - inputs.keys()
    if wrong:
        raise ValueError(f"{box.type} has no input {', '.join(sorted(wrong))}.")
    sockets = [{"name": n, "type": t, "link": None} for n, (t, o) in inputs.items() if not is_widget(t, o)]
    sockets += [
        {"name": n, "type": t, "widget": {"name": n}, "link": None}
        for n, (t, o) in inputs.items()
        if is_widget(t, o) and n in box.sources
    ]
    values: list[Any] = []
    for name, (of_type, options) in inputs.items():
        if is_widget(of_type, options):
            value = box.widgets[name] if name in box.widgets else _default(options)
            values += [value, *extra_value(name, of_type, options)]
    outputs = zip(about["output_name"], about["output"], strict=True)
    ours = box.type.startswith("Choreo")
    properties: dict[str, Any] = {
        "cnr_id": "comfyui-choreo" if ours else "comfy-core",
        "ver": VERSION if ours else CORE_VERSION,
        "Node name for S&R": box.type,
    }
    if box.models:
        keys = ("name", "url", "directory")
        properties["models"] = [dict(zip(keys, model, strict=True)) for model in box.models]
    return {
        "id": node_id,
        "type": box.type,
        "pos": [0, 0],
        "size": [WIDTH, 0],
        "flags": {},
        "order": order,
        "mode": 0,
        "inputs": sockets,
        "outputs": [{"name": n, "type": t, "links": []} for n, t in outputs],
        **({"title": box.title} if box.title else {}),
        "properties": properties,
        "widgets_values": values,
    }


def _default(options: dict[str, Any]) -> Any:
    return options["default"] if options.get("default") is not None else options["options"][0]


def _connect(boxes: list[Box], nodes: dict[str, dict], ids: dict[str, int]) -> list[list]:
    links = []
    for box in boxes:
        for name, source in box.sources.items():
            key, output = source.split(".")
            slot = [socket["name"] for socket in nodes[key]["outputs"]].index(output)
            socket = nodes[key]["outputs"][slot]
            place = [own["name"] for own in nodes[box.key]["inputs"]].index(name)
            number = len(links) + 1
            socket["links"].append(number)
            nodes[box.key]["inputs"][place]["link"] = number
            links.append([number, ids[key], slot, ids[box.key], place, socket["type"]])
    return links


def _lay_out(plan: Plan, note: dict[str, Any], nodes: dict[str, dict]) -> list[dict[str, Any]]:
    """Give nodes their places and sizes, column after column below the note; the groups around them."""
    groups = []
    x, top = 0, note["pos"][1] + note["size"][1] + GAP
    wide = NOTE_WIDTH
    for title in (name for name in COLOURS if name in plan.groups):
        boxes = [nodes[box.key] for box in plan.groups[title]]
        heights = [_height(node) for node in boxes]
        height = TITLE + sum(heights) + len(heights) * TITLE + GAP // 2
        if top + height > HIGHEST:
            x, top, wide = x + wide + GAP, 0, WIDTH + GAP
        y = top + 2 * TITLE
        for node, own in zip(boxes, heights, strict=True):
            node["pos"], node["size"] = [x + GAP // 2, y], [wide - GAP, own]
            y += own + TITLE
        groups.append(
            {
                "id": len(groups) + 1,
                "title": title,
                "bounding": [x, top, wide, height],
                "color": COLOURS[title],
                "font_size": 24,
                "flags": {},
            }
        )
        top += height + GAP
    return groups


def _height(node: dict[str, Any]) -> int:
    rows = max(len(node["inputs"]), len(node["outputs"])) + len(node["widgets_values"])
    return rows * ROW + 20 + SHOWING.get(node["type"], 0)


def _note(text: str) -> dict[str, Any]:
    shown = re.sub(r"\]\(.*?\)", "", text).splitlines()
    lines = sum(max(1, math.ceil(len(line) / NOTE_LETTERS)) + line.startswith("#") for line in shown)
    return {
        "id": 1,
        "type": "MarkdownNote",
        "pos": [0, TITLE],
        "size": [NOTE_WIDTH, lines * NOTE_LINE + 40],
        "flags": {},
        "order": 0,
        "mode": 0,
        "inputs": [],
        "outputs": [],
        "title": "Read me",
        "properties": {},
        "widgets_values": [text],
        "color": "#432",
        "bgcolor": "#653",
    }


def as_text(workflow: dict[str, Any]) -> str:
    """What the file holds."""
    return json.dumps(workflow, indent=1, ensure_ascii=False) + "\n"


def path_of(name: str) -> Path:
    """The file of a workflow."""
    return FOLDER / f"{name}.json"


if __name__ == "__main__":
    one_host = open_host()
    load_extras(one_host)
    for plan_name, one_plan in PLANS.items():
        path_of(plan_name).write_text(as_text(build(plan_name, one_plan, object_info(one_host))), encoding="utf-8")
