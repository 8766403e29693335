"""LoRA of every naming for SVD's network; the host alone does not know diffusers' names of its temporal layers."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

import comfy.lora
import comfy.lora_convert
import comfy.model_base
import torch
from comfy.model_patcher import ModelPatcher

from ..model_loaders.svd_keys import unet_name_to_diffusers
from .progress import tell

PREFIX = "diffusion_model."
_PARTS = re.compile(r"[._](?:lora|hada|lokr|diff|dora)(?:_|\.).*|\.(?:alpha|diff|diff_b|dora_scale|lora)$|\.processor$")


def apply_lora(model: ModelPatcher, weights: Mapping[str, torch.Tensor], strength: float, source: str) -> ModelPatcher:
    """A clone of a MODEL with a LoRA in LDM, diffusers (PEFT) or Kohya naming.

    Tells the user about layers that the MODEL does not have. Raises ValueError for models other than SVD, and when
    nothing in the file fits.
    """
    if not isinstance(model.model, comfy.model_base.SVD_img2vid):
        raise ValueError("This LoRA node is for MimicMotion and Stable Video Diffusion; this MODEL is of another kind.")
    names = comfy.lora.model_lora_keys_unet(model.model, {}) | _diffusers_names(model)
    weights = comfy.lora_convert.convert_lora(dict(weights))
    patches = comfy.lora.load_lora(weights, names, log_missing=False)
    model = model.clone()
    applied = set(model.add_patches(patches, strength))
    if not applied:
        raise ValueError(f"{source} is no LoRA for this MODEL: none of its {len(weights)} tensors fits a layer.")
    known = {_plain(name) for name, key in names.items() if key in applied}
    unknown = sorted({layer for layer in map(_layer, weights) if _plain(layer) not in known})
    if unknown:
        tell(f"{len(unknown)} layers of {source} were not applied: {_few(unknown)}")
    return model


def _diffusers_names(model: ModelPatcher) -> dict[str, str]:
    """What layers are called in LoRA files of diffusers and Kohya's scripts -> the host's names of their weights."""
    depth = model.model.model_config.unet_config["num_res_blocks"][0]
    names = {}
    for key in model.model.state_dict():
        if key.startswith(PREFIX) and key.endswith(".weight"):
            layer = unet_name_to_diffusers(key.removeprefix(PREFIX), depth).removesuffix(".weight")
            processor = layer.replace(".to_", ".processor.to_").removesuffix(".0" if ".to_out." in layer else "\0")
            kohya = f"lora_unet_{layer.replace('.', '_')}"
            names |= dict.fromkeys((layer, f"unet.{layer}", processor, f"unet.{processor}", kohya), key)
    return names


def _layer(name: str) -> str:
    """The layer that a tensor of a LoRA file belongs to."""
    return _PARTS.split(name, maxsplit=1)[0]


def _plain(layer: str) -> str:
    return layer.replace(".", "_")


def _few(names: Iterable[str], number: int = 5) -> str:
    names = list(names)
    return ", ".join(names[:number]) + (", ..." if len(names) > number else "")
