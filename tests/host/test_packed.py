"""What ComfyUI's registry would hold: everything that the pack needs, and nothing else."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys

import pytest

from .harness import ROOT, Host
from .packed import packed_files

pytestmark = pytest.mark.skipif(
    shutil.which("git") is None or not (ROOT / ".git").exists(), reason="this is no git checkout"
)
OURS = {  # folders and files of the root
    *("assets", "conditioning", "host", "locales", "media", "model_loaders", "networks", "nodes", "pipelines", "pose"),
    *("samplers", "web", "workflows"),
    *("LICENSE", "README.md", "__init__.py", "pyproject.toml", "quirks.py", "requirements.txt", "runtime.py"),
}


def test_it_holds_what_users_need_and_no_more() -> None:
    packed = packed_files()
    assert {name.partition("/")[0] for name in packed} == OURS
    pages = {path.relative_to(ROOT).as_posix() for path in (ROOT / "web" / "docs").glob("*.md")}
    assert pages
    assert pages <= packed


def test_the_demo_runs_from_it(host: Host) -> None:
    variables = {key: value for key, value in os.environ.items() if key != "PYTHONSAFEPATH"}
    command = [sys.executable, "-m", "tests.host.packed"]
    finished = subprocess.run(command, cwd=ROOT, env=variables, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr
    assert json.loads(finished.stdout.splitlines()[-1]) == {"nodes": host.pack_nodes, "error": None}
