"""Help pages and translations say of the nodes what their definitions say."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from .harness import ROOT, Host
from .make_locale import LOCALES, defined

PAGES = ROOT / "web" / "docs"


def translation(language: str) -> dict[str, Any]:
    return json.loads((LOCALES / language / "nodeDefs.json").read_text(encoding="utf-8"))


def keys(value: Any) -> Any:
    return {key: keys(part) for key, part in value.items()} if isinstance(value, dict) else None


def test_english_is_what_the_nodes_say(host: Host) -> None:
    assert translation("en") == defined(host), "run python -m tests.host.make_locale"


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


STOCK = {
    *("Create Video", "Get Video Components", "Image Only Checkpoint Loader", "Load Image", "Load LoRA", "Load Video"),
    *("Preview Any", "VAE Decode"),
}


def test_pages_speak_of_nodes_and_inputs_that_exist(host: Host) -> None:
    nodes = defined(host)
    sockets = {
        node["display_name"]: {*node["inputs"], *(entry["name"] for entry in node["outputs"].values())}
        for node in nodes.values()
    }
    wrong = []
    for node_id, node in nodes.items():
        page = (PAGES / f"{node_id}.md").read_text(encoding="utf-8")
        named = set(re.findall(r"(?<!\*)\*([A-Z][^*]+)\*(?!\*)", page))
        wrong += [f"{node_id}: {name}" for name in named - STOCK - sockets.keys()]
        known = set().union(*(sockets.get(name, set()) for name in {node["display_name"], *named}))
        wrong += [f"{node_id}: {name}" for name in re.findall(r"\*\*([a-z_]+)\*\*", page) if name not in known]
    assert wrong == []


@pytest.mark.parametrize("page", sorted(PAGES.glob("*.md")), ids=lambda path: path.stem)
def test_pictures_on_pages_are_there(page: Any) -> None:
    text = page.read_text(encoding="utf-8")
    for target in re.findall(r"!\[.*?\]\((.*?)\)", text):
        assert (page.parent / target).is_file(), target
