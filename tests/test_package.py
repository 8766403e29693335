"""The wheel holds everything: installed into an environment without the checkout, it animates."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
VARIABLES = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}


def tracked_files() -> list[Path]:
    """What a clone of this work tree would hold; everything but hidden folders where there is no git."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    try:
        listing = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return [p for p in ROOT.rglob("*") if p.is_file() and not any(part[0] == "." for part in p.parts[-3:])]
    return [ROOT / line for line in listing.split("\0") if line and (ROOT / line).is_file()]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy in a folder of another name, so that nothing left over in the checkout gets in."""
    copy = tmp_path_factory.mktemp("source") / "some pack"
    for file in tracked_files():
        target = copy / file.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, target)
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(copy)]
    subprocess.run(command, check=True, env=VARIABLES, stdout=subprocess.DEVNULL)
    return next(folder.glob("*.whl"))


@pytest.fixture(scope="module")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of a new environment with the wheel; other packages are seen through a path file.

    Path files of a folder that is only on the path are not read, so the editable installation stays out of sight.
    """
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder)
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    command = [sys.executable, "-m", "pip", "--python", str(python), "install", "--no-deps", "--no-index", str(wheel)]
    subprocess.run(command, check=True, env=VARIABLES, stdout=subprocess.DEVNULL)
    packages = Path(sysconfig.get_path("purelib", vars={"base": str(folder), "platbase": str(folder)}))
    (packages / "others.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return python


def run(python: Path, folder: Path, *arguments: str) -> str:
    finished = subprocess.run(
        [python, *arguments], cwd=folder, env=VARIABLES, capture_output=True, text=True, check=False
    )
    assert finished.returncode == 0, finished.stderr
    return finished.stdout


def test_the_wheel_is_what_is_imported(python: Path, tmp_path: Path) -> None:
    code = "import choreo, importlib.metadata as m; print(m.version('comfyui-choreo')); print(choreo.__file__)"
    version, file = run(python, tmp_path, "-c", code).splitlines()
    assert f'version = "{version}"' in (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert python.parents[1] in Path(file).parents


def test_the_wheel_asks_for_the_requirements(python: Path, tmp_path: Path) -> None:
    code = "from importlib.metadata import requires; print(*requires('comfyui-choreo'), sep='\\n')"
    asked = run(python, tmp_path, "-c", code).splitlines()
    listed = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    listed = [line for line in listed if line and not line.startswith("#")]
    assert len([line for line in asked if "extra ==" not in line]) == len(listed)
    assert any(line.startswith("tyro") and "extra ==" in line for line in asked)


def test_the_installed_wheel_animates(python: Path, tmp_path: Path) -> None:
    run(python, tmp_path, "-m", "choreo", "demo", "--output", "video.mp4")
    assert (tmp_path / "video.mp4").stat().st_size > 1000
