"""How long the core takes to import beyond torch and what a ComfyUI has loaded anyway; it should be below 0.3 s."""

from __future__ import annotations

import pkgutil
import subprocess
import sys

import choreo

FOLDERS = ("pose", "media", "networks", "model_loaders", "conditioning", "samplers", "pipelines")
CODE = """
import importlib, sys, time, torch, numpy, cv2, av, PIL.Image
start = time.process_time()
for name in sys.argv[1:]:
    importlib.import_module(name)
print(time.process_time() - start)
"""


def run(repeats: int = 3) -> dict[str, float]:
    """Seconds of processor time for every module of the core, in fresh interpreters; the quickest of some."""
    paths = {name: [f"{choreo.__path__[0]}/{name}"] for name in FOLDERS}
    modules = [f"choreo.{name}.{module.name}" for name in FOLDERS for module in pkgutil.iter_modules(paths[name])]
    command = [sys.executable, "-c", CODE, *modules]
    seconds = [
        float(subprocess.run(command, check=True, text=True, capture_output=True).stdout) for _ in range(repeats)
    ]
    return {"modules": len(modules), "seconds": min(seconds)}


if __name__ == "__main__":
    print(run())
