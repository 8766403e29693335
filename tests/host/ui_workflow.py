"""Workflows as the canvas saves them (UI format 0.4): what is wrong with one, and the API prompt it stands for.

`info` is everywhere what the server's /object_info gives: {node type: {"input": ..., "output": ..., ...}}.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

NOTES = {"Note", "MarkdownNote"}
WIDGETS = {"INT", "FLOAT", "STRING", "BOOLEAN", "COMBO"}
SEEDS = {"seed", "noise_seed"}
UPLOADS = {"image_upload", "video_upload", "animated_image_upload", "audio_upload"}
MUTED, BYPASSED = 2, 4
Info = dict[str, dict[str, Any]]


def inputs_of(node: dict[str, Any]) -> dict[str, tuple[Any, dict[str, Any]]]:
    """A node type's inputs in the order of its definition: {name: (type, options)}; a list's type is COMBO."""
    found = {}
    for kind in ("required", "optional"):
        for name, (of_type, *rest) in node["input"].get(kind, {}).items():
            options = dict(rest[0]) if rest else {}
            is_list = isinstance(of_type, (list, tuple))
            found[name] = ("COMBO", options | {"options": list(of_type)}) if is_list else (of_type, options)
    return found


def is_widget(of_type: str, options: dict[str, Any]) -> bool:
    """Whether an input has a widget."""
    return of_type in WIDGETS and not options.get("forceInput")


def extra_value(name: str, of_type: str, options: dict[str, Any]) -> list[str]:
    """The values that the canvas saves behind a widget's own."""
    if options.get("control_after_generate") or (of_type == "INT" and name in SEEDS):
        return ["fixed"]
    return ["image"] if UPLOADS & {key for key, value in options.items() if value} else []


def widget_names(node: dict[str, Any]) -> list[str | None]:
    """The widget that each place of widgets_values belongs to; None for the extra ones."""
    names: list[str | None] = []
    for name, (of_type, options) in inputs_of(node).items():
        if is_widget(of_type, options):
            names += [name, *(None for _ in extra_value(name, of_type, options))]
    return names


def to_api(workflow: dict[str, Any], info: Info) -> dict[str, dict[str, Any]]:
    """The prompt that the run button would queue."""
    links = {link[0]: link for link in workflow["links"]}
    nodes = {node["id"]: node for node in workflow["nodes"]}
    prompt = {}
    for node in workflow["nodes"]:
        if node["type"] in NOTES or node["mode"] in (MUTED, BYPASSED):
            continue
        values = zip(widget_names(info[node["type"]]), node.get("widgets_values", []), strict=False)
        inputs = {name: value for name, value in values if name is not None}
        for socket in node.get("inputs", []):
            source = _source(socket["link"], links, nodes)
            if source is not None:
                inputs[socket["name"]] = source
        prompt[str(node["id"])] = {"class_type": node["type"], "inputs": inputs}
    return prompt


def _source(link_id: int | None, links: dict[int, list], nodes: dict[int, dict]) -> list | None:
    """[node id, slot] that a link comes from, past bypassed nodes; None when it comes from nothing that runs."""
    if link_id is None:
        return None
    _, origin, slot, _, _, of_type = links[link_id]
    node = nodes[origin]
    if node["mode"] == MUTED:
        return None
    if node["mode"] == BYPASSED:
        through = next((socket["link"] for socket in node["inputs"] if of_type in socket["type"].split(",")), None)
        return _source(through, links, nodes)
    return [str(origin), slot]


def problems(workflow: dict[str, Any], info: Info) -> list[str]:
    """What is wrong with a workflow, a sentence each; file names in lists are not looked at."""
    found = []
    if workflow["version"] != 0.4:
        found.append(f"version is {workflow['version']}")
    ids = [node["id"] for node in workflow["nodes"]]
    if len(set(ids)) != len(ids) or workflow["last_node_id"] != max(ids):
        found.append("node ids are not unique, or last_node_id is wrong")
    for node in workflow["nodes"]:
        if node["type"] not in NOTES:
            found += [f"node {node['id']} ({node['type']}): {text}" for text in _node_problems(node, info)]
    return [*found, *_link_problems(workflow)]


def _node_problems(node: dict[str, Any], info: Info) -> Iterator[str]:
    about = info.get(node["type"])
    if about is None:
        yield "unknown type"
        return
    inputs, values, names = inputs_of(about), node.get("widgets_values", []), widget_names(about)
    if len(values) != len(names):
        yield f"{len(values)} widget values for {names}"
    for name, value in zip(names, values, strict=False):
        if name is not None and (text := _wrong_value(*inputs[name], value)):
            yield f"{name} = {value!r}: {text}"
    for socket in node.get("inputs", []):
        if socket["name"] not in inputs:
            yield f"no input {socket['name']}"
        elif socket["type"] != inputs[socket["name"]][0]:
            yield f"input {socket['name']} is {inputs[socket['name']][0]}, not {socket['type']}"
    linked = {socket["name"] for socket in node.get("inputs", []) if socket["link"] is not None}
    for name in about["input"].get("required", {}):
        if name not in linked and not is_widget(*inputs[name]):
            yield f"required input {name} is not connected"
    outputs = [(socket["name"], socket["type"]) for socket in node.get("outputs", [])]
    known = list(zip(about["output_name"], about["output"], strict=True))
    # a host names an output by its type where the node gives no name to show
    if len(outputs) != len(known) or any(o[1] != k[1] or k[0] not in o for o, k in zip(outputs, known, strict=True)):
        yield f"outputs are {known}, not {outputs}"


def _wrong_value(of_type: str, options: dict[str, Any], value: Any) -> str | None:
    expected = {"INT": int, "FLOAT": (int, float), "STRING": str, "BOOLEAN": bool, "COMBO": str}[of_type]
    if not isinstance(value, expected) or (isinstance(value, bool) and of_type != "BOOLEAN"):
        return f"not {of_type}"
    if of_type in ("INT", "FLOAT") and not options.get("min", value) <= value <= options.get("max", value):
        return f"not in {options.get('min')} to {options.get('max')}"
    if of_type == "COMBO" and value not in options["options"] and not _lists_files(options["options"]):
        return "not one of " + ", ".join(map(str, options["options"]))
    return None


def _lists_files(options: list[Any]) -> bool:
    return not options or any("." in str(option) or "(built in)" in str(option) for option in options)


def _link_problems(workflow: dict[str, Any]) -> Iterator[str]:
    nodes = {node["id"]: node for node in workflow["nodes"]}
    used = {socket["link"] for node in workflow["nodes"] for socket in node.get("inputs", [])} - {None}
    if used != {link[0] for link in workflow["links"]} or workflow["last_link_id"] != max(used, default=0):
        yield "inputs and the list of links disagree, or last_link_id is wrong"
    for link_id, origin, slot, target, target_slot, of_type in workflow["links"]:
        if slot >= len(nodes[origin]["outputs"]) or target_slot >= len(nodes[target]["inputs"]):
            yield f"link {link_id}: there is no such slot"
            continue
        source, sink = nodes[origin]["outputs"][slot], nodes[target]["inputs"][target_slot]
        if link_id not in source["links"] or sink["link"] != link_id:
            yield f"link {link_id}: its ends do not know it"
        if source["type"] != of_type or of_type not in sink["type"].split(","):
            yield f"link {link_id}: {source['type']} to {sink['type']} as {of_type}"
