"""The names of SVD's weights in single files (LDM, OpenCLIP) and in diffusers and transformers: by rule, both ways.

Functions on names are bijections. Functions on weights return new dictionaries; their tensors are the given ones,
views of them, or new where something is joined, transposed or folded.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping

import torch

Weights = Mapping[str, torch.Tensor]
Names = Mapping[str, str]

SVD_ATTENDING = (1, 2, 3)  # up blocks of the published UNet with attention

UNET_OUTSIDE: Names = {
    "conv_in": "input_blocks.0.0",
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
    "mid_block.resnets.0": "middle_block.0",
    "mid_block.attentions.0": "middle_block.1",
    "mid_block.resnets.1": "middle_block.2",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}
RESNET: Names = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
ATTENTION: Names = {
    "temporal_transformer_blocks": "time_stack",
    "time_pos_embed.linear_1": "time_pos_embed.0",
    "time_pos_embed.linear_2": "time_pos_embed.2",
}
VAE_OUTSIDE: Names = {
    "encoder.conv_norm_out": "encoder.norm_out",
    "decoder.conv_norm_out": "decoder.norm_out",
    "decoder.time_conv_out": "decoder.conv_out.time_mix_conv",
}
VAE_RESNET: Names = {"conv_shortcut": "nin_shortcut"}
VAE_ATTENTION: Names = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}
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


def _rename(name: str, names: Names) -> str:
    """Replace the beginning of a dotted name by the table."""
    for old, new in names.items():
        if name == old or name.startswith(f"{old}."):
            return new + name[len(old) :]
    return name


def _back(names: Names) -> Names:
    return {new: old for old, new in names.items()}


# UNet -----------------------------------------------------------------------------------------------------------------


def unet_name_to_ldm(name: str, layers_per_block: int = 2, attending: Collection[int] = SVD_ATTENDING) -> str:
    """diffusers' name of a UNet weight -> LDM's, without `model.diffusion_model.`.

    attending: the up blocks that have attention; LDM counts an upsampler behind it.
    """
    found = re.fullmatch(r"(down|up)_blocks\.(\d+)\.(\w+)\.(\d+)\.(.+)", name)
    if not found:
        return _unet_outside_to_ldm(name)
    side, level, part, index, inside = found[1], int(found[2]), found[3], int(found[4]), found[5]
    first = (layers_per_block + 1) * level + (side == "down")  # input block 0 is conv_in
    last = first + layers_per_block
    if part == "downsamplers":
        return f"input_blocks.{last}.0.op.{inside.removeprefix('conv.')}"
    if part == "upsamplers":
        return f"output_blocks.{last}.{2 if level in attending else 1}.{inside}"
    blocks = "input_blocks" if side == "down" else "output_blocks"
    return f"{blocks}.{first + index}.{int(part == 'attentions')}.{_unet_inside_to_ldm(inside)}"


def _unet_outside_to_ldm(name: str) -> str:
    for outside, ldm in UNET_OUTSIDE.items():
        if name.startswith(f"{outside}."):
            return f"{ldm}.{_unet_inside_to_ldm(name.removeprefix(f'{outside}.'))}"
    raise ValueError(f"{name} is not the name of an SVD UNet's weight in diffusers' naming.")


def _unet_inside_to_ldm(inside: str) -> str:
    if inside.startswith("spatial_res_block."):
        return _rename(inside.removeprefix("spatial_res_block."), RESNET)
    if inside.startswith("temporal_res_block."):
        return "time_stack." + _rename(inside.removeprefix("temporal_res_block."), RESNET)
    return _rename(inside, ATTENTION)


def unet_name_to_diffusers(name: str, layers_per_block: int = 2) -> str:
    """LDM's name of a UNet weight, without `model.diffusion_model.` -> diffusers'."""
    found = re.fullmatch(r"(in|out)put_blocks\.(\d+)\.(\d)\.(.+)", name)
    if not found or name.startswith("input_blocks.0."):
        return _unet_outside_to_diffusers(name)
    is_input, place, inside = found[1] == "in", found[3], found[4]
    level, index = divmod(int(found[2]) - is_input, layers_per_block + 1)
    block = f"{'down' if is_input else 'up'}_blocks.{level}"
    if inside.startswith("op."):
        return f"{block}.downsamplers.0.conv.{inside.removeprefix('op.')}"
    if inside.startswith("conv."):
        return f"{block}.upsamplers.0.{inside}"
    part = "resnets" if place == "0" else "attentions"
    return f"{block}.{part}.{index}.{_unet_inside_to_diffusers(inside, part)}"


def _unet_outside_to_diffusers(name: str) -> str:
    for outside, ldm in UNET_OUTSIDE.items():
        if name.startswith(f"{ldm}."):
            part = "resnets" if ".resnets." in outside else "attentions"
            return f"{outside}.{_unet_inside_to_diffusers(name.removeprefix(f'{ldm}.'), part)}"
    raise ValueError(f"{name} is not the name of an SVD UNet's weight in LDM naming.")


def _unet_inside_to_diffusers(inside: str, part: str) -> str:
    if part == "attentions":
        return _rename(inside, _back(ATTENTION))
    if inside.startswith("time_stack."):
        return "temporal_res_block." + _rename(inside.removeprefix("time_stack."), _back(RESNET))
    if inside.startswith("time_mixer."):
        return inside
    return "spatial_res_block." + _rename(inside, _back(RESNET))


def unet_to_ldm(weights: Weights, layers_per_block: int = 2) -> dict[str, torch.Tensor]:
    """A UNet's weights from diffusers' naming to LDM's, without `model.diffusion_model.`."""
    attending = {int(found[1]) for name in weights if (found := re.match(r"up_blocks\.(\d+)\.attentions\.", name))}
    return {unet_name_to_ldm(name, layers_per_block, attending): tensor for name, tensor in weights.items()}


def unet_to_diffusers(weights: Weights, layers_per_block: int = 2) -> dict[str, torch.Tensor]:
    """A UNet's weights from LDM's naming, without `model.diffusion_model.`, to diffusers'."""
    return {unet_name_to_diffusers(name, layers_per_block): tensor for name, tensor in weights.items()}


# VAE ------------------------------------------------------------------------------------------------------------------


def vae_name_to_ldm(name: str, levels: int = 4) -> str:
    """diffusers' name of a weight of the temporal VAE -> LDM's, without `first_stage_model.`."""
    found = re.fullmatch(r"(encoder|decoder)\.(?:mid_block|(?:down|up)_blocks\.(\d+))\.(\w+)\.(\d+)\.(.+)", name)
    if not found:
        return _rename(name, VAE_OUTSIDE)
    side, level, part, index, inside = found.groups()
    if part == "attentions":
        return f"{side}.mid.attn_1.{_rename(inside, VAE_ATTENTION)}"
    if level is None:
        block = f"{side}.mid.block_{int(index) + 1}"
    else:
        place = f"down.{level}" if side == "encoder" else f"up.{levels - 1 - int(level)}"
        if part in ("downsamplers", "upsamplers"):
            return f"{side}.{place}.{part.removesuffix('rs')}.{inside}"
        block = f"{side}.{place}.block.{index}"
    if inside.startswith("temporal_res_block."):
        return f"{block}.time_stack.{_rename(inside.removeprefix('temporal_res_block.'), RESNET)}"
    inside = inside.removeprefix("spatial_res_block.").removeprefix("time_mixer.")
    return f"{block}.{_rename(inside, VAE_RESNET)}"


def vae_name_to_diffusers(name: str, levels: int = 4) -> str:
    """LDM's name of a weight of the temporal VAE, without `first_stage_model.` -> diffusers'."""
    found = re.fullmatch(r"(encoder|decoder)\.(mid|down\.\d+|up\.\d+)\.(\w+)\.(.+)", name)
    if not found:
        return _rename(name, _back(VAE_OUTSIDE))
    side, place, part, inside = found.groups()
    if part == "attn_1":
        return f"{side}.mid_block.attentions.0.{_rename(inside, _back(VAE_ATTENTION))}"
    if place == "mid":
        place, index = "mid_block", str(int(part.removeprefix("block_")) - 1)
    else:
        level = int(place.split(".")[1])
        place = f"down_blocks.{level}" if side == "encoder" else f"up_blocks.{levels - 1 - level}"
        if part in ("downsample", "upsample"):
            return f"{side}.{place}.{part}rs.0.{inside}"
        index, inside = inside.split(".", 1)
    return f"{side}.{place}.resnets.{index}.{_vae_inside_to_diffusers(inside, side)}"


def _vae_inside_to_diffusers(inside: str, side: str) -> str:
    if inside.startswith("time_stack."):
        return "temporal_res_block." + _rename(inside.removeprefix("time_stack."), _back(RESNET))
    if inside == "mix_factor":
        return "time_mixer.mix_factor"
    inside = _rename(inside, _back(VAE_RESNET))
    return inside if side == "encoder" else f"spatial_res_block.{inside}"


def vae_to_diffusers(weights: Weights) -> dict[str, torch.Tensor]:
    """The temporal VAE's weights from LDM's naming, without `first_stage_model.`, to diffusers'.

    1x1 convolutions of the attention become linear layers. Single files of SVD have no quant_conv (it is folded into
    the encoder's last convolution); diffusers' VAE has one, so an absent one becomes the identity.
    """
    levels = _levels(weights, "decoder.up.")
    renamed = {vae_name_to_diffusers(name, levels): tensor for name, tensor in weights.items()}
    for name, tensor in renamed.items():
        if ".attentions." in name and name.endswith(".weight") and tensor.ndim == 4:
            renamed[name] = tensor.flatten(1)
    if "quant_conv.weight" not in renamed and "encoder.conv_out.bias" in renamed:
        bias = renamed["encoder.conv_out.bias"]
        renamed["quant_conv.weight"] = torch.eye(len(bias), dtype=bias.dtype, device=bias.device)[:, :, None, None]
        renamed["quant_conv.bias"] = torch.zeros_like(bias)
    return renamed


def vae_to_ldm(weights: Weights) -> dict[str, torch.Tensor]:
    """The temporal VAE's weights from diffusers' naming to LDM's, without `first_stage_model.`.

    Linear layers of the attention become 1x1 convolutions, quant_conv is folded away as single files have it.
    """
    weights = fold_quant_conv(weights)
    levels = _levels(weights, "decoder.up_blocks.")
    renamed = {}
    for name, tensor in weights.items():
        is_projection = ".attentions." in name and name.endswith(".weight") and tensor.ndim == 2
        renamed[vae_name_to_ldm(name, levels)] = tensor[:, :, None, None] if is_projection else tensor
    return renamed


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


def _levels(weights: Weights, prefix: str) -> int:
    return 1 + max((int(n[len(prefix) :].split(".")[0]) for n in weights if n.startswith(prefix)), default=3)


# CLIP image tower -----------------------------------------------------------------------------------------------------


def clip_to_transformers(weights: Weights) -> dict[str, torch.Tensor]:
    """The image tower's weights from OpenCLIP's naming (of `visual.`) to transformers'.

    The joined projection of queries, keys and values is split, the output projection transposed.
    """
    renamed = {}
    for name, tensor in weights.items():
        outside = _rename(name, _back(CLIP_OUTSIDE))
        if found := re.fullmatch(r"(.+\.layers\.\d+)\.attn\.in_proj_(weight|bias)", outside):
            for letter, part in zip("qkv", tensor.chunk(3), strict=True):
                renamed[f"{found[1]}.self_attn.{letter}_proj.{found[2]}"] = part
        else:
            renamed[_rename_in_layer(outside, _back(CLIP_LAYER))] = (
                tensor.t().contiguous() if name == "proj" else tensor
            )
    return renamed


def clip_to_open_clip(weights: Weights) -> dict[str, torch.Tensor]:
    """The image tower's weights from transformers' naming to OpenCLIP's (of `visual.`)."""
    renamed = {}
    for name, tensor in weights.items():
        outside = _rename(name, CLIP_OUTSIDE)
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
    return f"{found[1]}.{_rename(found[2], names)}" if found else name
