"""The real frontend in a headless Chromium, driven by the DevTools protocol."""

from __future__ import annotations

import base64
import io
import json
import shutil
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import websocket
from PIL import Image

from .live import Server, free_port

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
TIMEOUT = 600  # seconds; a loaded machine needs one minute for the page alone
WINDOW = (1560, 1080)  # a shipped workflow about fills it
SETTLE = 1.5  # seconds until the canvas is drawn anew
SETTINGS = {  # of a user who has seen the greeting and knows which files are missing; nothing lies over the canvas
    "Comfy.TutorialCompleted": True,
    "Comfy.Workflow.ShowMissingModelsWarning": False,
    "Comfy.Graph.CanvasInfo": False,
    "Comfy.Minimap.Visible": False,
}
# the default workflow is what the frontend opens last
READY = "!!(window.app && app.graph && app.canvas && app.vueAppReady !== false && app.graph._nodes.length)"
# the frontend of ComfyUI 0.3 comes back from handleFile before the workflow is there
DROP = """(async () => {
  const file = new File([%s], '%s.json', {type: 'application/json'});
  app.graph._nodes.forEach(node => { node.fromBefore = true; });
  await app.handleFile(file);
  const loaded = () => app.graph._nodes.length && !app.graph._nodes.some(node => node.fromBefore);
  while (!loaded()) await new Promise(resolve => setTimeout(resolve, 200));
  return app.graph._nodes.length;
})()"""
RUN = "document.querySelector('[data-testid=queue-button] button, .comfyui-queue-button button').click()"
ENDED = "fetch('/history').then(answer => answer.json()).then(history => Object.keys(history).length)"
STATUS = "fetch('/history').then(answer => answer.json()).then(history => Object.values(history).pop().status)"
VIDEOS = """app.graph._nodes.filter(n => ['SaveVideo', 'ChoreoPoseVideo'].includes(n.type)
    && !(app.nodeOutputs[n.id]?.images || []).length).length"""
SHOW = "app.canvas.ds.scale = %f; app.canvas.ds.offset = [%f, %f]; app.canvas.setDirty(true, true)"
CANVAS = "(({left, top, width, height}) => [left, top, width, height])(app.canvas.canvas.getBoundingClientRect())"


class Page:
    """A tab with the frontend in it."""

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

    def drop(self, workflow: dict[str, Any], name: str) -> int:
        """Drop a workflow file on the canvas; the number of nodes then there."""
        count = self.evaluate(DROP % (json.dumps(json.dumps(workflow)), name))
        time.sleep(SETTLE)
        return count

    def run(self) -> None:
        """Press the run button, and wait for the end, which must be a good one, and for the videos to be shown."""
        ended = self.evaluate(ENDED)
        self.evaluate(RUN)
        self.wait_for(f"{ENDED}.then(count => count > {ended})")
        status = self.evaluate(STATUS)
        assert status["status_str"] == "success", status["messages"]
        self.wait_for(f"{VIDEOS} == 0")
        time.sleep(2 * SETTLE)  # the videos are loaded

    def workflow(self) -> dict[str, Any]:
        """What the canvas would save."""
        return json.loads(self.evaluate("JSON.stringify(app.graph.serialize())"))

    def picture(self) -> Image.Image:
        """What is to be seen."""
        png = base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"])
        return Image.open(io.BytesIO(png)).convert("RGB")

    def whole(self) -> Image.Image:
        """The window with the whole workflow in it."""
        workflow = self.workflow()
        boxes = [[*node["pos"], *node["size"]] for node in workflow["nodes"]] + [
            g["bounding"] for g in workflow["groups"]
        ]
        self._show(boxes, top=90, left=20)
        return self.picture()

    def part(self, *node_types: str, margin: int = 24) -> Image.Image:
        """The part of the canvas with the nodes of these types, at its full size where it fits."""
        boxes = [[*n["pos"], *n["size"]] for n in self.workflow()["nodes"] if n["type"] in node_types]
        boxes = [[x, y - 30, width, height + 30] for x, y, width, height in boxes]  # with the title
        left, top, width, height = self._show(boxes, top=110, left=320, largest=1.0)
        whole = self.picture()
        crop = [left - margin, top - margin, left + width + margin, top + height + margin]
        return whole.crop([max(0, crop[0]), max(0, crop[1]), min(whole.width, crop[2]), min(whole.height, crop[3])])

    def _show(self, boxes: list[list[float]], top: int, left: int, largest: float = 2.0) -> tuple[int, int, int, int]:
        """Move the canvas so that boxes are seen; where they then are in the window: left, top, width, height."""
        x0, y0 = (min(box[axis] for box in boxes) for axis in (0, 1))
        width, height = (max(box[axis] + box[axis + 2] for box in boxes) - start for axis, start in ((0, x0), (1, y0)))
        at, above, wide, high = self.evaluate(CANVAS)
        # bars of the frontend lie over the canvas on its left and upper side
        left, top = max(0, 70 - at) + left, max(0, top - above)
        scale = min(largest, (wide - left - 20) / width, (high - top - 20) / height)
        self.evaluate(SHOW % (scale, left / scale - x0, top / scale - y0))
        time.sleep(SETTLE)
        return round(at + left), round(above + top), round(width * scale), round(height * scale)


@contextmanager
def open_page(server: Server, folder: Path) -> Iterator[Page]:
    """A tab with the frontend of a server; `folder` keeps what the browser writes."""
    settings = server.folder / "user" / "default" / "comfy.settings.json"
    settings.parent.mkdir(parents=True, exist_ok=True)
    settings.write_text(json.dumps(SETTINGS))
    port = free_port()
    command = [
        *(CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--lang=en-US"),
        "--window-size={},{}".format(*WINDOW),
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
    width, height = WINDOW
    page.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
    page.wait_for(READY)
    time.sleep(2 * SETTLE)
    return page
