"""Unit tests and golden files on the lowest versions that requirements.txt names."""

from __future__ import annotations

import re
import subprocess

from .environment import REQUIREMENTS, ROOT, TORCH, throw_away


def lowest_versions(requirements: str) -> list[str]:
    """`name==version` for every `name>=version` line.

    onnxruntime-gpu is its small CPU twin here: the tests run on the CPU, and the two never share an environment.
    """
    bounds = re.findall(r"^([\w-]+)>=([\w.]+)", requirements, re.MULTILINE)
    return [f"{name}=={version}" for name, version in bounds if name != "onnxruntime-gpu"]


def check_oldest() -> bool:
    """Install the lowest versions and run the tests there."""
    oldest = lowest_versions(REQUIREMENTS.read_text())
    print("On", *oldest, flush=True)
    with throw_away() as environment:
        extras = [part for kind in ("cli", "train", "dev") for part in ("-r", ROOT / f"requirements-{kind}.txt")]
        environment.pip("install", TORCH, *oldest, *extras)
        environment.pip("install", "--no-deps", "--no-build-isolation", "-e", ROOT)
        try:
            environment.run("-m", "pytest", "-rs", cwd=ROOT)
        except subprocess.CalledProcessError:
            return False
    return True
