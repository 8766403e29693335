"""python -m tests.host.environment make|python|test [pytest's arguments]|run MODULE: where ComfyUI runs for the tests.

A host is a ComfyUI checkout: the folders of COMFYUI_PATH (several are separated as in PATH, the newest first), else the
ComfyUI this pack is installed in, else ~/ComfyUI. All hosts share one virtual environment outside the checkout, in the
user's cache folder, named after what is installed in it; plain installations only, nothing is patched. The frontend
that another than the first host asks for lies beside it. `run` runs a module of tests/host in it, for the first host.
"""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
import venv
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
WINDOWS = os.name == "nt"
# a gigabyte of pictures, and a library that fails beside the newest torch and takes diffusers along; the host says that
# they are missing and goes on
NOT_NEEDED = {"comfyui-workflow-templates", "torchaudio"}
FRONTEND = "comfyui-frontend-package"
FOR_TESTS = ["requests", "websocket-client", "pytest>=8"]
NO_HOST = (
    "host tests SKIPPED: no ComfyUI found in COMFYUI_PATH, around this folder or in ~/ComfyUI; "
    "set COMFYUI_PATH to a ComfyUI checkout and run `make host`"
)
NO_ENVIRONMENT = "host tests SKIPPED: ComfyUI is there, its environment is not; run `make host` (6.5 GB, some minutes)"


def find_hosts() -> list[Path]:
    """The ComfyUI checkouts to test in; FileNotFoundError when COMFYUI_PATH names a folder that is none."""
    named = [Path(p).expanduser().resolve() for p in os.environ.get("COMFYUI_PATH", "").split(os.pathsep) if p]
    for host in named:
        if not _is_host(host):
            raise FileNotFoundError(
                f"COMFYUI_PATH names {host}, which is no ComfyUI checkout: it has no main.py and comfy/; correct it."
            )
    around = [ROOT.parent.parent] if ROOT.parent.name == "custom_nodes" else []
    return named or [host for host in (*around, Path.home() / "ComfyUI") if _is_host(host)][:1]


def _is_host(folder: Path) -> bool:
    return (folder / "main.py").is_file() and (folder / "comfy").is_dir()


def host_version(host: Path) -> str:
    """The version a checkout states, e.g. "0.8.0"."""
    found = re.search(r'__version__ = "(.+?)"', (host / "comfyui_version.py").read_text(encoding="utf-8"))
    return found[1] if found else "of unknown version"


def requirements(hosts: Sequence[Path]) -> list[str]:
    """What the environment holds: each host's requirements (the first one's pins win), the pack's, the tests'."""
    chosen: dict[str, str] = {}
    for host in hosts:
        for line in _lines(host / "requirements.txt"):
            chosen.setdefault(re.split(r"[^\w.-]", line)[0].lower(), line)
    pack = [re.sub(r"^onnxruntime-gpu", "onnxruntime", line) for line in _lines(ROOT / "requirements.txt")]
    return [line for name, line in chosen.items() if name not in NOT_NEEDED] + pack + FOR_TESTS


def _lines(file: Path) -> list[str]:
    lines = (line.strip() for line in file.read_text(encoding="utf-8").splitlines())
    return [line for line in lines if line and not line.startswith("#")]


def folder_for(hosts: Sequence[Path]) -> Path:
    """The environment's folder, made or not."""
    caches = os.environ.get("LOCALAPPDATA") if WINDOWS else os.environ.get("XDG_CACHE_HOME")
    key = hashlib.sha256("\n".join([sys.version[:4], *requirements(hosts)]).encode()).hexdigest()[:12]
    return (Path(caches) if caches else Path.home() / ".cache") / "choreo" / f"host-{key}"


def python_of(folder: Path) -> Path:
    """The environment's interpreter."""
    return folder / ("Scripts/python.exe" if WINDOWS else "bin/python")


def is_made(folder: Path) -> bool:
    """True when the installation ran to its end."""
    return (folder / "installed").is_file()


def frontend_of(host: Path, folder: Path) -> Path | None:
    """The frontend that a host asks for, installed or not; None when it is the one in the environment."""
    pinned = next((line for line in _lines(host / "requirements.txt") if line.startswith(FRONTEND)), None)
    if pinned is None or pinned in _lines(folder / "requirements.txt"):
        return None
    return folder / "frontends" / pinned.rpartition("==")[2] / FRONTEND.replace("-", "_") / "static"


def make(hosts: Sequence[Path]) -> Path:
    """Install the environment and the hosts' frontends unless they are there; its folder."""
    folder = folder_for(hosts)
    pip = [python_of(folder), "-m", "pip", "install", "--quiet", "--no-cache-dir"]
    if not is_made(folder):
        print(f"installing ComfyUI's requirements into {folder} (6.5 GB)", flush=True)
        venv.create(folder, with_pip=True)
        listing = folder / "requirements.txt"
        listing.write_text("\n".join(requirements(hosts)) + "\n", encoding="utf-8")
        subprocess.run([*pip, "-r", listing], check=True, env=_variables())
        (folder / "installed").touch()
    for root in filter(None, (frontend_of(host, folder) for host in hosts)):
        if not root.is_dir():
            package = f"{FRONTEND}=={root.parents[1].name}"
            subprocess.run([*pip, "--no-deps", "--target", root.parents[1], package], check=True, env=_variables())
    return folder


def run_tests(hosts: Sequence[Path], arguments: Sequence[str]) -> int:
    """tests/host in every host, each in a process of its own; 0 when all passed. The last line names the hosts."""
    if not hosts:
        print(NO_HOST)
        return 0
    folder = folder_for(hosts)
    if not is_made(folder):
        print(NO_ENVIRONMENT)
        return 0
    results = {host: "FAILED" if _test(folder, host, arguments) else "passed" for host in hosts}
    print("host tests " + ", ".join(f"{word} in ComfyUI {host_version(host)}" for host, word in results.items()))
    return 1 if "FAILED" in results.values() else 0


def _test(folder: Path, host: Path, arguments: Sequence[str]) -> int:
    print(f"host tests in ComfyUI {host_version(host)} ({host})", flush=True)
    # without the safe path, -m would put the checkout on sys.path, where its `nodes` hides the host's
    chosen = [a for a in arguments if not a.startswith("-") and (ROOT / a.partition("::")[0]).exists()]
    command = ["-m", "pytest", "--import-mode=importlib", *([] if chosen else ["tests/host"]), *arguments]
    return _run(folder, host, command, PYTHONSAFEPATH="1")


def _run(folder: Path, host: Path, command: Sequence[str], **variables: str) -> int:
    environment = _variables() | {"CHOREO_HOST": str(host), **variables}
    return subprocess.run([python_of(folder), *command], cwd=ROOT, env=environment, check=False).returncode


def _variables() -> dict[str, str]:
    return {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}


def main(command: str, *arguments: str) -> int:
    """Run one command of this module; its exit status."""
    try:
        hosts = find_hosts()
    except FileNotFoundError as error:
        print(error)
        return 1
    if command == "test":
        return run_tests(hosts, arguments)
    if not hosts:
        print(NO_HOST)
        return 1
    folder = make(hosts) if command in ("make", "run") else folder_for(hosts)
    if command == "run":
        return _run(folder, hosts[0], ["-m", *arguments])
    print(python_of(folder))
    return 0


if __name__ == "__main__":
    if len(sys.argv) < 2 or sys.argv[1] not in ("make", "python", "test", "run"):
        sys.exit(__doc__)
    sys.exit(main(*sys.argv[1:]))
