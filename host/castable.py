"""The core's networks under ComfyUI's memory manager: weights that may stay behind, and the few that may not."""

from __future__ import annotations

import comfy.model_management as mm
import comfy.ops
import torch
from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import CallbacksMP

CASTABLE = (
    "Linear",
    "Conv1d",
    "Conv2d",
    "Conv3d",
    "GroupNorm",
    "LayerNorm",
    "ConvTranspose1d",
    "ConvTranspose2d",
    "Embedding",
)


def make_castable(module: torch.nn.Module) -> torch.nn.Module:
    """Give every plain torch layer the host's class, which fetches and casts its weights at each call.

    The layout of weights does not change, nor do results. Returns the same module.
    """
    classes = {getattr(torch.nn, name): getattr(comfy.ops.manual_cast, name) for name in CASTABLE}
    for layer in module.modules():
        if type(layer) in classes:
            layer.__class__ = classes[type(layer)]
    return module


def managed(module: torch.nn.Module) -> ModelPatcher:
    """A module that the host loads, loads in part, and unloads; it must not have a read-only `device`."""
    return loaded_whole(make_castable(module))


def loaded_whole(module: torch.nn.Module) -> ModelPatcher:
    """A module that the host loads and unloads, but never in part: none of its weights can stay behind."""
    patcher = ModelPatcher(module, load_device=mm.get_torch_device(), offload_device=mm.unet_offload_device())
    patcher.add_callback(CallbacksMP.ON_LOAD, _load_strays)
    return patcher


def _load_strays(patcher: ModelPatcher, device: torch.device, *_how: object) -> None:
    """A partial load forgets weights outside of castable layers; they are few and small, so they come along."""
    for layer in patcher.model.modules():
        if hasattr(layer, "comfy_cast_weights"):
            continue
        for name, weight in list(layer.named_parameters(recurse=False)):
            setattr(layer, name, torch.nn.Parameter(weight.to(device), requires_grad=False))
        for name, buffer in list(layer.named_buffers(recurse=False)):
            setattr(layer, name, buffer.to(device))
