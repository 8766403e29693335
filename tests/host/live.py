"""A ComfyUI server of its own process, with only the pack, and a client for its HTTP and websocket interface."""

from __future__ import annotations

import json
import os
import socket
import struct
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import websocket

from .environment import frontend_of
from .harness import ROOT

STARTS_WITHIN = 600  # seconds; a loaded machine with cold disks takes minutes
ANSWERS_WITHIN = 120
PACK = "choreo"
PREVIEW = 1  # type of the binary messages that carry a picture


class Server:
    """A running server; `folder` holds its input, output and models."""

    def __init__(self, folder: Path, port: int) -> None:
        self.folder = folder
        self.address = f"127.0.0.1:{port}"

    def get(self, path: str, **query: str) -> bytes:
        """The body of an answer."""
        url = f"http://{self.address}{path}" + ("?" + urllib.parse.urlencode(query) if query else "")
        with urllib.request.urlopen(url, timeout=ANSWERS_WITHIN) as answer:
            return answer.read()

    def json(self, path: str) -> Any:
        """The same, decoded."""
        return json.loads(self.get(path))

    def post(self, path: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        """(HTTP status, decoded answer)."""
        data = json.dumps(body).encode()
        request = urllib.request.Request(
            f"http://{self.address}{path}", data=data, headers={"Content-Type": "application/json"}
        )
        try:
            with urllib.request.urlopen(request, timeout=ANSWERS_WITHIN) as answer:
                return answer.status, json.loads(answer.read() or b"{}")
        except urllib.error.HTTPError as error:
            return error.code, json.loads(error.read() or b"{}")

    @contextmanager
    def listen(self, client: str = "tests") -> Iterator[websocket.WebSocket]:
        """The websocket of a client."""
        connection = websocket.create_connection(f"ws://{self.address}/ws?clientId={client}", timeout=ANSWERS_WITHIN)
        try:
            yield connection
        finally:
            connection.close()


def messages(connection: websocket.WebSocket, prompt_id: str) -> Iterator[tuple[str, Any]]:
    """What the server tells about a prompt, to its end: (type, data), and ("preview", bytes of a picture)."""
    while True:
        raw = connection.recv()
        if isinstance(raw, bytes):
            if struct.unpack(">I", raw[:4])[0] == PREVIEW:
                yield "preview", raw[8:]
            continue
        message = json.loads(raw)
        kind, data = message["type"], message["data"]
        if data.get("prompt_id", prompt_id) != prompt_id:
            continue
        yield kind, data
        if kind in ("execution_success", "execution_error", "execution_interrupted"):
            return


@contextmanager
def serve(folder: Path, *options: str) -> Iterator[Server]:
    """Start main.py of the host that CHOREO_HOST names with its folders in `folder`; stopped at the end."""
    for name in ("models", "input", "output", "temp", "user", "custom_nodes"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    (folder / "custom_nodes" / PACK).symlink_to(ROOT, target_is_directory=True)
    port = free_port()
    frontend = frontend_of(Path(os.environ["CHOREO_HOST"]), Path(sys.prefix))
    if frontend and frontend.is_dir():
        options += ("--front-end-root", str(frontend))
    command = [
        *(sys.executable, "main.py", "--cpu", "--listen", "127.0.0.1", "--port", str(port), "--base-directory", folder),
        *("--disable-api-nodes", "--database-url", "sqlite:///:memory:", "--preview-method", "latent2rgb", *options),
    ]
    environment = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "PYTHONSAFEPATH")}
    log = folder / "server.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, cwd=os.environ["CHOREO_HOST"], env=environment, stdout=output, stderr=subprocess.STDOUT
        )
        try:
            server = Server(folder, port)
            _wait(server, process, log)
            yield server
        finally:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _wait(server: Server, process: subprocess.Popen, log: Path) -> None:
    end = time.monotonic() + STARTS_WITHIN
    while time.monotonic() < end and process.poll() is None:
        try:
            server.get("/system_stats")
            return
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            time.sleep(0.5)
    raise RuntimeError(f"The server did not start; its log ends with: {log.read_text(errors='replace')[-3000:]}")
