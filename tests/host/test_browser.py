"""The real frontend in a headless Chromium: a dropped workflow misses no node, runs by the button, shows its video.

Skipped where there is no Chromium. CHOREO_SCREENSHOTS names a folder to keep pictures in.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import websocket

from .live import free_port, serve
from .make_workflows import path_of

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
DROP = """(async () => {
  const file = new File([%s], 'workflow.json', {type: 'application/json'});
  await window.app.handleFile(file);
  return window.app.graph._nodes.length;
})()"""
MISSING = """JSON.stringify(app.graph._nodes.filter(
  n => n.has_errors || (!n.constructor.nodeData && n.type != "MarkdownNote")).map(n => n.type))"""
WHOLE = "app.canvas.ds.scale = 0.54; app.canvas.ds.offset = [640, 180]; app.canvas.setDirty(true, true)"
CLOSE_DIALOGS = "document.querySelectorAll('[role=dialog] button:has(.pi-times)').forEach(b => b.click())"
TIMEOUT = 180

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here")


class Page:
    """A tab, driven by the DevTools protocol."""

    def __init__(self, port: int) -> None:
        tabs = json.loads(urllib.request.urlopen(f"http://127.0.0.1:{port}/json", timeout=20).read())
        address = next(tab["webSocketDebuggerUrl"] for tab in tabs if tab["type"] == "page")
        self.connection = websocket.create_connection(address, timeout=TIMEOUT, suppress_origin=True)
        self.count = 0

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Send a command, and wait for its answer."""
        self.count += 1
        self.connection.send(json.dumps({"id": self.count, "method": method, "params": parameters}))
        while (answer := json.loads(self.connection.recv())).get("id") != self.count:
            pass
        return answer["result"]

    def evaluate(self, expression: str) -> Any:
        """The value of an expression in the page, awaited."""
        result = self.call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    def wait_for(self, expression: str) -> None:
        """Until it is true."""
        end = time.monotonic() + TIMEOUT
        while not self.evaluate(expression):
            assert time.monotonic() < end, expression
            time.sleep(0.5)

    def screenshot(self, name: str) -> None:
        """Keep a picture where CHOREO_SCREENSHOTS says."""
        self.evaluate(CLOSE_DIALOGS)
        time.sleep(1)
        self.evaluate(WHOLE)
        time.sleep(1)
        picture = base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"])
        if "CHOREO_SCREENSHOTS" in os.environ:
            (Path(os.environ["CHOREO_SCREENSHOTS"]) / f"{name}.png").write_bytes(picture)


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    folder = tmp_path_factory.mktemp("browser")
    port = free_port()
    with serve(folder / "server") as server:
        command = [
            *(CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", "--window-size=1800,1000", "--lang=en-US"),
            *(f"--remote-debugging-port={port}", f"--user-data-dir={folder / 'profile'}", f"http://{server.address}/"),
        ]
        browser = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            yield _opened(port)
        finally:
            browser.terminate()
            browser.wait(20)


def _opened(port: int) -> Page:
    end = time.monotonic() + TIMEOUT
    while True:
        try:
            page = Page(port)
            break
        except (OSError, StopIteration):
            assert time.monotonic() < end
            time.sleep(0.5)
    page.wait_for("!!(window.app && window.app.graph && window.app.vueAppReady !== false)")
    time.sleep(3)  # the frontend opens its default workflow last
    return page


@pytest.mark.parametrize("name", ["mimicmotion_basic", "choreo_tiny_demo"])
def test_a_dropped_workflow_has_no_missing_node(page: Page, name: str) -> None:
    text = path_of(name).read_text(encoding="utf-8")
    assert page.evaluate(DROP % json.dumps(text)) == len(json.loads(text)["nodes"])
    assert page.evaluate(MISSING) == "[]"
    saved = {node["id"]: node for node in json.loads(page.evaluate("JSON.stringify(app.graph.serialize())"))["nodes"]}
    for node in json.loads(text)["nodes"]:
        ours = node["widgets_values"]
        assert saved[node["id"]].get("widgets_values", [])[: len(ours)] == ours, node["type"]
    page.screenshot(name)


def test_the_demo_runs_by_the_button(page: Page) -> None:
    page.evaluate(DROP % json.dumps(path_of("choreo_tiny_demo").read_text(encoding="utf-8")))
    page.evaluate("document.querySelector('[data-testid=queue-button] button, .comfyui-queue-button button').click()")
    shown = "!!Object.values(app.nodeOutputs).find(o => (o.images || []).find(i => i.filename.endsWith('.mp4')))"
    page.wait_for(shown)
    time.sleep(2)  # the video is loaded
    page.screenshot("choreo_tiny_demo_done")
