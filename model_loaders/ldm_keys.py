"""The names of Stable Diffusion's weights in single files (LDM) and in diffusers and transformers: by rule, both ways.

Functions on names are bijections. Functions on weights return new dictionaries; their tensors are the given ones or
views of them. SVD's networks follow the same plan with blocks of their own inside, see :mod:`.svd_keys`: `inside` is
what differs, a function of a name behind its block and of the kind of block.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping

import torch

Weights = Mapping[str, torch.Tensor]
Names = Mapping[str, str]
Inside = Callable[[str, str], str]

ATTENDING = (1, 2, 3)  # up blocks with attention in Stable Diffusion 1 and SVD

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
CONTROLNET_OUTSIDE: Names = {
    "controlnet_mid_block": "middle_block_out.0",
    "controlnet_cond_embedding.conv_in": "input_hint_block.0",
    "controlnet_cond_embedding.conv_out": "input_hint_block.14",
    **{f"controlnet_cond_embedding.blocks.{i}": f"input_hint_block.{2 * i + 2}" for i in range(6)},
}
RESNET: Names = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
VAE_OUTSIDE: Names = {
    "encoder.conv_norm_out": "encoder.norm_out",
    "decoder.conv_norm_out": "decoder.norm_out",
}
VAE_RESNET: Names = {"conv_shortcut": "nin_shortcut"}
VAE_ATTENTION: Names = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}


def rename(name: str, names: Names) -> str:
    """Replace the beginning of a dotted name by the table."""
    for old, new in names.items():
        if name == old or name.startswith(f"{old}."):
            return new + name[len(old) :]
    return name


def back(names: Names) -> Names:
    """A table the other way."""
    return {new: old for old, new in names.items()}


# UNet -----------------------------------------------------------------------------------------------------------------


def _inside_to_ldm(inside: str, part: str) -> str:
    return rename(inside, RESNET) if part == "resnets" else inside


def _inside_to_diffusers(inside: str, part: str) -> str:
    return rename(inside, back(RESNET)) if part == "resnets" else inside


def unet_name_to_ldm(
    name: str,
    layers_per_block: int = 2,
    attending: Collection[int] = ATTENDING,
    inside: Inside = _inside_to_ldm,
) -> str:
    """diffusers' name of a UNet weight -> LDM's, without `model.diffusion_model.`.

    attending: the up blocks that have attention; LDM counts an upsampler behind it.
    Raises ValueError for names that no UNet has.
    """
    found = re.fullmatch(r"(down|up)_blocks\.(\d+)\.(\w+)\.(\d+)\.(.+)", name)
    if not found:
        return _outside(name, UNET_OUTSIDE, inside, "diffusers'")
    side, level, part, index, rest = found[1], int(found[2]), found[3], int(found[4]), found[5]
    first = (layers_per_block + 1) * level + (side == "down")  # input block 0 is conv_in
    last = first + layers_per_block
    if part == "downsamplers":
        return f"input_blocks.{last}.0.op.{rest.removeprefix('conv.')}"
    if part == "upsamplers":
        return f"output_blocks.{last}.{2 if level in attending else 1}.{rest}"
    blocks = "input_blocks" if side == "down" else "output_blocks"
    return f"{blocks}.{first + index}.{int(part == 'attentions')}.{inside(rest, part)}"


def unet_name_to_diffusers(name: str, layers_per_block: int = 2, inside: Inside = _inside_to_diffusers) -> str:
    """LDM's name of a UNet weight, without `model.diffusion_model.` -> diffusers'."""
    found = re.fullmatch(r"(in|out)put_blocks\.(\d+)\.(\d)\.(.+)", name)
    if not found or name.startswith("input_blocks.0."):
        return _outside(name, back(UNET_OUTSIDE), inside, "LDM")
    is_input, place, rest = found[1] == "in", found[3], found[4]
    level, index = divmod(int(found[2]) - is_input, layers_per_block + 1)
    block = f"{'down' if is_input else 'up'}_blocks.{level}"
    if rest.startswith("op."):
        return f"{block}.downsamplers.0.conv.{rest.removeprefix('op.')}"
    if rest.startswith("conv."):
        return f"{block}.upsamplers.0.{rest}"
    part = "resnets" if place == "0" else "attentions"
    return f"{block}.{part}.{index}.{inside(rest, part)}"


def _outside(name: str, names: Names, inside: Inside, naming: str) -> str:
    """A name that is in no down or up block."""
    for old, new in names.items():
        if name.startswith(f"{old}."):
            middle = next((known for known in (old, new) if known.startswith("mid_block.")), "")
            part = "attentions" if ".attentions." in middle else "resnets"
            rest = name.removeprefix(f"{old}.")
            return f"{new}.{inside(rest, part) if middle else rest}"
    raise ValueError(f"{name} is not the name of a UNet's weight in {naming} naming.")


def attending_blocks(weights: Weights) -> set[int]:
    """The up blocks with attention of a UNet under diffusers' names."""
    return {int(found[1]) for name in weights if (found := re.match(r"up_blocks\.(\d+)\.attentions\.", name))}


def unet_to_ldm(weights: Weights, layers_per_block: int = 2) -> dict[str, torch.Tensor]:
    """A UNet's weights from diffusers' naming to LDM's, without `model.diffusion_model.`."""
    attending = attending_blocks(weights)
    return {unet_name_to_ldm(name, layers_per_block, attending): tensor for name, tensor in weights.items()}


def unet_to_diffusers(weights: Weights, layers_per_block: int = 2) -> dict[str, torch.Tensor]:
    """A UNet's weights from LDM's naming, without `model.diffusion_model.`, to diffusers'."""
    return {unet_name_to_diffusers(name, layers_per_block): tensor for name, tensor in weights.items()}


# ControlNet -----------------------------------------------------------------------------------------------------------


def controlnet_name_to_ldm(name: str, layers_per_block: int = 2) -> str:
    """diffusers' name of a ControlNet weight -> LDM's, without `control_model.`."""
    if found := re.fullmatch(r"controlnet_down_blocks\.(\d+)\.(.+)", name):
        return f"zero_convs.{found[1]}.0.{found[2]}"
    renamed = rename(name, CONTROLNET_OUTSIDE)
    return renamed if renamed != name else unet_name_to_ldm(name, layers_per_block)


def controlnet_name_to_diffusers(name: str, layers_per_block: int = 2) -> str:
    """LDM's name of a ControlNet weight, without `control_model.` -> diffusers'."""
    if found := re.fullmatch(r"zero_convs\.(\d+)\.0\.(.+)", name):
        return f"controlnet_down_blocks.{found[1]}.{found[2]}"
    renamed = rename(name, back(CONTROLNET_OUTSIDE))
    return renamed if renamed != name else unet_name_to_diffusers(name, layers_per_block)


def controlnet_to_ldm(weights: Weights, layers_per_block: int = 2) -> dict[str, torch.Tensor]:
    """A ControlNet's weights from diffusers' naming to LDM's, without `control_model.`."""
    return {controlnet_name_to_ldm(name, layers_per_block): tensor for name, tensor in weights.items()}


def controlnet_to_diffusers(weights: Weights, layers_per_block: int = 2) -> dict[str, torch.Tensor]:
    """A ControlNet's weights from LDM's naming, without `control_model.`, to diffusers'."""
    return {controlnet_name_to_diffusers(name, layers_per_block): tensor for name, tensor in weights.items()}


# VAE ------------------------------------------------------------------------------------------------------------------


def _vae_inside_to_ldm(inside: str, _side: str) -> str:
    return rename(inside, VAE_RESNET)


def _vae_inside_to_diffusers(inside: str, _side: str) -> str:
    return rename(inside, back(VAE_RESNET))


def vae_name_to_ldm(
    name: str, levels: int = 4, inside: Inside = _vae_inside_to_ldm, outside: Names = VAE_OUTSIDE
) -> str:
    """diffusers' name of a VAE weight -> LDM's, without `first_stage_model.`."""
    found = re.fullmatch(r"(encoder|decoder)\.(?:mid_block|(?:down|up)_blocks\.(\d+))\.(\w+)\.(\d+)\.(.+)", name)
    if not found:
        return rename(name, outside)
    side, level, part, index, rest = found.groups()
    if part == "attentions":
        return f"{side}.mid.attn_1.{rename(rest, VAE_ATTENTION)}"
    if level is None:
        block = f"{side}.mid.block_{int(index) + 1}"
    else:
        place = f"down.{level}" if side == "encoder" else f"up.{levels - 1 - int(level)}"
        if part in ("downsamplers", "upsamplers"):
            return f"{side}.{place}.{part.removesuffix('rs')}.{rest}"
        block = f"{side}.{place}.block.{index}"
    return f"{block}.{inside(rest, side)}"


def vae_name_to_diffusers(
    name: str, levels: int = 4, inside: Inside = _vae_inside_to_diffusers, outside: Names = VAE_OUTSIDE
) -> str:
    """LDM's name of a VAE weight, without `first_stage_model.` -> diffusers'."""
    found = re.fullmatch(r"(encoder|decoder)\.(mid|down\.\d+|up\.\d+)\.(\w+)\.(.+)", name)
    if not found:
        return rename(name, back(outside))
    side, place, part, rest = found.groups()
    if part == "attn_1":
        return f"{side}.mid_block.attentions.0.{rename(rest, back(VAE_ATTENTION))}"
    if place == "mid":
        place, index = "mid_block", str(int(part.removeprefix("block_")) - 1)
    else:
        level = int(place.split(".")[1])
        place = f"down_blocks.{level}" if side == "encoder" else f"up_blocks.{levels - 1 - level}"
        if part in ("downsample", "upsample"):
            return f"{side}.{place}.{part}rs.0.{rest}"
        index, rest = rest.split(".", 1)
    return f"{side}.{place}.resnets.{index}.{inside(rest, side)}"


def vae_to_diffusers(
    weights: Weights, name_to_diffusers: Callable[[str, int], str] = vae_name_to_diffusers
) -> dict[str, torch.Tensor]:
    """A VAE's weights from LDM's naming, without `first_stage_model.`, to diffusers'.

    1x1 convolutions of the attention become linear layers.
    """
    levels = _levels(weights, "decoder.up.")
    renamed = {name_to_diffusers(name, levels): tensor for name, tensor in weights.items()}
    return {name: as_linear(name, tensor) for name, tensor in renamed.items()}


def as_linear(name: str, tensor: torch.Tensor) -> torch.Tensor:
    """A weight of a VAE under diffusers' names; a 1x1 convolution of its attention as a linear layer."""
    is_projection = ".attentions." in name and name.endswith(".weight") and tensor.ndim == 4
    return tensor.flatten(1) if is_projection else tensor


def vae_to_ldm(weights: Weights, name_to_ldm: Callable[[str, int], str] = vae_name_to_ldm) -> dict[str, torch.Tensor]:
    """A VAE's weights from diffusers' naming to LDM's, without `first_stage_model.`.

    Linear layers of the attention become 1x1 convolutions.
    """
    levels = _levels(weights, "decoder.up_blocks.")
    renamed = {}
    for name, tensor in weights.items():
        is_projection = ".attentions." in name and name.endswith(".weight") and tensor.ndim == 2
        renamed[name_to_ldm(name, levels)] = tensor[:, :, None, None] if is_projection else tensor
    return renamed


def _levels(weights: Weights, prefix: str) -> int:
    return 1 + max((int(n[len(prefix) :].split(".")[0]) for n in weights if n.startswith(prefix)), default=3)
