"""The tiny set on disk, in the layouts of the real files."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from ...model_loaders.tiny import DETECTOR_FILE, POSE_FILE, SVD_FOLDER, TINY_FOLDER, UNET_FILE

UNET_CONFIG = "mimicmotion.json"


def write_unet_config(config: dict[str, Any], folder: Path) -> None:
    """FOLDER/mimicmotion.json: what `choreo train mimicmotion --config` builds fresh networks from."""
    (folder / UNET_CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def embed(folder: Path, weights: Path) -> None:
    """Copy a trained set to assets/tiny. Raises FileNotFoundError for a part that is not trained yet."""
    shutil.copyfile(weights, TINY_FOLDER / UNET_FILE)
    for name in (DETECTOR_FILE, POSE_FILE):
        shutil.copyfile(folder / name, TINY_FOLDER / name)
    # Contents alone: safetensors writes files that only their owner may read.
    shutil.copytree(folder / SVD_FOLDER, TINY_FOLDER / SVD_FOLDER, dirs_exist_ok=True, copy_function=shutil.copyfile)
