"""The parts of Stable Video Diffusion that stay as they are: VAE and CLIP image tower."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ..networks.image_tower import CLIP_VIT_H_14, build_image_tower
from ..networks.video_vae import SVD_VAE, build_video_vae
from .assemble import assemble, fill, skeleton, without_prefix
from .catalogue import where_to_get
from .recognise import not_what_was_expected, recognise
from .svd_keys import clip_to_transformers, vae_to_diffusers
from .weights import read_config, read_weights

if TYPE_CHECKING:
    from diffusers import AutoencoderKLTemporalDecoder
    from transformers import CLIPVisionModelWithProjection

Weights = Mapping[str, torch.Tensor]
VAE_FOLDER = "vae"
VAE_NAMES = (
    "diffusion_pytorch_model.fp16.safetensors",
    "diffusion_pytorch_model.safetensors",
    "diffusion_pytorch_model.bin",
)
CLIP_FOLDER = "image_encoder"
CLIP_NAMES = ("model.fp16.safetensors", "model.safetensors", "pytorch_model.bin")
VAE_PREFIX = "first_stage_model."
CLIP_INNER = "vision_model."
CLIP_PREFIX = "conditioner.embedders.0.open_clip.model.visual."
CLASSES = {VAE_FOLDER: "AutoencoderKLTemporalDecoder", CLIP_FOLDER: "CLIPVisionModelWithProjection"}


@dataclass(frozen=True)
class SVDParts:
    """SVD's frozen networks, on the CPU in the files' dtypes."""

    vae: AutoencoderKLTemporalDecoder
    image_encoder: CLIPVisionModelWithProjection


@dataclass(frozen=True)
class SVDWeights:
    """What the files of SVD's parts hold, before networks are made of it: tensors, configuration and file of each.

    Names are diffusers' and transformers' (of either version); configurations are complete.
    """

    vae: Weights
    vae_config: Mapping[str, Any]
    vae_path: Path
    image_encoder: Weights
    image_encoder_config: Mapping[str, Any]
    image_encoder_path: Path


def load_svd_parts(path: str | Path) -> SVDParts:
    """Load VAE and image tower; see :func:`read_svd_parts`, which this makes networks of."""
    found = read_svd_parts(path)
    vae = assemble(partial(build_video_vae, found.vae_config), found.vae, "SVD's VAE", found.vae_path)
    tower = skeleton(partial(build_image_tower, found.image_encoder_config))
    weights = clip_names_of(tower, found.image_encoder)
    return SVDParts(vae, fill(tower, weights, "SVD's CLIP image tower", found.image_encoder_path))


def read_svd_parts(path: str | Path) -> SVDWeights:
    """Find and read the weights of VAE and image tower; needs torch only.

    path: a diffusers folder with `vae/` and `image_encoder/` (half precision files are preferred when there are
        both, as published), or a single file `svd_xt*.safetensors`, whose UNet is not read.
    Configurations: `config.json` beside a part, for a single file {"vae": ..., "image_encoder": ...} in its metadata;
    full-size ones without.

    Raises FileNotFoundError for a missing file or part, ValueError for anything else than SVD's parts.
    """
    path = Path(path)
    return _read_folder(path) if path.is_dir() else _read_single_file(path)


def _read_folder(folder: Path) -> SVDWeights:
    vae_path = _part(folder, VAE_FOLDER, VAE_NAMES)
    clip_path = _part(folder, CLIP_FOLDER, CLIP_NAMES)
    vae, clip = read_weights(vae_path), read_weights(clip_path)
    for part_path, weights, kind, expected in (
        (vae_path, vae, "svd_vae", "the weights of SVD's VAE"),
        (clip_path, clip, "clip_vision", "the weights of SVD's CLIP image tower"),
    ):
        content = recognise(weights)
        if content.kind != kind:
            raise not_what_was_expected(part_path, content, expected)
    return SVDWeights(
        vae, SVD_VAE | read_config(vae_path), vae_path, clip, CLIP_VIT_H_14 | read_config(clip_path), clip_path
    )


def _part(folder: Path, part: str, names: tuple[str, ...]) -> Path:
    found = next((folder / part / name for name in names if (folder / part / name).is_file()), None)
    if found is None:
        raise FileNotFoundError(
            f"{folder / part} holds none of {', '.join(names)}; SVD's folder needs {VAE_FOLDER}/ and {CLIP_FOLDER}/ "
            f"with their weights. {where_to_get('stable-video-diffusion-img2vid-xt-1-1')}"
        )
    return found


def _read_single_file(path: Path) -> SVDWeights:
    weights, config = read_weights(path), read_config(path)
    content = recognise(weights)
    if content.kind != "svd":
        raise not_what_was_expected(path, content, "the weights of a whole SVD checkpoint or a diffusers folder")
    vae = vae_to_diffusers(without_prefix(weights, VAE_PREFIX))
    clip = clip_to_transformers(without_prefix(weights, CLIP_PREFIX))
    vae_config, clip_config = SVD_VAE | config.get("vae", {}), CLIP_VIT_H_14 | config.get("image_encoder", {})
    return SVDWeights(vae, vae_config, path, clip, clip_config, path)


def clip_names_of(
    tower: torch.nn.Module, weights: Mapping[str, torch.Tensor], inner: str = CLIP_INNER
) -> dict[str, torch.Tensor]:
    """A CLIP tower's weights under the names that this version of transformers uses.

    Files differ in whether names begin with `vision_model.` (inner; a text encoder's with `text_model.`), and old ones
    carry the table `position_ids`.
    """
    names = {name.removeprefix(inner): name for name in tower.state_dict()}
    return {
        names.get(name.removeprefix(inner), name): tensor
        for name, tensor in weights.items()
        if not name.endswith("embeddings.position_ids")
    }


def write_svd_part(folder: Path, part: str, config: Mapping[str, Any], weights: Weights) -> None:
    """Write one part as diffusers has it, float16.

    folder: of all of SVD; part: VAE_FOLDER or CLIP_FOLDER; weights: named as diffusers or transformers name them.
    """
    from safetensors.torch import save_file

    (folder / part).mkdir(parents=True, exist_ok=True)
    halves = {name: tensor.detach().half().contiguous() for name, tensor in weights.items()}
    file = (VAE_NAMES if part == VAE_FOLDER else CLIP_NAMES)[0]
    save_file(halves, folder / part / file, {"format": "pt"})
    text = json.dumps({"_class_name": CLASSES[part], **config}, indent=2)
    (folder / part / "config.json").write_text(text + "\n", encoding="utf-8")
