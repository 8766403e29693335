"""The shipped workflows: in step with the nodes, sound on every host, and they run on the tiny model."""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Iterable
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from . import stableanimator_job
from .harness import Host, Run
from .magicpose_job import MAGICPOSE_FILE, written
from .make_workflows import as_text, build, load_extras, object_info, path_of
from .ui_workflow import NOTES, Info, problems, to_api
from .workflow_plans import DEMO, DEMO_SIZE, PLANS, TINY

FRAMES = 5
TITLE = 30  # height of a node's title, above its place
WITH_VIDEO = {
    "choreo_tiny_demo": ["choreo/tiny_demo"],
    "mimicmotion_basic": ["choreo/mimicmotion"],
    "mimicmotion_ksampler_latent_fusion": ["choreo/mimicmotion_ksampler"],
    "stableanimator_basic": ["choreo/stableanimator"],
    "stableanimator_face_optimised": ["choreo/stableanimator_face"],
    "pose_toolkit": ["choreo/pose_overlay", "choreo/skeletons"],
    "magicpose_retarget": ["choreo/magicpose"],
    "magicpose_talking_expression": ["choreo/magicpose_talking"],
}
ON_TINY = {
    "ChoreoLoadMimicMotion": {"weights": TINY},
    "ChoreoLoadSVDParts": {"folder": TINY},
    "ChoreoLoadMagicPose": {"weights": MAGICPOSE_FILE},
    "ChoreoLoadPoseDetector": {"detector": TINY, "pose_model": TINY},
    "ChoreoLoadStableAnimator": {"weights": stableanimator_job.UNET_FILE},
    "ChoreoLoadFaceAnalyser": {"detector": TINY, "recogniser": TINY},
    "ChoreoFaceIdentity": {"without_face": "go on"},
    "ChoreoFaceOptimisation": {"end": 0, "iterations": 1},
    "ChoreoFitPicture": DEMO_SIZE,
    "ChoreoExtractPoses": {"every_nth": 1, "max_frames": FRAMES},
    "ChoreoMimicMotionSampler": {"steps": 2},
    "KSampler": {"steps": 2},
}


@pytest.fixture
def info(host: Host) -> Info:
    load_extras(host)
    return object_info(host)


def shipped(name: str) -> dict[str, Any]:
    return json.loads(path_of(name).read_text(encoding="utf-8"))


def on_tiny(prompt: dict[str, dict]) -> dict[str, dict]:
    """The same prompt with what a fresh install has in place of files, and little work."""
    prompt = copy.deepcopy(prompt)
    checkpoints = [key for key, node in prompt.items() if node["class_type"] == "ImageOnlyCheckpointLoader"]
    chosen = ON_TINY | _parts(node["class_type"] for node in prompt.values())
    for node in prompt.values():
        node["inputs"] |= chosen.get(node["class_type"], {})
        for name, value in node["inputs"].items():
            if isinstance(value, list) and value[0] in checkpoints:  # its slots: MODEL, CLIP_VISION, VAE
                node["inputs"][name] = [value[0], {1: 1, 2: 0}[value[1]]]
    for key in checkpoints:
        prompt[key] = {"class_type": "ChoreoLoadSVDParts", "inputs": {"folder": TINY}}
    return prompt


def _parts(types: Iterable[str]) -> dict[str, dict]:
    """SVD's parts that belong to StableAnimator where it is among the nodes: untrained, as it is."""
    folder = stableanimator_job.SVD_FOLDER if "ChoreoLoadStableAnimator" in types else TINY
    return {"ChoreoLoadSVDParts": {"folder": folder}}


def with_tiny_widgets(workflow: dict[str, Any]) -> dict[str, Any]:
    """The same workflow with the built-in networks chosen on the canvas: the first widgets of a node name its files."""
    workflow = copy.deepcopy(workflow)
    chosen = ON_TINY | _parts(node["type"] for node in workflow["nodes"])
    for node in workflow["nodes"]:
        if node["type"].startswith("ChoreoLoad") or node["type"] == "ChoreoFaceIdentity":
            names = list(chosen.get(node["type"], {}).values())
            node["widgets_values"][: len(names)] = names
    return workflow


def give_inputs(folder: Path) -> None:
    """The files that users would have chosen."""
    for name in ("reference.png", "driving.mp4"):
        shutil.copy(DEMO / name, folder / name)


def give_models(folder: Path, host: Host) -> None:
    """Networks that are not built in, untrained, for a models folder."""
    (folder / "magicpose").mkdir(exist_ok=True)
    shutil.copy(written(host), folder / "magicpose")
    shutil.copytree(stableanimator_job.written(host), folder / "stable_animator", dirs_exist_ok=True)


def run(host: Host, prompt: dict[str, dict]) -> Run:
    graph = {
        key: (node["class_type"], {n: tuple(v) if isinstance(v, list) else v for n, v in node["inputs"].items()})
        for key, node in prompt.items()
    }
    return host.queue(graph)


def test_there_are_no_others() -> None:
    assert {path.stem for path in path_of("x").parent.glob("*.json")} == set(PLANS)


@pytest.mark.parametrize("name", PLANS)
def test_files_are_in_step_with_the_nodes(host: Host, info: Info, name: str) -> None:
    assert path_of(name).read_text(encoding="utf-8") == as_text(build(name, PLANS[name], info)), (
        "run python -m tests.host.make_workflows"
    )


@pytest.mark.parametrize("name", PLANS)
def test_they_are_sound(info: Info, name: str) -> None:
    workflow = shipped(name)
    assert problems(workflow, info) == []
    notes = [node for node in workflow["nodes"] if node["type"] in NOTES]
    assert notes
    assert notes[0]["widgets_values"][0].startswith("# ")
    for node in workflow["nodes"]:
        assert node in notes or node["properties"]["cnr_id"] in ("comfyui-choreo", "comfy-core")
        for model in node["properties"].get("models", []):
            assert model["name"] in node["widgets_values"]


def rectangles(workflow: dict[str, Any]) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """[left, top, right, bottom] of every group, and of every node with its title, by name."""
    groups = {group["title"]: group["bounding"] for group in workflow["groups"]}
    nodes = {f"{n['type']} {n['id']}": [n["pos"][0], n["pos"][1] - TITLE, *n["size"]] for n in workflow["nodes"]}
    for box in nodes.values():
        box[3] += TITLE
    return tuple({name: [x, y, x + w, y + h] for name, (x, y, w, h) in boxes.items()} for boxes in (groups, nodes))


def misplaced(workflow: dict[str, Any]) -> list[str]:
    """Nodes and groups that overlap, and nodes that stick out of every group."""
    groups, nodes = rectangles(workflow)
    found = []
    for boxes in (groups, nodes):
        found += [f"{a} on {b}" for (a, p), (b, q) in combinations(boxes.items(), 2) if _overlap(p, q)]
    for name, (left, top, right, bottom) in nodes.items():
        inside = [g[0] <= left and g[1] <= top and right <= g[2] and bottom <= g[3] for g in groups.values()]
        if name.split()[0] not in NOTES and not any(inside):
            found.append(f"{name} sticks out")
    return found


def _overlap(one: list[float], other: list[float]) -> bool:
    return all(one[axis] < other[axis + 2] and other[axis] < one[axis + 2] for axis in (0, 1))


@pytest.mark.parametrize("name", PLANS)
def test_nothing_lies_on_anything_else(name: str) -> None:
    assert misplaced(shipped(name)) == []


@pytest.mark.parametrize("name", PLANS)
def test_each_has_a_thumbnail(name: str) -> None:
    with Image.open(path_of(name).with_suffix(".jpg")) as picture:
        assert picture.format == "JPEG"
        assert min(picture.size) >= 128
        assert sum(count > 0 for count in picture.convert("L").histogram()) > 50


@pytest.mark.parametrize("name", PLANS)
def test_they_run_on_the_tiny_model(host: Host, info: Info, name: str) -> None:
    give_inputs(host.folder / "input")
    give_models(host.folder / "models", host)
    result = run(host, on_tiny(to_api(shipped(name), info)))
    assert result.error is None
    shown = [entry for outputs in result.ui.values() for entry in outputs.get("images", [])]
    videos = [f"{entry['subfolder']}/{entry['filename']}" for entry in shown if entry["filename"].endswith(".mp4")]
    for prefix in WITH_VIDEO[name]:
        video = next(path for path in videos if path.startswith(prefix + "_0"))
        frames = list(host.module("media.video").read_frames(host.folder / "output" / video))
        assert len(frames) == FRAMES


def test_the_tiny_demo_runs_as_it_is(host: Host, info: Info) -> None:
    shutil.rmtree(host.folder / "input")
    (host.folder / "input").mkdir()
    result = run(host, to_api(shipped("choreo_tiny_demo"), info))
    assert result.error is None
    poses = next(out[0] for out in result.outputs.values() if type(out[0]).__name__ == "Poses")
    assert poses.present.any(axis=1).mean() > 0.9


def test_a_prompt_leaves_out_what_does_not_run(info: Info) -> None:
    workflow = shipped("choreo_tiny_demo")
    by_type = {node["type"]: node for node in workflow["nodes"]}
    whole = to_api(workflow, info)
    assert len(whole) == len(workflow["nodes"]) - 1
    by_type["ChoreoFillGaps"]["mode"], by_type["ChoreoPoseVideo"]["mode"] = 4, 2
    less = to_api(workflow, info)
    pick, align = (str(by_type[name]["id"]) for name in ("ChoreoPickPerson", "ChoreoAlignPoses"))
    assert less[align]["inputs"]["poses"] == [pick, 0]
    assert {node["class_type"] for node in whole.values()} - {node["class_type"] for node in less.values()} == {
        "ChoreoFillGaps",
        "ChoreoPoseVideo",
    }


def _first(workflow: dict, node_type: str) -> dict:
    return next(node for node in workflow["nodes"] if node["type"] == node_type)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda w: _first(w, "ChoreoPoseVideo").update(type="ChoreoDraw"), "unknown type"),
        (lambda w: _first(w, "ChoreoPoseVideo")["widgets_values"].pop(), "widget values"),
        (lambda w: _first(w, "ChoreoPoseVideo")["widgets_values"].__setitem__(0, "oil"), "not one of"),
        (lambda w: _first(w, "ChoreoDecodeVideo")["widgets_values"].__setitem__(0, 0), "not in 1"),
        (lambda w: _first(w, "ChoreoDecodeVideo")["widgets_values"].__setitem__(0, "8"), "not INT"),
        (lambda w: _first(w, "ChoreoPoseVideo")["inputs"][0].update(name="pose"), "no input pose"),
        (lambda w: _first(w, "ChoreoPickPerson")["inputs"][0].update(link=None), "not connected"),
        (lambda w: _first(w, "ChoreoDecodeVideo")["outputs"].clear(), "outputs are"),
        (lambda w: w["links"][0].__setitem__(5, "VAE"), "as VAE"),
        (lambda w: w.update(last_node_id=3), "last_node_id"),
        (lambda w: w["links"].pop(), "disagree"),
    ],
)
def test_faults_are_found(info: Info, spoil: Any, words: str) -> None:
    workflow = shipped("choreo_tiny_demo")
    spoil(workflow)
    found = problems(workflow, info)
    assert any(words in problem for problem in found), found
