"""The rules of the house: sizes, layers, imports, packages, links."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
CORE = ("pose", "media", "networks", "model_loaders", "conditioning", "samplers", "pipelines", "assets")
TRAINING = ("datasets", "training", "evaluation")
HOST = ("host", "nodes")  # ComfyUI's side
BASE = {"runtime", "quirks"}
# What a folder (or a module of the root) may import from the rest of the package; docs/architecture.md draws it.
LAYERS = {
    "__init__": {"nodes"},
    "runtime": set(),
    "quirks": set(),
    "assets": set(),
    "pose": {"runtime"},
    "media": {"runtime"},
    "networks": {"runtime"},
    "model_loaders": {*BASE, "networks", "assets"},
    "conditioning": {*BASE, "networks", "pose", "media", "model_loaders"},
    "samplers": {*BASE, "networks", "conditioning"},
    "pipelines": {*BASE, *CORE},
    "datasets": {*BASE, *CORE},
    "evaluation": {*BASE, *CORE, "datasets"},
    "training": {*BASE, *CORE, "datasets", "evaluation"},
    "host": {*BASE, *CORE},
    "nodes": {*BASE, *CORE, "host"},
    "terminal": {"runtime"},
    "doctor": {*BASE, *CORE},
    "cli": {*BASE, *CORE, *TRAINING, "terminal", "doctor"},
    "__main__": {"cli"},
}
# Third-party packages by the name they are imported under; those without a line are called as they are imported.
DISTRIBUTIONS = {"cv2": "opencv-python-headless", "PIL": "Pillow"}
# Installed with diffusers and transformers.
IMPLIED = {"huggingface_hub"}


def sources(*folders: str) -> list[Path]:
    return [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]


ROOT_MODULES = sorted(ROOT.glob("*.py"))
PACKAGE = [*ROOT_MODULES, *sources(*CORE, *TRAINING)]
PACK = [*PACKAGE, *sources(*HOST)]  # what ComfyUI sees; pip's package has no use for the host's side
EVERYTHING = [*PACK, *sources("benchmarks", "tests")]


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def layer(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def imports(path: Path) -> list[tuple[int, str]]:
    """(level, dotted name) of each import: level 0 for an absolute one, else the number of leading dots."""
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found += [(0, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" if node.module else alias.name for alias in node.names]
            found += [(node.level, imported) for imported in names]
    return found


def third_party(path: Path) -> set[str]:
    roots = {imported.split(".")[0] for level, imported in imports(path) if level == 0}
    return roots - sys.stdlib_module_names


def requirements(file: str) -> set[str]:
    return set(re.findall(r"^[\w-]+", (ROOT / file).read_text(encoding="utf-8"), re.MULTILINE))


@pytest.mark.parametrize("path", EVERYTHING, ids=name)
def test_files_and_functions_fit_a_screen(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 500
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            assert node.end_lineno - node.lineno < 60, f"{node.name} has {node.end_lineno - node.lineno + 1} lines"


@pytest.mark.parametrize("path", PACK, ids=name)
def test_imports_run_downwards(path: Path) -> None:
    depth = len(path.relative_to(ROOT).parts)
    for level, imported in imports(path):
        top = imported.split(".")[0]
        assert level or top != "choreo", "the package imports itself relatively: inside a host it has another name"
        assert not (level == 0 and (ROOT / top).with_suffix(".py").exists()), f"{imported} is not imported relatively"
        assert not (level == 0 and top in (*CORE, *HOST)), f"{imported} is not imported relatively"
        assert level <= depth, f"{imported} leaves the package"
        if level == depth and top != layer(path):
            assert top in LAYERS[layer(path)] or top == "__version__", f"{layer(path)} must not know {top}"


@pytest.mark.parametrize("path", PACKAGE, ids=name)
def test_the_core_knows_no_host(path: Path) -> None:
    forbidden = {
        "comfy",
        "comfy_api",
        "comfy_extras",
        "folder_paths",
        "nodes",
        "scipy",
        "torchvision",
        "accelerate",
    }
    allowed = {"accelerate"} if layer(path) == "training" else set()
    assert not third_party(path) & (forbidden - allowed)


@pytest.mark.parametrize("path", PACK, ids=name)
def test_data_is_never_run(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert node.func.id not in ("eval", "exec"), f"line {node.lineno}"
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            assert node.func.attr != "cuda" or ast.unparse(node.func) == "torch.cuda", f"line {node.lineno}: .cuda()"
            assert not ast.unparse(node.func).startswith("pickle."), f"line {node.lineno}"
            if ast.unparse(node.func) == "torch.load":
                assert "weights_only=True" in ast.unparse(node), f"line {node.lineno}"


def test_requirements_are_what_the_code_imports() -> None:
    imported = set().union(*(third_party(path) for path in PACKAGE)) - IMPLIED
    used = {DISTRIBUTIONS.get(package, package) for package in imported}
    host, cli = requirements("requirements.txt"), requirements("requirements-cli.txt")
    train = requirements("requirements-train.txt") - {"tensorboard"}  # imported by torch
    assert used == (host - {"onnxruntime-gpu"}) | cli | train
    assert not host & {"torch", "torchvision", "torchaudio", "accelerate", "typer", "tyro"}


def test_packages_are_listed() -> None:
    listed = set(re.findall(r'"choreo\.?([\w.]*)",', (ROOT / "pyproject.toml").read_text(encoding="utf-8")))
    folders = {
        path.parent.relative_to(ROOT).as_posix() for path in sources(*CORE, *TRAINING) if path.name == "__init__.py"
    }
    assert listed == {"", *(folder.replace("/", ".") for folder in folders)}
    missing = {path.parent for path in sources(*CORE, *TRAINING)} - {ROOT / folder for folder in folders}
    assert not missing, "folders with modules but without __init__.py"


def test_the_version_is_the_same_everywhere() -> None:
    versions = [
        re.search(r'^(?:__)?version(?:__)? = "(.+)"', (ROOT / file).read_text(encoding="utf-8"), re.MULTILINE)[1]
        for file in ("pyproject.toml", "__init__.py")
    ]
    assert versions[0] == versions[1]


@pytest.mark.parametrize("page", [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))], ids=name)
def test_links_resolve(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    anchors = {_anchor(heading) for heading in re.findall(r"^#+ (.+)$", text, re.MULTILINE)}
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        file, _, anchor = target.partition("#")
        if file.startswith(("http://", "https://")):
            continue
        assert not file or (page.parent / file).exists(), target
        if not file:
            assert anchor in anchors, target


def _anchor(heading: str) -> str:
    return re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")


@pytest.mark.parametrize("path", PACK, ids=name)
def test_pages_named_in_docstrings_exist(path: Path) -> None:
    for page in re.findall(r"docs/[\w-]+\.md", path.read_text(encoding="utf-8")):
        assert (ROOT / page).exists(), page


@pytest.mark.parametrize(
    ("module", "without"),
    [
        ("choreo", ("torch", "numpy", "diffusers", "cv2")),
        ("choreo.pose.poses", ("torch", "diffusers", "transformers", "onnxruntime")),
    ],
)
def test_imports_are_light(module: str, without: tuple[str, ...]) -> None:
    assert not set(without) & loaded_by(f"import {module}")


def test_heavy_libraries_are_imported_at_first_use() -> None:
    """Every module of the package, together; `python -m benchmarks imports` tells the seconds."""
    modules = [".".join(("choreo", *path.relative_to(ROOT).with_suffix("").parts)) for path in sources(*CORE)]
    heavy = {"diffusers", "transformers", "onnx", "onnxruntime", "kornia", "huggingface_hub", "accelerate"}
    assert not heavy & loaded_by(f"import importlib; [importlib.import_module(name) for name in {modules!r}]")


def loaded_by(code: str) -> set[str]:
    """Names of the modules that a fresh interpreter has loaded after some code."""
    finished = subprocess.run(
        [sys.executable, "-c", f"{code}; import sys; print(*sys.modules)"],
        cwd=ROOT / "docs",
        check=True,
        text=True,
        capture_output=True,
    )
    return set(finished.stdout.split())
