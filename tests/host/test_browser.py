"""The real frontend: a dropped workflow misses no node, runs by the button, shows its video, and stays in order.

Skipped where there is no Chromium. CHOREO_SCREENSHOTS names a folder to keep pictures in.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from .browser import CHROMIUM, Page, open_page
from .live import serve
from .test_workflows import give_inputs, misplaced, shipped, with_tiny_widgets
from .ui_workflow import NOTES
from .workflow_plans import PLANS

MISSING = """JSON.stringify(app.graph._nodes.filter(
  n => n.has_errors || (!n.constructor.nodeData && n.type != "MarkdownNote")).map(n => n.type))"""

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here")


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    folder = tmp_path_factory.mktemp("browser")
    with serve(folder / "server") as server:
        give_inputs(server.folder / "input")
        with open_page(server, folder) as opened:
            yield opened


def keep(page: Page, name: str) -> None:
    if "CHOREO_SCREENSHOTS" in os.environ:
        page.whole().save(Path(os.environ["CHOREO_SCREENSHOTS"]) / f"{name}.png")


@pytest.mark.parametrize("name", PLANS)
def test_a_dropped_workflow_has_no_missing_node(page: Page, name: str) -> None:
    workflow = shipped(name)
    assert page.drop(workflow, name) == len(workflow["nodes"])
    assert page.evaluate(MISSING) == "[]"
    saved = page.workflow()
    by_id = {node["id"]: node for node in saved["nodes"]}
    for node in workflow["nodes"]:
        ours = node["widgets_values"]
        assert by_id[node["id"]].get("widgets_values", [])[: len(ours)] == ours, node["type"]
    assert misplaced(saved) == []
    keep(page, name)


@pytest.mark.parametrize("name", ["choreo_tiny_demo", "pose_toolkit"])
def test_it_runs_by_the_button_and_stays_in_order(page: Page, name: str) -> None:
    """Pictures and videos that appear in nodes make them grow."""
    workflow = with_tiny_widgets(shipped(name))
    page.drop(workflow, name)
    page.run()
    assert [node for node in misplaced(page.workflow()) if node.split()[0] not in NOTES] == []
    keep(page, f"{name}_done")
