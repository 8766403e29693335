"""Stable Diffusion 1.5's networks and ControlNet as the host's own, also in sizes the host does not know.

Published sizes go through the host's loaders; for others, networks are made of the host's classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import comfy.cldm.cldm
import comfy.controlnet
import comfy.model_base
import comfy.model_detection
import comfy.model_management as mm
import comfy.ops
import comfy.sd
import comfy.supported_models
import comfy.utils
import folder_paths
import torch
from comfy.ldm.models.autoencoder import AutoencoderKL
from comfy.model_patcher import ModelPatcher
from comfy.sd1_clip import SD1ClipModel, SD1Tokenizer, SDClipModel
from comfy.supported_models_base import ClipTarget

from ..model_loaders.ldm_keys import controlnet_to_ldm, unet_to_ldm, vae_to_ldm
from ..model_loaders.sd15 import Part
from ..networks.picture_vae import SD15_VAE
from ..networks.sd15_unet import SD15_UNET
from ..networks.text_encoder import CLIP_VIT_L_14_TEXT, special_tokens
from .models import DTYPES, model_of_size
from .svd_parts import check_fits, vae_around

ARCHITECTURE = ("block_out_channels", "layers_per_block", "cross_attention_dim", "attention_head_dim")
TEXT = "clip_l.transformer."  # before the names of the text encoder's weights in the host
NOT_IN_FILES = ("clip_l.logit_scale", f"{TEXT}text_projection.weight")  # the host has them, and nothing here uses them


def host_unet(part: Part, dtype: str = "default", head: Part | None = None) -> ModelPatcher:
    """A UNet as MODEL. dtype: one of DTYPES.

    head: a UNet whose output layers complete weights without any, which the host cannot do without.
    Raises ValueError when the weights do not fit.
    """
    weights = _ldm(part)
    if head is not None:
        weights |= {name: tensor for name, tensor in _ldm(head).items() if name.startswith("out.")}
    if _is(SD15_UNET, part.config, ARCHITECTURE):
        options = {} if DTYPES[dtype] is None else {"dtype": DTYPES[dtype]}
        model = comfy.sd.load_diffusion_model_state_dict(dict(weights), model_options=options)
    else:
        heads = {"num_heads": part.config["attention_head_dim"]}
        model = model_of_size(comfy.supported_models.SD15, weights, part.config, DTYPES[dtype], **heads)
    if model is None or type(model.model) is not comfy.model_base.BaseModel:
        raise ValueError(f"ComfyUI does not recognise {part.path} as a UNet of Stable Diffusion 1.5; update ComfyUI.")
    check_fits(weights, model.model.diffusion_model, "SD 1.5", part.path)
    return model


def _ldm(part: Part) -> dict[str, torch.Tensor]:
    return unet_to_ldm(part.weights, part.config["layers_per_block"])


def _is(known: Mapping[str, Any], config: Mapping[str, Any], keys: tuple[str, ...]) -> bool:
    def plain(value: Any) -> Any:
        return tuple(value) if isinstance(value, list) else value

    return all(plain(config[key]) == plain(known[key]) for key in keys)


def host_controlnet(part: Part) -> comfy.controlnet.ControlNet:
    """A ControlNet as CONTROL_NET; ValueError when the weights do not fit."""
    weights = controlnet_to_ldm(part.weights, part.config["layers_per_block"])
    if _is(SD15_UNET, part.config, ARCHITECTURE):
        control_net = comfy.controlnet.load_controlnet_state_dict(dict(weights))
    else:
        control_net = _controlnet_of_size(weights, part.config)
    check_fits(weights, control_net.control_model, "ControlNet", part.path)
    return control_net


def _controlnet_of_size(weights: Mapping[str, torch.Tensor], config: Mapping[str, Any]) -> comfy.controlnet.ControlNet:
    unet = comfy.model_detection.detect_unet_config(dict(weights), "")
    del unet["out_channels"]
    dtype, device = mm.unet_dtype(weight_dtype=comfy.utils.weight_dtype(weights)), mm.get_torch_device()
    cast = mm.unet_manual_cast(dtype, device)
    network = comfy.cldm.cldm.ControlNet(
        **unet,
        num_heads=config["attention_head_dim"],
        hint_channels=weights["input_hint_block.0.weight"].shape[1],
        dtype=dtype,
        device=mm.unet_offload_device(),
        operations=comfy.ops.pick_operations(dtype, cast),
    )
    network.load_state_dict(weights, strict=False)
    return comfy.controlnet.ControlNet(network, load_device=device, manual_cast_dtype=cast)


def host_vae(part: Part) -> comfy.sd.VAE:
    """The VAE as VAE; ValueError when the weights do not fit."""
    weights, config = vae_to_ldm(part.weights), part.config
    if _is(SD15_VAE, config, ("block_out_channels", "layers_per_block", "latent_channels")):
        vae = comfy.sd.VAE(sd=dict(weights))
        check_fits(weights, vae.first_stage_model, "VAE", part.path)
        return vae
    base, *_ = widths = config["block_out_channels"]
    sizes = {
        "double_z": True,
        "z_channels": config["latent_channels"],
        "resolution": 256,
        "in_channels": config["in_channels"],
        "out_ch": config["out_channels"],
        "ch": base,
        "ch_mult": [width // base for width in widths],
        "num_res_blocks": config["layers_per_block"],
        "attn_resolutions": [],
        "dropout": 0.0,
    }
    module = AutoencoderKL(ddconfig=sizes, embed_dim=config["latent_channels"]).eval()
    return vae_around(module, weights, "VAE", part.path)


def host_clip(part: Part) -> comfy.sd.CLIP:
    """The text encoder with the host's tokenizer as CLIP; ValueError when the weights do not fit."""
    weights = {_text_name(n): tensor for n, tensor in part.weights.items() if not n.endswith("position_ids")}
    params: dict[str, Any] = {}
    if not _is(CLIP_VIT_L_14_TEXT, part.config, tuple(CLIP_VIT_L_14_TEXT)):
        settings = {key: part.config[key] for key in CLIP_VIT_L_14_TEXT}
        settings["eos_token_id"] = special_tokens(part.config)[1]
        params = {"clip_model": SDClipModel, "textmodel_json_config": settings, "return_projected_pooled": False}
    target = ClipTarget(SD1Tokenizer, SD1ClipModel)
    target.params = params
    clip = comfy.sd.CLIP(
        target,
        embedding_directory=folder_paths.get_folder_paths("embeddings"),
        tokenizer_data=weights,
        parameters=comfy.utils.calculate_parameters(weights),
    )
    clip.load_sd(dict(weights), full_model=True)
    _check_text(weights, clip.cond_stage_model, part.path)
    return clip


def _text_name(name: str) -> str:
    """transformers' versions differ in whether names begin with text_model.; the host's do."""
    return f"{TEXT}text_model.{name.removeprefix('text_model.')}"


def _check_text(weights: Mapping[str, torch.Tensor], network: torch.nn.Module, source: Path) -> None:
    filled = {name: tensor for name, tensor in network.state_dict().items() if name in NOT_IN_FILES}
    check_fits({**filled, **weights}, network, "text encoder", source)
