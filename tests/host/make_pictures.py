"""python -m tests.host.environment run tests.host.make_pictures [PART ...]: take every picture anew.

The parts: thumbnails of the workflows (workflows/), help (web/docs/pictures), demo (its strip in docs/images) and
screenshots of the frontend (docs/images, web/docs/pictures), which need a Chromium. Run it when nodes, workflows, the
demo's inputs or the built-in networks have changed.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from PIL import Image

from .browser import CHROMIUM, SETTLE, Page, open_page
from .harness import ROOT, Host, open_host
from .help_pictures import help_pictures
from .live import serve
from .make_thumbnails import write_thumbnails
from .test_workflows import give_inputs, shipped, with_tiny_widgets
from .workflow_plans import PLANS

SCREENSHOTS, HELP = ROOT / "docs" / "images", ROOT / "web" / "docs" / "pictures"
WIDEST = 1600  # of a screenshot, pixels
TEMPLATES = "document.querySelector('.templates-tab-button, [aria-label=Templates]').click()"
PICTURES = "[...document.querySelectorAll('[role=dialog] img')].filter(i => i.complete && i.naturalWidth).length"
NODE_PARTS = {  # pictures of nodes as they are connected: workflow, node types
    "ChoreoMimicMotionConditioning": (
        "mimicmotion_ksampler_latent_fusion",
        ("ChoreoMimicMotionConditioning", "ChoreoLatentFusion", "KSampler"),
    ),
    "ChoreoLoadMimicMotion": (
        "mimicmotion_basic",
        ("ChoreoLoadPoseDetector", "ChoreoLoadMimicMotion", "ChoreoLoadSVDParts"),
    ),
    "ChoreoDecodeVideo": ("choreo_tiny_demo", ("ChoreoDecodeVideo", "CreateVideo", "SaveVideo")),
}


def screenshots() -> None:
    """The frontend with workflows that have run, and parts of them."""
    if CHROMIUM is None:
        raise FileNotFoundError("Screenshots need a Chromium on the path: install one, or name the other parts.")
    with tempfile.TemporaryDirectory(prefix="choreo-pictures-") as name:
        folder = Path(name)
        with serve(folder / "server") as server:
            give_inputs(server.folder / "input")
            with open_page(server, folder) as page:
                _workflows(page)


def _workflows(page: Page) -> None:
    for name in ("choreo_tiny_demo", "pose_toolkit", "mimicmotion_basic", "mimicmotion_ksampler_latent_fusion"):
        workflow = with_tiny_widgets(shipped(name))
        runs = name in ("choreo_tiny_demo", "pose_toolkit")
        page.drop(workflow if runs else shipped(name), name)
        if runs:
            page.run()
            _save(page.whole(), SCREENSHOTS / f"comfyui_{name}.jpg")
        for node_id, (wanted, types) in NODE_PARTS.items():
            if wanted == name:
                _save(page.part(*types), HELP / f"{node_id}.jpg")
    page.evaluate(TEMPLATES)
    page.wait_for(f"{PICTURES} >= {len(PLANS)}")
    time.sleep(SETTLE)  # they fade in
    _save(page.picture(), SCREENSHOTS / "comfyui_templates.jpg")


def help_pages(host: Host) -> None:
    """What nodes do."""
    for node_id, picture in help_pictures(host).items():
        _save(picture, HELP / f"{node_id}.jpg")


def demo_strip(host: Host) -> None:
    """The picture of the demo's stages that `choreo demo` writes."""
    demo = host.module("pipelines.demo")
    *_, strip = demo.run_demo(demo.Demo(output=host.folder / "demo.mp4"))
    with Image.open(strip) as picture:
        _save(picture.convert("RGB"), SCREENSHOTS / "demo.jpg")


def _save(picture: Image.Image, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.thumbnail((WIDEST, WIDEST), Image.Resampling.LANCZOS)
    picture.save(path, quality=82, optimize=True)
    print(f"{path.relative_to(ROOT)} {picture.width}x{picture.height}, {path.stat().st_size // 1000} kB", flush=True)


PARTS: dict[str, Callable[[Host], None]] = {
    "thumbnails": write_thumbnails,
    "help": help_pages,
    "demo": demo_strip,
    "screenshots": lambda _host: screenshots(),
}


def main(*parts: str) -> int:
    """The named parts, or all; the exit status."""
    wrong = set(parts) - PARTS.keys()
    if wrong:
        print(f"There is no part {', '.join(sorted(wrong))}; choose of {', '.join(PARTS)}.")
        return 1
    host = open_host()
    for part in parts or PARTS:
        PARTS[part](host)
    host.close()
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
