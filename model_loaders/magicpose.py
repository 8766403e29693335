"""MagicPose's weights in every layout they are published in, and the networks made of them."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from .assemble import without_prefix
from .catalogue import find_file, where_to_get
from .ldm_keys import Weights, controlnet_to_diffusers, controlnet_to_ldm, unet_to_diffusers, unet_to_ldm, vae_to_ldm
from .recognise import not_what_was_expected, recognise
from .sd15 import (
    CONTROL_PREFIX,
    SD15_NAMES,
    TEXT_PREFIX,
    UNET_PREFIX,
    VAE_PREFIX,
    Part,
    SD15Parts,
    check_controlnet,
    check_unet,
    parts_of,
    read_controlnet,
    read_sd15,
)
from .weights import read_config, read_weights

if TYPE_CHECKING:
    from diffusers import ControlNetModel, UNet2DConditionModel

log = logging.getLogger(__name__)

APPEARANCE_PREFIX, POSE_PREFIX = "appearance_control_model.", "pose_control_model."
PREFIXES = (UNET_PREFIX, VAE_PREFIX, TEXT_PREFIX, APPEARANCE_PREFIX, POSE_PREFIX, CONTROL_PREFIX)
SCHEDULE = (  # tables of the noise schedule, which is computed here
    "betas",
    "alphas_cumprod",
    "alphas_cumprod_prev",
    "sqrt_alphas_cumprod",
    "sqrt_one_minus_alphas_cumprod",
    "log_one_minus_alphas_cumprod",
    "sqrt_recip_alphas_cumprod",
    "sqrt_recipm1_alphas_cumprod",
    "posterior_variance",
    "posterior_log_variance_clipped",
    "posterior_mean_coef1",
    "posterior_mean_coef2",
    "logvar",
)
UNUSED = ("input_hint_block.", "zero_convs.", "middle_block_out.")  # of the appearance network, which has no use for it
KINDS = ("magicpose", "magicpose_stage1", "controlnet_sd15")
CONTROLNET_NAME = "control_v11p_sd15_openpose.pth"
CONTROLNET_NAMES = (CONTROLNET_NAME, "control_v11p_sd15_openpose.safetensors", "control_v11p_sd15_openpose")
TOKENIZER_NAMES = ("clip-vit-large-patch14", "stable-diffusion-v1-5/tokenizer")


@dataclass(frozen=True)
class MagicPoseNetworks:
    """MagicPose's own networks, on the CPU in the files' dtypes; no ControlNet is without poses."""

    unet: UNet2DConditionModel
    appearance: UNet2DConditionModel
    controlnet: ControlNetModel | None


@dataclass(frozen=True)
class MagicPoseWeights:
    """What MagicPose's files hold, before networks are made of it; see :class:`.sd15.Part`."""

    unet: Part
    appearance: Part
    controlnet: Part | None
    vae: Part
    text_encoder: Part
    tokenizer: Path | None

    def build_networks(self) -> MagicPoseNetworks:
        """UNet, appearance network and ControlNet; ValueError naming the file that does not fit."""
        controlnet = None if self.controlnet is None else self.controlnet.build("controlnet")
        return MagicPoseNetworks(self.unet.build("unet"), self.appearance.build("appearance"), controlnet)

    def build_parts(self) -> SD15Parts:
        """VAE and text encoder."""
        return SD15Parts(self.vae.build("vae"), self.text_encoder.build("text_encoder"), self.tokenizer)


def load_magicpose(
    path: str | Path, controlnet: str | Path | None = None, base: str | Path | None = None
) -> tuple[MagicPoseNetworks, SD15Parts]:
    """Load MagicPose; see :func:`read_magicpose`, which this makes networks of."""
    found = read_magicpose(path, controlnet, base)
    return found.build_networks(), found.build_parts()


def read_magicpose(
    path: str | Path, controlnet: str | Path | None = None, base: str | Path | None = None
) -> MagicPoseWeights:
    """Find and read MagicPose's weights; needs torch only (docs/magicpose.md, weights).

    path: a whole checkpoint (`model_state-110000.th`), one of stage 1 (`model_state-10000.th`), whose ControlNet comes
        from `controlnet` or the models folders, or `control_sd15_ini.ckpt`, where stage 1 starts: its appearance
        network is the encoder of its ControlNet and the decoder of its UNet.
    controlnet: a pose ControlNet in place of the file's own: LDM's or diffusers' names, or a diffusers folder.
    base: a Stable Diffusion 1.5 (single file or diffusers folder) whose UNet, VAE and text encoder are taken; None
        takes the file's own, and looks for one in the models folders only when the file has none.
    Raises FileNotFoundError for a missing file or part, ValueError for anything else than MagicPose.
    """
    path = Path(path)
    weights, config = read_weights(path), read_config(path)
    content = recognise(weights)
    if content.kind not in KINDS:
        raise not_what_was_expected(path, content, "MagicPose weights (model_state-110000.th or its stage 1)")
    if left := unexplained(weights):
        log.warning("%s holds %d tensors that MagicPose has no use for, e.g. %s.", path, len(left), left[0])
    parts = parts_of(weights, config, path)
    base_path = None if base is None else Path(base)
    if base_path is not None or not {"unet", "vae", "text_encoder"} <= set(parts):
        base_path = base_path or _find_base(path, parts)
        parts = parts | read_sd15(base_path)
        check_complete(base_path, parts)
    check_unet(parts["unet"])
    unet_config = parts["unet"].config
    appearance = Part(appearance_weights(weights, content.kind, unet_config["layers_per_block"]), unet_config, path)
    pose = _pose_part(weights, content.kind, path, unet_config) if controlnet is None else None
    if controlnet is not None:
        pose = read_controlnet(controlnet, unet_config)
    return MagicPoseWeights(
        parts["unet"],
        appearance,
        pose,
        parts["vae"],
        parts["text_encoder"],
        _find_tokenizer(path, base_path),
    )


def unexplained(weights: Mapping[str, Any]) -> list[str]:
    """Names of a MagicPose checkpoint that belong to none of its networks."""
    return [name for name in weights if name not in SCHEDULE and not name.startswith(PREFIXES)]


def appearance_weights(weights: Weights, kind: str, layers_per_block: int = 2) -> dict[str, torch.Tensor]:
    """The appearance network under diffusers' names, from a checkpoint of one of KINDS (LDM's names).

    What the files hold and the network has no use for is left out: the hint encoder, which nothing ever feeds, and in
    `control_sd15_ini.ckpt` the outputs of the ControlNet, which is completed by the decoder of the UNet.
    """
    found = without_prefix(weights, APPEARANCE_PREFIX if kind == "magicpose" else CONTROL_PREFIX)
    found = {name: tensor for name, tensor in found.items() if not name.startswith(UNUSED)}
    if kind == "controlnet_sd15":
        unet = without_prefix(weights, UNET_PREFIX)
        found |= {name: tensor for name, tensor in unet.items() if name.startswith("output_blocks.")}
    return unet_to_diffusers(found, layers_per_block)


def _pose_part(weights: Weights, kind: str, path: Path, config: Mapping[str, Any]) -> Part | None:
    """The file's own ControlNet, else the published one when it lies in the models folders."""
    if kind == "magicpose":
        own = controlnet_to_diffusers(without_prefix(weights, POSE_PREFIX), config["layers_per_block"])
        check_controlnet(own, path, recognise(weights), config)
        return Part(own, config, path)
    found = next((place for name in CONTROLNET_NAMES if (place := find_file(name))), None)
    return None if found is None else read_controlnet(found, config)


def _find_base(path: Path, parts: Mapping[str, Part]) -> Path:
    found = next((place for name in SD15_NAMES if (place := find_file(name))), None)
    if found is None:
        missing = ", ".join(name for name in ("unet", "vae", "text_encoder") if name not in parts)
        raise FileNotFoundError(
            f"{path} holds no {missing}, and no Stable Diffusion 1.5 to take them from was found in the models "
            f"folders. {where_to_get(SD15_NAMES[0])}"
        )
    return found


def check_complete(base: Path, parts: Mapping[str, Part]) -> None:
    """Raise FileNotFoundError when a Stable Diffusion lacks a part."""
    missing = [name for name in ("unet", "vae", "text_encoder") if name not in parts]
    if missing:
        raise FileNotFoundError(f"{base} holds no {', '.join(missing)}; take a complete Stable Diffusion 1.5.")


def _find_tokenizer(path: Path, base: Path | None) -> Path | None:
    """A folder with CLIP's vocabulary: of a diffusers base, beside the file, or in the models folders."""
    beside = [folder / "tokenizer" for folder in (base, path.parent) if folder is not None]
    found = (folder for folder in (*beside, *(find_file(name) for name in TOKENIZER_NAMES)) if folder)
    return next((folder for folder in found if (folder / "vocab.json").is_file()), None)


def to_checkpoint(networks: MagicPoseNetworks, parts: SD15Parts) -> dict[str, torch.Tensor]:
    """All weights under the names of the published `model_state-<step>.th`, without its tables.

    Without a ControlNet those of stage 1. Trained networks may be on any device; the tensors are theirs.
    """
    layers = networks.unet.config.layers_per_block
    has_pose = networks.controlnet is not None
    text = parts.text_encoder.state_dict()
    named = {
        UNET_PREFIX: unet_to_ldm(networks.unet.state_dict(), layers),
        VAE_PREFIX: vae_to_ldm(parts.vae.state_dict()),
        TEXT_PREFIX: {f"text_model.{name.removeprefix('text_model.')}": tensor for name, tensor in text.items()},
        APPEARANCE_PREFIX if has_pose else CONTROL_PREFIX: unet_to_ldm(networks.appearance.state_dict(), layers),
    }
    if has_pose:
        named[POSE_PREFIX] = controlnet_to_ldm(networks.controlnet.state_dict(), layers)
    return {prefix + name: tensor for prefix, weights in named.items() for name, tensor in weights.items()}
