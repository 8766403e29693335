"""python -m tests.host.packed (in the host's environment): run the demo from a copy of what the registry would hold.

Prints JSON: the nodes that the host then has, and the message of the error dialog.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from .harness import ROOT, Host


def packed_files() -> set[str]:
    """Tracked files that .comfyignore, which is written as .gitignore is, does not name."""
    kept, ignored = (
        subprocess.run(["git", "ls-files", "-z", *options], cwd=ROOT, check=True, capture_output=True, text=True).stdout
        for options in (["--cached"], ["--cached", "--ignored", "--exclude-from=.comfyignore"])
    )
    return {name for name in set(kept.split("\0")) - set(ignored.split("\0")) if (ROOT / name).is_file()}


def copy_pack(folder: Path) -> None:
    """A copy of the packed files."""
    for name in packed_files():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, folder / name)


def main() -> None:
    """Load the copy into a host of its own, and run the shipped demo."""
    from .make_workflows import load_extras, object_info
    from .test_workflows import run
    from .ui_workflow import to_api

    with tempfile.TemporaryDirectory(prefix="choreo-packed-") as name:
        pack = Path(name) / "choreo-0.1"
        copy_pack(pack)
        host = Host(Path(os.environ["CHOREO_HOST"]), pack)
        load_extras(host)
        workflow = json.loads((pack / "workflows" / "choreo_tiny_demo.json").read_text(encoding="utf-8"))
        result = run(host, to_api(workflow, object_info(host)))
        print(json.dumps({"nodes": host.pack_nodes, "error": result.error}))
        host.close()


if __name__ == "__main__":
    main()
