"""python -m tests.smoke_full [FOLDER]: the whole job on full-size networks with random weights, on the CPU.

Writes the weights in their published layouts (6.2 GB, kept in FOLDER when it is named), animates a few small frames
with SVD's parts from the diffusers folder and again from the single file, and compares the two videos.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from choreo.media.video import open_source

from . import full_size

ASSETS = Path(__file__).resolve().parents[1] / "assets"
SIZE, FRAMES, STEPS = (128, 192), 3, 2
# The single file has no quant_conv: it is folded into the encoder and rounded to float16, which gives 0.03; two
# different frames are about 1 apart.
MOST_DIFFERENCE = 0.1
LAYOUTS = (full_size.SVD_FOLDER, full_size.SVD_FILE)


def animate(weights: Path, svd: str) -> Path:
    """Run the command line on the full-size weights; returns the video it wrote."""
    output = weights / f"smoke_{Path(svd).stem}.mp4"
    command = [sys.executable, "-m", "choreo", "animate", "--models", weights, "--svd", svd, "--output", output]
    command += ["--reference", ASSETS / "demo" / "reference.png", "--video", ASSETS / "demo" / "driving.mp4"]
    command += ["--detector", ASSETS / "tiny" / "yolox_tiny.onnx", "--pose-model", ASSETS / "tiny" / "dw_tiny.onnx"]
    command += ["--max-frames", FRAMES, "--size", *SIZE, "--steps", STEPS, "--device", "cpu"]
    start = time.monotonic()
    subprocess.run([str(part) for part in command], check=True)
    print(f"{svd}: {time.monotonic() - start:.0f} s", flush=True)
    return output


def smoke(folder: Path) -> None:
    """Write weights, animate from both layouts of SVD's parts, and check the videos."""
    full_size.main([str(folder)])
    videos = [list(open_source(animate(folder, svd))) for svd in LAYOUTS]
    for video in videos:
        assert len(video) == FRAMES, f"{len(video)} frames instead of {FRAMES}"
        assert video[0].shape == (SIZE[1], SIZE[0], 3), f"frames of {video[0].shape}"
        assert np.std(video[0]) > 1, "the frames are of one colour"
    pairs = list(zip(*videos, strict=True))
    differences = [np.abs(a.astype(float) - b).mean() / np.std(a) for a, b in pairs]
    print(f"mean difference of the two videos in standard deviations of a frame: {max(differences):.3f}")
    assert max(differences) < MOST_DIFFERENCE, "the two layouts give different videos"
    print("smoke-full: full-size networks give the same video from both layouts of SVD's parts")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        smoke(Path(sys.argv[1]))
    else:
        with tempfile.TemporaryDirectory(prefix="choreo-smoke-") as temporary:
            smoke(Path(temporary))
