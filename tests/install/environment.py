"""Throw-away virtual environments."""

from __future__ import annotations

import os
import subprocess
import tempfile
import venv
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
REQUIREMENTS = ROOT / "requirements.txt"
# torch is whatever the constraints name, so that no environment fetches another build of it
TORCH = next(line for line in (ROOT / "constraints.txt").read_text().splitlines() if line.startswith("torch=="))


class Environment:
    """A virtual environment in `folder`; its commands raise CalledProcessError when they fail."""

    def __init__(self, folder: Path) -> None:
        venv.create(folder, with_pip=True)
        self.folder = folder
        self._bin = folder / ("Scripts" if os.name == "nt" else "bin")

    def run(self, *arguments: str | Path, **options: object) -> None:
        """`python <arguments>` in the environment, its output shown."""
        command = [self._bin / "python", *arguments]
        subprocess.run(command, check=True, **{"env": _environment_variables(), **options})

    def pip(self, *arguments: str | Path) -> None:
        self.run("-m", "pip", "--quiet", *arguments)

    def output(self, code: str) -> str:
        """What a piece of Python code prints there, run in the empty environment folder."""
        command = [self._bin / "python", "-c", code]
        finished = subprocess.run(
            command, check=True, text=True, stdout=subprocess.PIPE, cwd=self.folder, env=_environment_variables()
        )
        return finished.stdout.strip()


def _environment_variables() -> dict[str, str]:
    return {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}


@contextmanager
def throw_away() -> Iterator[Environment]:
    """An environment that is deleted at the end of the block."""
    with tempfile.TemporaryDirectory(prefix="choreo-") as folder:
        yield Environment(Path(folder))
