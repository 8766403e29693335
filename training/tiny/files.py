"""The tiny set on disk, in the layouts of the real files."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch

from ...model_loaders.tiny import DETECTOR_FILE, POSE_FILE, SVD_FOLDER, TINY_FOLDER, UNET_FILE

UNET_CONFIG = "mimicmotion.json"


def write_vae(vae: torch.nn.Module, config: dict[str, Any], folder: Path) -> None:
    """FOLDER/svd/vae as diffusers has it, float16."""
    file = "diffusion_pytorch_model.fp16.safetensors"
    _write_part(vae, folder / SVD_FOLDER / "vae" / file, {"_class_name": "AutoencoderKLTemporalDecoder", **config})


def write_image_tower(tower: torch.nn.Module, config: dict[str, Any], folder: Path) -> None:
    """FOLDER/svd/image_encoder as transformers has it, float16."""
    path = folder / SVD_FOLDER / "image_encoder" / "model.fp16.safetensors"
    _write_part(tower, path, {"_class_name": "CLIPVisionModelWithProjection", **config})


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


def _write_part(network: torch.nn.Module, path: Path, config: dict[str, Any]) -> None:
    from safetensors.torch import save_file

    path.parent.mkdir(parents=True, exist_ok=True)
    weights = {name: tensor.detach().half().contiguous() for name, tensor in network.state_dict().items()}
    save_file(weights, path, {"format": "pt"})
    path.with_name("config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
