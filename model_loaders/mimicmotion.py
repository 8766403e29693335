"""MimicMotion's weights, in every layout they are published in, as UNet and PoseNet."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ..networks.pose_net import PoseNet
from ..networks.svd_unet import SVD_XT, build_unet
from .assemble import assemble, without_prefix
from .catalogue import find_file, where_to_get
from .recognise import not_what_was_expected, recognise
from .weights import read_config, read_weights

if TYPE_CHECKING:
    from diffusers import UNetSpatioTemporalConditionModel

Weights = Mapping[str, torch.Tensor]
POSE_NET_NAMES = (
    "mimic_motion_pose_net.safetensors",
    "pose_net.safetensors",
    "pose_net.pth",
    "pose_net/pose_net.safetensors",
    "pose_net/pose_net.pth",
)
TRAINED_FILE = "MimicMotion.safetensors"  # as this package's trainer writes it
FOLDER_NAMES = (
    TRAINED_FILE,
    "unet/diffusion_pytorch_model.safetensors",
    "unet/diffusion_pytorch_model.fp16.safetensors",
    "unet/diffusion_pytorch_model.bin",
)
WINDOW_1_0, WINDOW_1_1 = 16, 72


@dataclass(frozen=True)
class MimicMotionNetworks:
    """MimicMotion's own networks, on the CPU in the file's dtype.

    window: frames the weights were trained on, the default length of a window.
    """

    unet: UNetSpatioTemporalConditionModel
    pose_net: PoseNet
    window: int


@dataclass(frozen=True)
class MimicMotionWeights:
    """What MimicMotion's files hold, before networks are made of it.

    unet, pose_net: tensors under diffusers' names, without prefixes; unet_path, pose_net_path: where they lie.
    config: of the UNet, complete, under diffusers' names. window: as of :class:`MimicMotionNetworks`.
    """

    unet: Weights
    config: Mapping[str, Any]
    unet_path: Path
    pose_net: Weights
    pose_net_path: Path
    window: int

    def build_pose_net(self) -> PoseNet:
        """PoseNet with its weights. Raises ValueError when they do not fit the UNet's width."""
        return build_pose_net(self.pose_net, self.config, self.pose_net_path)


def load_mimicmotion(
    path: str | Path, pose_net_path: str | Path | None = None, window: int | None = None
) -> MimicMotionNetworks:
    """Load MimicMotion; see :func:`read_mimicmotion`, which this makes networks of."""
    found = read_mimicmotion(path, pose_net_path, window)
    unet = assemble(partial(build_unet, found.config), found.unet, "MimicMotion's UNet", found.unet_path)
    return MimicMotionNetworks(unet, found.build_pose_net(), found.window)


def read_mimicmotion(
    path: str | Path, pose_net_path: str | Path | None = None, window: int | None = None
) -> MimicMotionWeights:
    """Find and read MimicMotion's weights; needs torch only.

    path: a full checkpoint (`MimicMotion_1-1.pth`: unet. and pose_net.), a UNet alone
        (`MimicMotionMergedUnet_1-1-fp16.safetensors`), or a trainer's folder `checkpoint-<step>`.
    pose_net_path: the PoseNet of a UNet alone; None looks beside the UNet and in the models folders.
    window: None takes the one of the weights: as their configuration says, else 16 for version 1.0 and 72 for 1.1 by
        the file's name, the only thing that tells the two apart.
    The UNet's configuration is that in the file's metadata, or of `config.json` beside it, else SVD-XT's.

    Raises FileNotFoundError for a missing file or PoseNet, ValueError for anything else than MimicMotion.
    """
    path = Path(path)
    unet_path = _unet_in_folder(path) if path.is_dir() else path
    weights, config = read_weights(unet_path), read_config(unet_path)
    content = recognise(weights)
    if content.kind == "mimicmotion" and pose_net_path is None:
        unet, pose_net = without_prefix(weights, "unet."), without_prefix(weights, "pose_net.")
        pose_path = unet_path
    elif content.kind in ("mimicmotion", "svd_unet_prefixed", "svd_unet"):
        unet = weights if content.kind == "svd_unet" else without_prefix(weights, "unet.")
        pose_path = Path(pose_net_path) if pose_net_path else find_pose_net(unet_path, path if path.is_dir() else None)
        pose_net = read_pose_net(pose_path)
    else:
        raise not_what_was_expected(unet_path, content, "MimicMotion weights")
    window = window or config.get("window") or window_by_name(path)
    return MimicMotionWeights(unet, config_of_unet(config), unet_path, pose_net, pose_path, window)


def config_of_unet(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """The UNet's part of what lies with its weights, completed by SVD-XT's, which is taken when there is none."""
    is_own = "projection_class_embeddings_input_dim" in config
    return SVD_XT | (config.get("unet") or (config if is_own else {}))


def window_by_name(path: str | Path) -> int:
    """72 frames for version 1.1 and unknown names, 16 for version 1.0 and a trainer's `checkpoint-<step>`."""
    name = Path(path).stem.lower()
    if re.search(r"1[-._]1(?!\d)", name):
        return WINDOW_1_1
    is_old = re.fullmatch(r"mimicmotion(_1)?|checkpoint-\d+", name) or re.search(r"1[-._]0(?!\d)", name)
    return WINDOW_1_0 if is_old else WINDOW_1_1


def _unet_in_folder(folder: Path) -> Path:
    found = next((folder / name for name in FOLDER_NAMES if (folder / name).is_file()), None)
    if found is None:
        raise FileNotFoundError(
            f"{folder} holds no MimicMotion weights: {' or '.join(FOLDER_NAMES)} was looked for, as trainers write it. "
            "Name the file itself when it is elsewhere."
        )
    return found


def find_pose_net(unet_path: str | Path, folder: Path | None = None) -> Path:
    """The PoseNet that belongs to a UNet: in a folder (None: beside the UNet), else in the models folders.

    Raises FileNotFoundError that says where it was looked for and where to get it.
    """
    beside = folder or Path(unet_path).parent
    candidates = (*(beside / name for name in POSE_NET_NAMES), find_file(POSE_NET_NAMES[0]))
    found = next((candidate for candidate in candidates if candidate and candidate.is_file()), None)
    if found is None:
        raise FileNotFoundError(
            f"{unet_path} is a UNet without its PoseNet, and none was found in {beside} under the names "
            f"{', '.join(POSE_NET_NAMES)}, nor {POSE_NET_NAMES[0]} in the models folders. "
            f"{where_to_get(POSE_NET_NAMES[0])} A full checkpoint holds one too: {where_to_get('MimicMotion_1-1.pth')}"
        )
    return found


def read_pose_net(path: str | Path) -> Weights:
    """The weights of a PoseNet, alone in a file or in a full MimicMotion checkpoint; ValueError for anything else."""
    weights = read_weights(path)
    content = recognise(weights)
    if content.kind == "mimicmotion":
        return without_prefix(weights, "pose_net.")
    if content.kind != "pose_net":
        raise not_what_was_expected(path, content, "PoseNet weights")
    return weights


def build_pose_net(weights: Weights, config: Mapping[str, Any], path: str | Path) -> PoseNet:
    """PoseNet with its weights for a UNet of a configuration; ValueError when they do not fit its width."""
    channels = config["block_out_channels"][0]
    return assemble(partial(PoseNet, channels), weights, f"a PoseNet for {channels} channels", path)
