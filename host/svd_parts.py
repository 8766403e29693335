"""SVD's VAE and CLIP image tower as the host's VAE and CLIP_VISION, also in sizes the host does not know."""

from __future__ import annotations

import json
import logging
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import comfy.clip_vision
import comfy.model_management as mm
import comfy.sd
import torch
from comfy.ldm.models.autoencoder import AutoencodingEngine
from comfy.model_patcher import ModelPatcher

from ..model_loaders.assemble import differences
from ..model_loaders.svd import CLIP_INNER, SVDWeights
from ..model_loaders.svd_keys import vae_to_ldm
from ..networks.image_tower import CLIP_VIT_H_14
from ..networks.video_vae import SVD_VAE


def host_parts(parts: SVDWeights) -> tuple[comfy.sd.VAE, comfy.clip_vision.ClipVisionModel]:
    """VAE and CLIP_VISION with the weights of SVD's parts, managed by the host."""
    return host_vae(parts), host_clip_vision(parts)


def host_clip_vision(parts: SVDWeights) -> comfy.clip_vision.ClipVisionModel:
    """The image tower as CLIP_VISION; any size."""
    settings = {name: parts.image_encoder_config[name] for name in CLIP_VIT_H_14}
    with tempfile.TemporaryDirectory(prefix="choreo-", ignore_cleanup_errors=True) as folder:
        path = Path(folder) / "config.json"
        path.write_text(json.dumps({"model_type": "clip_vision_model", **settings}), encoding="utf-8")
        clip_vision = comfy.clip_vision.ClipVisionModel(str(path))
    weights = _names_of_host(parts.image_encoder)
    check_fits(weights, clip_vision.model, "CLIP vision", parts.image_encoder_path)
    clip_vision.load_sd(weights)
    return clip_vision


def _names_of_host(weights: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """transformers' versions differ in whether names begin with vision_model.; the host's do."""
    return {
        name if name.startswith((CLIP_INNER, "visual_projection.")) else CLIP_INNER + name: tensor
        for name, tensor in weights.items()
        if not name.endswith("position_ids")
    }


def host_vae(parts: SVDWeights) -> comfy.sd.VAE:
    """The VAE with its temporal decoder as VAE; any size."""
    weights, config = dict(parts.vae), parts.vae_config
    for name in ("encoder.conv_out.weight", "encoder.conv_out.bias"):  # joined with quant_conv, which half cannot hold
        weights[name] = weights[name].float()
    weights = vae_to_ldm(weights)
    if _sizes(config) == _sizes(SVD_VAE):
        vae = comfy.sd.VAE(sd=dict(weights))
        check_fits(weights, vae.first_stage_model, "video VAE", parts.vae_path)
        return vae
    return _vae_of_size(weights, config, parts.vae_path)


def _sizes(config: Mapping[str, Any]) -> tuple[Any, ...]:
    return (tuple(config["block_out_channels"]), config["layers_per_block"], config["latent_channels"])


def _vae_of_size(weights: Mapping[str, torch.Tensor], config: Mapping[str, Any], source: Path) -> comfy.sd.VAE:
    """The host's classes in another size than published; comfy.sd.VAE only makes the published one."""
    channels = config["block_out_channels"]
    side = {
        "double_z": True,
        "z_channels": config["latent_channels"],
        "resolution": 256,
        "in_channels": config["in_channels"],
        "out_ch": config["out_channels"],
        "ch": channels[0],
        "ch_mult": [width // channels[0] for width in channels],
        "num_res_blocks": config["layers_per_block"],
        "attn_resolutions": [],
        "dropout": 0.0,
    }
    module = AutoencodingEngine(
        encoder_config={"target": "comfy.ldm.modules.diffusionmodules.model.Encoder", "params": side},
        decoder_config={
            "target": "comfy.ldm.modules.temporal_ae.VideoDecoder",
            "params": side | {"video_kernel_size": [3, 1, 1], "alpha": 0.0},
        },
        regularizer_config={"target": "comfy.ldm.models.autoencoder.DiagonalGaussianRegularizer"},
    ).eval()
    if config["layers_per_block"] == 1:  # diffusers' decoder then has no second middle block, nor runs the attention
        middle = module.decoder.mid
        middle.attn_1, middle.block_2 = _Skipped(), _Skipped()
        weights = {name: tensor for name, tensor in weights.items() if not name.startswith("decoder.mid.attn_1.")}
    return vae_around(module, weights, "video VAE", source)


def vae_around(module: torch.nn.Module, weights: Mapping[str, torch.Tensor], what: str, source: Path) -> comfy.sd.VAE:
    """A VAE with an autoencoder of the host's that its own loader cannot make; ValueError when weights do not fit."""
    check_fits(weights, module, what, source)
    module.load_state_dict(weights)
    vae = _empty_vae()
    vae.device, vae.output_device = mm.vae_device(), mm.intermediate_device()
    vae.vae_dtype = mm.vae_dtype(vae.device, vae.working_dtypes)
    vae.first_stage_model = module.to(vae.vae_dtype)
    vae.patcher = ModelPatcher(module, load_device=vae.device, offload_device=mm.vae_offload_device())
    return vae


class _Skipped(torch.nn.Module):
    def forward(self, h: torch.Tensor, *_more: object, **_options: object) -> torch.Tensor:
        return h


def _empty_vae() -> comfy.sd.VAE:
    """A VAE with its settings and no network; the host warns that there are no weights, which come right after."""
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)
    try:
        return comfy.sd.VAE(sd={})
    finally:
        root.setLevel(level)


def check_fits(weights: Mapping[str, torch.Tensor], module: torch.nn.Module, what: str, source: Path) -> None:
    """Raise ValueError when weights are not those of one of the host's networks, by names and shapes."""
    problems = differences(weights, module.state_dict())
    if problems:
        raise ValueError(f"{source} does not fit ComfyUI's {what} network: {'; '.join(problems)}.")
