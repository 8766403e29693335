"""The names of SVD's weights in single files (LDM, OpenCLIP) and in diffusers and transformers: by rule, both ways.

UNet and VAE follow the plan of :mod:`.ldm_keys` with a temporal half in every block. Functions on names are
bijections. Functions on weights return new dictionaries; their tensors are the given ones, views of them, or new where
something is joined, transposed or folded.
"""

from __future__ import annotations

import re
from collections.abc import Collection

import torch

from . import ldm_keys
from .ldm_keys import ATTENDING, RESNET, VAE_RESNET, Names, Weights, attending_blocks, back, rename

ATTENTION: Names = {
    "temporal_transformer_blocks": "time_stack",
    "time_pos_embed.linear_1": "time_pos_embed.0",
    "time_pos_embed.linear_2": "time_pos_embed.2",
}
VAE_OUTSIDE: Names = {**ldm_keys.VAE_OUTSIDE, "decoder.time_conv_out": "decoder.conv_out.time_mix_conv"}
CLIP_OUTSIDE: Names = {
    "vision_model.embeddings.class_embedding": "class_embedding",
    "vision_model.embeddings.position_embedding.weight": "positional_embedding",
    "vision_model.embeddings.patch_embedding": "conv1",
    "vision_model.pre_layrnorm": "ln_pre",
    "vision_model.post_layernorm": "ln_post",
    "visual_projection.weight": "proj",
    "vision_model.encoder.layers": "transformer.resblocks",
}
CLIP_LAYER: Names = {
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "self_attn.out_proj": "attn.out_proj",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
}


# UNet -----------------------------------------------------------------------------------------------------------------


def unet_name_to_ldm(name: str, layers_per_block: int = 2, attending: Collection[int] = ATTENDING) -> str:
    """diffusers' name of a UNet weight -> LDM's, without `model.diffusion_model.`; see :mod:`.ldm_keys`."""
    return ldm_keys.unet_name_to_ldm(name, layers_per_block, attending, _unet_inside_to_ldm)


def _unet_inside_to_ldm(inside: str, part: str) -> str:
    if inside.startswith("spatial_res_block."):
        return rename(inside.removeprefix("spatial_res_block."), RESNET)
    if inside.startswith("temporal_res_block."):
        return "time_stack." + rename(inside.removeprefix("temporal_res_block."), RESNET)
    return rename(inside, ATTENTION)


def unet_name_to_diffusers(name: str, layers_per_block: int = 2) -> str:
    """LDM's name of a UNet weight, without `model.diffusion_model.` -> diffusers'."""
    return ldm_keys.unet_name_to_diffusers(name, layers_per_block, _unet_inside_to_diffusers)


def _unet_inside_to_diffusers(inside: str, part: str) -> str:
    if part == "attentions":
        return rename(inside, back(ATTENTION))
    if inside.startswith("time_stack."):
        return "temporal_res_block." + rename(inside.removeprefix("time_stack."), back(RESNET))
    if inside.startswith("time_mixer."):
        return inside
    return "spatial_res_block." + rename(inside, back(RESNET))


def unet_to_ldm(weights: Weights, layers_per_block: int = 2) -> dict[str, torch.Tensor]:
    """A UNet's weights from diffusers' naming to LDM's, without `model.diffusion_model.`."""
    attending = attending_blocks(weights)
    return {unet_name_to_ldm(name, layers_per_block, attending): tensor for name, tensor in weights.items()}


def unet_to_diffusers(weights: Weights, layers_per_block: int = 2) -> dict[str, torch.Tensor]:
    """A UNet's weights from LDM's naming, without `model.diffusion_model.`, to diffusers'."""
    return {unet_name_to_diffusers(name, layers_per_block): tensor for name, tensor in weights.items()}


# VAE ------------------------------------------------------------------------------------------------------------------


def vae_name_to_ldm(name: str, levels: int = 4) -> str:
    """diffusers' name of a weight of the temporal VAE -> LDM's, without `first_stage_model.`."""
    return ldm_keys.vae_name_to_ldm(name, levels, _vae_inside_to_ldm, VAE_OUTSIDE)


def _vae_inside_to_ldm(inside: str, _side: str) -> str:
    if inside.startswith("temporal_res_block."):
        return f"time_stack.{rename(inside.removeprefix('temporal_res_block.'), RESNET)}"
    return rename(inside.removeprefix("spatial_res_block.").removeprefix("time_mixer."), VAE_RESNET)


def vae_name_to_diffusers(name: str, levels: int = 4) -> str:
    """LDM's name of a weight of the temporal VAE, without `first_stage_model.` -> diffusers'."""
    return ldm_keys.vae_name_to_diffusers(name, levels, _vae_inside_to_diffusers, VAE_OUTSIDE)


def _vae_inside_to_diffusers(inside: str, side: str) -> str:
    if inside.startswith("time_stack."):
        return "temporal_res_block." + rename(inside.removeprefix("time_stack."), back(RESNET))
    if inside == "mix_factor":
        return "time_mixer.mix_factor"
    inside = rename(inside, back(VAE_RESNET))
    return inside if side == "encoder" else f"spatial_res_block.{inside}"


def vae_to_diffusers(weights: Weights) -> dict[str, torch.Tensor]:
    """The temporal VAE's weights from LDM's naming, without `first_stage_model.`, to diffusers'.

    1x1 convolutions of the attention become linear layers. Single files of SVD have no quant_conv (it is folded into
    the encoder's last convolution); diffusers' VAE has one, so an absent one becomes the identity.
    """
    renamed = ldm_keys.vae_to_diffusers(weights, vae_name_to_diffusers)
    if "quant_conv.weight" not in renamed and "encoder.conv_out.bias" in renamed:
        bias = renamed["encoder.conv_out.bias"]
        renamed["quant_conv.weight"] = torch.eye(len(bias), dtype=bias.dtype, device=bias.device)[:, :, None, None]
        renamed["quant_conv.bias"] = torch.zeros_like(bias)
    return renamed


def vae_to_ldm(weights: Weights) -> dict[str, torch.Tensor]:
    """The temporal VAE's weights from diffusers' naming to LDM's, without `first_stage_model.`.

    Linear layers of the attention become 1x1 convolutions, quant_conv is folded away as single files have it.
    """
    return ldm_keys.vae_to_ldm(fold_quant_conv(weights), vae_name_to_ldm)


def fold_quant_conv(weights: Weights) -> dict[str, torch.Tensor]:
    """diffusers-named VAE weights without quant_conv, which is multiplied into encoder.conv_out (in float32)."""
    folded = dict(weights)
    if "quant_conv.weight" not in folded:
        return folded
    quant, bias = folded.pop("quant_conv.weight").flatten(1).float(), folded.pop("quant_conv.bias").float()
    last, last_bias = folded["encoder.conv_out.weight"], folded["encoder.conv_out.bias"]
    folded["encoder.conv_out.weight"] = torch.einsum("oc,cihw->oihw", quant, last.float()).to(last.dtype)
    folded["encoder.conv_out.bias"] = (quant @ last_bias.float() + bias).to(last_bias.dtype)
    return folded


# CLIP image tower -----------------------------------------------------------------------------------------------------


def clip_to_transformers(weights: Weights) -> dict[str, torch.Tensor]:
    """The image tower's weights from OpenCLIP's naming (of `visual.`) to transformers'.

    The joined projection of queries, keys and values is split, the output projection transposed.
    """
    renamed = {}
    for name, tensor in weights.items():
        outside = rename(name, back(CLIP_OUTSIDE))
        if found := re.fullmatch(r"(.+\.layers\.\d+)\.attn\.in_proj_(weight|bias)", outside):
            for letter, part in zip("qkv", tensor.chunk(3), strict=True):
                renamed[f"{found[1]}.self_attn.{letter}_proj.{found[2]}"] = part
        else:
            renamed[_rename_in_layer(outside, back(CLIP_LAYER))] = tensor.t().contiguous() if name == "proj" else tensor
    return renamed


def clip_to_open_clip(weights: Weights) -> dict[str, torch.Tensor]:
    """The image tower's weights from transformers' naming to OpenCLIP's (of `visual.`)."""
    renamed = {}
    for name, tensor in weights.items():
        outside = rename(name, CLIP_OUTSIDE)
        if found := re.fullmatch(r"(.+\.self_attn)\.([qkv])_proj\.(weight|bias)", name):
            if found[2] == "q":
                joined = torch.cat([weights[f"{found[1]}.{letter}_proj.{found[3]}"] for letter in "qkv"])
                renamed[f"{outside.split('.self_attn.')[0]}.attn.in_proj_{found[3]}"] = joined
        else:
            renamed[_rename_in_layer(outside, CLIP_LAYER)] = tensor.t().contiguous() if outside == "proj" else tensor
    return renamed


def _rename_in_layer(name: str, names: Names) -> str:
    """Rename what comes after a layer's number."""
    found = re.fullmatch(r"(.+\.(?:layers|resblocks)\.\d+)\.(.+)", name)
    return f"{found[1]}.{rename(found[2], names)}" if found else name
