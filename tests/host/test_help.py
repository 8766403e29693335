"""Help pages and translations say of the nodes what their definitions say."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from .harness import ROOT, Host

PAGES = ROOT / "web" / "docs"
LOCALES = ROOT / "locales"


def translation(language: str) -> dict[str, Any]:
    return json.loads((LOCALES / language / "nodeDefs.json").read_text(encoding="utf-8"))


def defined(host: Host) -> dict[str, Any]:
    """What locales/en must hold."""
    schemas = {node_id: host.node(node_id).define_schema() for node_id in host.pack_nodes}
    return {
        node_id: {
            "display_name": schema.display_name,
            "description": schema.description,
            "inputs": {i.id: {"name": i.display_name or i.id, "tooltip": i.tooltip} for i in schema.inputs},
            "outputs": {
                str(slot): {"name": o.display_name or o.id, "tooltip": o.tooltip}
                for slot, o in enumerate(schema.outputs)
            },
        }
        for node_id, schema in schemas.items()
    }


def keys(value: Any) -> Any:
    return {key: keys(part) for key, part in value.items()} if isinstance(value, dict) else None


def test_english_is_what_the_nodes_say(host: Host) -> None:
    assert translation("en") == defined(host)


def test_chinese_has_all_of_it(host: Host) -> None:
    found = translation("zh")
    assert keys(found) == keys(defined(host))
    texts = [
        text
        for node in found.values()
        for text in (
            node["description"],
            *(entry["tooltip"] for kind in ("inputs", "outputs") for entry in node[kind].values()),
        )
    ]
    assert [text for text in texts if not re.search(r"[\u4e00-\u9fff]", text)] == []


def test_every_node_has_a_page_and_no_other_has(host: Host) -> None:
    assert sorted(path.stem for path in PAGES.glob("*.md")) == host.pack_nodes


def test_the_host_finds_the_pages(host: Host) -> None:
    assert host.nodes.EXTENSION_WEB_DIRS[ROOT.name] == str(ROOT / "web")


def test_pages_speak_of_inputs_that_exist(host: Host) -> None:
    wrong = []
    titles = {host.node(node_id).define_schema().display_name for node_id in host.pack_nodes}
    for node_id in host.pack_nodes:
        page = (PAGES / f"{node_id}.md").read_text(encoding="utf-8")
        schema = host.node(node_id).define_schema()
        known = {socket.display_name or socket.id for socket in (*schema.inputs, *schema.outputs)}
        wrong += [f"{node_id}: {name}" for name in re.findall(r"\*\*([a-z_]+)\*\*", page) if name not in known]
        stock = {"Preview Any", "Create Video", "Load Image", "Load Video", "VAE Decode", "Get Video Components"}
        stock |= {"Image Only Checkpoint Loader"}
        named = re.findall(r"(?<!\*)\*([A-Z][^*]+)\*(?!\*)", page)
        wrong += [f"{node_id}: {name}" for name in named if name not in titles | stock]
        for options in (getattr(i, "options", None) or [] for i in schema.inputs):
            wrong += [f"{node_id}: {o}" for o in options if page.count(f"- `{o}`") > 1]
    assert wrong == []


@pytest.mark.parametrize("page", sorted(PAGES.glob("*.md")), ids=lambda path: path.stem)
def test_pictures_on_pages_are_there(page: Any) -> None:
    text = page.read_text(encoding="utf-8")
    for target in re.findall(r"!\[.*?\]\((.*?)\)", text):
        assert (page.parent / target).is_file(), target
