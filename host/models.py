"""MimicMotion and StableAnimator as a plain MODEL of the host: its own SVD network with the published weights.

PoseNet and, for StableAnimator, the face encoder belong to the MODEL; they are loaded apart, while they are used.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import comfy.model_base
import comfy.model_detection
import comfy.model_management as mm
import comfy.sd
import comfy.supported_models
import comfy.utils
import torch
from comfy.model_patcher import ModelPatcher

from ..model_loaders.assemble import differences
from ..model_loaders.mimicmotion import MimicMotionWeights, read_mimicmotion
from ..model_loaders.stableanimator import StableAnimatorWeights
from ..model_loaders.svd_keys import unet_to_ldm
from ..networks.svd_unet import SVD_XT
from .castable import managed
from .fusion import MIMICMOTION, STABLEANIMATOR, install_poses
from .identity import ADAPTER, add_adapters, install_identity

ATTACHMENT = "choreo_parts"
DTYPES: Mapping[str, torch.dtype | None] = {
    "default": None,
    "fp16": torch.float16,
    "bf16": torch.bfloat16,
    "fp32": torch.float32,
    "fp8_e4m3fn": torch.float8_e4m3fn,
}


@dataclass(frozen=True)
class Parts:
    """What comes with a MODEL and stays with its clones.

    system:       what it is, as the nodes call it: MIMICMOTION or STABLEANIMATOR.
    window:       frames the weights were trained on.
    pose_net, face_encoder: in patchers of their own, loaded only while they are used; MimicMotion has no face encoder.
    """

    system: str
    window: int
    pose_net: ModelPatcher
    face_encoder: ModelPatcher | None = None


def load_model(path: str | Path, pose_net_path: str | Path | None = None, dtype: str = "default") -> ModelPatcher:
    """A MODEL from MimicMotion's files in any published layout.

    dtype: one of DTYPES, how UNet weights are kept; "default" is what the host finds best for the device.
    Raises what :func:`.model_loaders.mimicmotion.read_mimicmotion` raises, and ValueError for other networks.
    """
    return model_of(read_mimicmotion(path, pose_net_path), dtype)


def model_of(found: MimicMotionWeights, dtype: str = "default") -> ModelPatcher:
    """A MODEL with MimicMotion's weights, as :func:`load_model`."""
    model = _svd_model(found.unet, found.config, found.unet_path, dtype)
    return _with_parts(model, Parts(MIMICMOTION, found.window, managed(found.build_pose_net())))


def stableanimator_of(found: StableAnimatorWeights, dtype: str = "default") -> ModelPatcher:
    """A MODEL with StableAnimator's weights; the identity adapter's are weights of its UNet like all others.

    dtype: as of :func:`load_model`. Raises ValueError for networks that do not fit.
    """
    model = _svd_model(found.unet, found.config, found.unet_path, dtype)
    install_identity(model)
    pose_net, face_encoder = managed(found.build_pose_net()), managed(found.build_face_encoder())
    return _with_parts(model, Parts(STABLEANIMATOR, found.window, pose_net, face_encoder))


def _with_parts(model: ModelPatcher, parts: Parts) -> ModelPatcher:
    model.set_attachments(ATTACHMENT, parts)
    install_poses(model, parts.pose_net, parts.system)
    return model


def _svd_model(unet: Mapping[str, torch.Tensor], config: Mapping[str, Any], source: Path, dtype: str) -> ModelPatcher:
    """The host's SVD network with weights under diffusers' names, an identity adapter's among them or not."""
    weights = unet_to_ldm(unet, config["layers_per_block"])
    adapter = {name: tensor for name, tensor in weights.items() if ADAPTER in name}
    plain = {name: tensor for name, tensor in weights.items() if name not in adapter}
    if _architecture(config) == _architecture(SVD_XT):
        options = {} if DTYPES[dtype] is None else {"dtype": DTYPES[dtype]}
        model = comfy.sd.load_diffusion_model_state_dict(dict(plain), model_options=options)
    else:
        heads = {"num_head_channels": _head_channels(config)}
        model = model_of_size(comfy.supported_models.SVD_img2vid, plain, config, DTYPES[dtype], **heads)
        model.model.embedder = type(model.model.embedder)(config["addition_time_embed_dim"])
    if model is None or not isinstance(model.model, comfy.model_base.SVD_img2vid):
        raise ValueError(
            f"ComfyUI does not recognise {source} as SVD's UNet: download the file again if it is not whole, "
            "or update ComfyUI."
        )
    network = model.model.diffusion_model
    if adapter:
        add_adapters(network)
        model.size = 0  # to be counted again
    problems = differences(weights, network.state_dict())
    if problems:
        raise ValueError(f"{source} does not fit ComfyUI's SVD network: {'; '.join(problems)}.")
    network.load_state_dict(adapter, strict=False)
    return model


def _architecture(config: Mapping[str, Any]) -> tuple[Any, ...]:
    sizes = (tuple(config["block_out_channels"]), tuple(config["num_attention_heads"]))
    return (*sizes, config["layers_per_block"], config["cross_attention_dim"], config["addition_time_embed_dim"])


def model_of_size(
    host_class: Any,
    weights: Mapping[str, torch.Tensor],
    config: Mapping[str, Any],
    dtype: torch.dtype | None,
    **unet_config: Any,
) -> ModelPatcher:
    """A known network in another size than published, which the host cannot detect: from its own classes.

    host_class: of comfy.supported_models. weights: LDM's names. config: diffusers' one. unet_config: further settings.
    """
    host_config = host_class(comfy.model_detection.detect_unet_config(dict(weights), ""))
    host_config.unet_config |= unet_config
    base, *_ = widths = config["block_out_channels"]
    host_config.unet_config["channel_mult"] = [Multiple(width, base) for width in widths]
    supported = list(host_config.supported_inference_dtypes)
    device, offload_device = mm.get_torch_device(), mm.unet_offload_device()
    dtype = dtype or mm.unet_dtype(
        model_params=comfy.utils.calculate_parameters(weights),
        supported_dtypes=supported,
        weight_dtype=comfy.utils.weight_dtype(weights),
    )
    host_config.set_inference_dtype(dtype, mm.unet_manual_cast(dtype, device, supported))
    model = host_config.get_model(weights, "").to(offload_device)
    model.load_model_weights(dict(weights), "")
    return ModelPatcher(model, load_device=device, offload_device=offload_device)


class Multiple:
    """What the host multiplies its first width with to get the width of a level; it need not be a whole number."""

    def __init__(self, width: int, base: int) -> None:
        self.width, self.base = width, base

    def __mul__(self, channels: int) -> int:
        return self.width * channels // self.base

    __rmul__ = __mul__


def _head_channels(config: Mapping[str, Any]) -> int:
    levels = zip(config["down_block_types"], config["block_out_channels"], config["num_attention_heads"], strict=True)
    *others, (_, channels, heads) = levels  # the last level's attention is in the middle block too
    sizes = {channels // heads} | {width // count for kind, width, count in others if kind.startswith("CrossAttn")}
    if len(sizes) != 1:
        raise ValueError(
            f"ComfyUI's SVD network needs attention heads of one size, these weights have {sorted(sizes)}."
        )
    return sizes.pop()


def parts_of(model: ModelPatcher, *systems: str) -> Parts:
    """What comes with a MODEL. Raises ValueError when it is none of the systems; any will do when none is named."""
    parts = model.get_attachment(ATTACHMENT) if hasattr(model, "get_attachment") else None
    systems = systems or (MIMICMOTION, STABLEANIMATOR)
    if parts is None or parts.system not in systems:
        what = "has no PoseNet, so it is not" if parts is None else f"is {parts.system}, not"
        loaders = " or ".join(f"Load {system}" for system in systems)
        raise ValueError(f"This MODEL {what} {' or '.join(systems)}: connect the MODEL of {loaders}.")
    return parts


def context_size(model: ModelPatcher) -> int:
    """Width of the picture embedding that a MODEL is conditioned on."""
    return model.model.model_config.unet_config["context_dim"]


def size_multiple(model: ModelPatcher) -> int:
    """What both sides of a picture must be multiples of: the VAE halves them three times, the UNet at every level."""
    return 8 * 2 ** (len(model.model.model_config.unet_config["channel_mult"]) - 1)
