"""The pack in a real server: queued over HTTP, watched over the websocket."""

from __future__ import annotations

import io
import json
import re
import time
from collections.abc import Iterator
from typing import Any

import pytest
from PIL import Image

from .harness import ROOT, Host
from .live import Server, messages, serve
from .test_workflows import FRAMES, WITH_VIDEO, give_inputs, give_models, on_tiny, shipped
from .ui_workflow import problems, to_api
from .workflow_plans import PLANS


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, one_host: Host) -> Iterator[Server]:
    with serve(tmp_path_factory.mktemp("server")) as running:
        give_inputs(running.folder / "input")
        give_models(running.folder / "models", one_host)
        yield running


@pytest.fixture(scope="module")
def info(server: Server) -> dict[str, Any]:
    return server.json("/object_info")


def queue(server: Server, prompt: dict[str, dict], client: str = "tests") -> str:
    status, answer = server.post("/prompt", {"prompt": prompt, "client_id": client})
    assert status == 200, answer
    return answer["prompt_id"]


def history(server: Server, prompt_id: str) -> dict[str, Any]:
    """What the server keeps of a prompt; it says that one has ended a moment before it can be asked for."""
    for _ in range(50):
        if found := server.json(f"/history/{prompt_id}"):
            break
        time.sleep(0.2)
    return found[prompt_id]


def changed(prompt: dict[str, dict], class_type: str, **inputs: Any) -> dict[str, dict]:
    for node in prompt.values():
        if node["class_type"] == class_type:
            node["inputs"] |= inputs
    return prompt


@pytest.mark.parametrize("name", PLANS)
def test_shipped_workflows_give_videos(server: Server, info: dict, name: str) -> None:
    workflow = shipped(name)
    assert problems(workflow, info) == []
    prompt = on_tiny(to_api(workflow, info))
    with server.listen() as connection:
        prompt_id = queue(server, prompt)
        heard = list(messages(connection, prompt_id))
    kinds = [kind for kind, _ in heard]
    assert kinds[-1] == "execution_success", heard[-1]
    reports = [(prompt[data["node"]]["class_type"], data["value"], data["max"]) for k, data in heard if k == "progress"]
    cached = {prompt[key]["class_type"] for kind, data in heard if kind == "execution_cached" for key in data["nodes"]}
    assert "ChoreoExtractPoses" in cached or ("ChoreoExtractPoses", FRAMES, FRAMES) in reports
    if name != "pose_toolkit":
        sampler = next(c for n in prompt.values() if (c := n["class_type"]) in ("KSampler", "ChoreoMimicMotionSampler"))
        assert (sampler, 2, 2) in reports
        previews = [data for kind, data in heard if kind == "preview"]
        assert previews
        assert min(Image.open(io.BytesIO(previews[-1])).size) > 8
    outputs = history(server, prompt_id)["outputs"]
    shown = [entry for output in outputs.values() for entry in output.get("images", [])]
    for prefix in WITH_VIDEO[name]:
        entry = next(e for e in shown if f"{e['subfolder']}/{e['filename']}".startswith(prefix + "_0"))
        video = server.get("/view", filename=entry["filename"], subfolder=entry["subfolder"], type=entry["type"])
        assert video[4:8] == b"ftyp"


def test_stop_is_obeyed_and_the_next_run_works(server: Server, info: dict) -> None:
    prompt = on_tiny(to_api(shipped("choreo_tiny_demo"), info))
    changed(prompt, "ChoreoMimicMotionSampler", steps=200, seed=5)
    with server.listen() as connection:
        prompt_id = queue(server, prompt)
        done = 0
        for kind, data in messages(connection, prompt_id):
            if kind == "progress" and prompt[data["node"]]["class_type"] == "ChoreoMimicMotionSampler":
                if data["max"] == 200 and data["value"] == 1:
                    server.post("/interrupt", {})
                done = data["value"]
        assert kind == "execution_interrupted"
        assert done < 100
        again = queue(server, changed(prompt, "ChoreoMimicMotionSampler", steps=2))
        assert list(messages(connection, again))[-1][0] == "execution_success"


def test_the_same_again_is_cached(server: Server, info: dict) -> None:
    prompt = changed(on_tiny(to_api(shipped("choreo_tiny_demo"), info)), "ChoreoMimicMotionSampler", seed=6)
    with server.listen() as connection:
        assert list(messages(connection, queue(server, prompt)))[-1][0] == "execution_success"
        cached = next(d["nodes"] for k, d in messages(connection, queue(server, prompt)) if k == "execution_cached")
    assert set(cached) >= {key for key, node in prompt.items() if node["class_type"].startswith("Choreo")}


def test_an_error_while_running_is_one_sentence(server: Server, info: dict) -> None:
    prompt = changed(on_tiny(to_api(shipped("choreo_tiny_demo"), info)), "ChoreoFitPicture", width=100, height=60)
    with server.listen() as connection:
        kind, data = list(messages(connection, queue(server, prompt)))[-1]
    assert kind == "execution_error"
    assert data["node_type"] == "ChoreoMimicMotionSampler"
    assert "multiples of 16" in data["exception_message"]
    assert "choreo animate" not in data["exception_message"]


def test_missing_weights_are_refused_before_running(server: Server, info: dict) -> None:
    status, answer = server.post("/prompt", {"prompt": to_api(shipped("mimicmotion_basic"), info)})
    assert status == 400
    explained = {
        entry["class_type"]: " ".join(f"{e['message']} {e['details']}" for e in entry["errors"])
        for entry in answer["node_errors"].values()
    }
    assert "MimicMotion_1-1.pth" in explained["ChoreoLoadMimicMotion"]
    assert "huggingface.co/tencent/MimicMotion" in explained["ChoreoLoadMimicMotion"]
    assert "yolox_l.onnx" in explained["ChoreoLoadPoseDetector"]


def test_templates_help_and_translations_are_served(server: Server, info: dict) -> None:
    assert set(server.json("/workflow_templates")["choreo"]) == set(PLANS)
    assert server.get("/api/workflow_templates/choreo/choreo_tiny_demo.jpg")[:2] == b"\xff\xd8"
    translations = server.json("/i18n")
    for node_id in (name for name in info if name.startswith("Choreo")):
        page = server.get(f"/extensions/choreo/docs/{node_id}.md").decode()
        assert page == (ROOT / "web" / "docs" / f"{node_id}.md").read_text(encoding="utf-8")
        for picture in re.findall(r"!\[.*?\]\((.*?)\)", page):
            assert server.get(f"/extensions/choreo/docs/{picture}")[:2] == b"\xff\xd8"
        assert translations["zh"]["nodeDefs"][node_id]["display_name"] != info[node_id]["display_name"]
    assert json.dumps(translations["en"]["nodeDefs"])
