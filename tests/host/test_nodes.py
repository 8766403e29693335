"""All nodes of the pack: they load, quickly, and their definitions are complete."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from .harness import ROOT, Host
from .released import RELEASED, layout

CATEGORIES = {f"Choreo/{name}" for name in ("Pose", "Face", "Loaders", "Conditioning", "Sampling", "Video")}
QUICK = {"cv2", "numpy", "PIL"}  # together about a tenth of a second of processor time
# in a process of its own with the host's modules loaded before, as they are when it loads packs
LOAD = """
import asyncio, os, sys, time
sys.path.insert(0, os.environ["CHOREO_HOST"])
from comfy.cli_args import args
args.cpu, args.base_directory = True, sys.argv[2]
import nodes, execution, comfy.sd, comfy_api.latest, comfy_config.config_parser
before, start = set(sys.modules), time.process_time()
assert asyncio.run(nodes.load_custom_node(sys.argv[1]))
print("SECONDS", time.process_time() - start)
loaded = {name.partition(".")[0] for name in set(sys.modules) - before if not name.startswith(("/", "_"))}
print("LOADED", *sorted(loaded - sys.stdlib_module_names))
"""


def test_the_pack_loads_with_every_topic(host: Host) -> None:
    assert host.loaded
    topics = host.module("nodes").TOPICS
    listed = [node for topic in topics for node in host.module(f"nodes.{topic}").NODES]
    assert sorted(node.define_schema().node_id for node in listed) == host.pack_nodes


def test_loading_the_pack_loads_no_heavy_library(tmp_path) -> None:
    """The promise is 0.3 s on top of the host's own; what is slow is imported when a node runs."""
    for name in ("models", "custom_nodes"):
        (tmp_path / name).mkdir()
    command = [sys.executable, "-c", LOAD, str(ROOT), str(tmp_path)]
    finished = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path)
    print(finished.stdout)
    assert set(finished.stdout.rpartition("LOADED")[2].split()) <= QUICK


def test_definitions_are_complete(host: Host) -> None:
    missing = []
    for node_id in host.pack_nodes:
        node = host.node(node_id)
        schema = node.define_schema()
        if not node_id.startswith("Choreo") or schema.category not in CATEGORIES or not schema.description:
            missing.append(f"{node_id}: prefix, category or description")
        missing += [f"{node_id}.{i.id}: tooltip" for i in schema.inputs if not (i.tooltip or "").endswith(".")]
        missing += [f"{node_id} -> {o.id}: tooltip" for o in schema.outputs if not (o.tooltip or "").endswith(".")]
        names = [o.display_name for o in schema.outputs]  # without one, ComfyUI 0.3 shows the type
        if None in names or len(set(names)) != len(names):
            missing.append(f"{node_id}: names of outputs, each its own")
        shared = {i.id for i in schema.inputs} & {o.id for o in schema.outputs}
        missing += [f"{node_id}: {name} is an input and an output, which ComfyUI 0.3 refuses" for name in shared]
        for widget in schema.inputs:
            if hasattr(widget, "options") and not widget.options:
                missing.append(f"{node_id}.{widget.id}: an empty list")
            elif hasattr(widget, "default") and widget.default is None and not hasattr(widget, "options"):
                missing.append(f"{node_id}.{widget.id}: default")
    assert not missing


def test_workflows_of_older_versions_still_fit(host: Host) -> None:
    """The canvas knows widgets by their place and links by their slot, so both are only ever appended to."""
    wrong, now = [], layout(host)
    for node_id, old in json.loads(RELEASED.read_text(encoding="utf-8")).items():
        new = now.get(node_id, {"widgets": [], "outputs": []})
        for kind, names in old.items():
            if new[kind][: len(names)] != names:
                wrong.append(f"{node_id}: {kind} were {names} and are {new[kind]}")
        required = {i.id for i in host.node(node_id).define_schema().inputs if not i.optional}
        wrong += [
            f"{node_id}: {name} is new and not optional" for name in required & {*new["widgets"]} - {*old["widgets"]}
        ]
    assert wrong == []


def test_one_missing_package_hides_only_its_topic(host: Host, monkeypatch: pytest.MonkeyPatch, caplog) -> None:
    import asyncio

    package = host.module("nodes")
    before = asyncio.run(package.Choreo().get_node_list())
    name = f"{package.__name__}.pose_draw"
    monkeypatch.setitem(sys.modules, name, None)  # importing it now raises ImportError
    after = asyncio.run(package.Choreo().get_node_list())
    assert 0 < len(after) < len(before)
    assert "pose_draw" in caplog.text
    assert "requirements.txt" in caplog.text
