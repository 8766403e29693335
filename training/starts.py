"""The networks that a training begins with."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from ..model_loaders.assemble import assemble, without_prefix
from ..model_loaders.catalogue import require_file, where_to_get
from ..model_loaders.magicpose import (
    CONTROLNET_NAME,
    MagicPoseNetworks,
    MagicPoseWeights,
    check_complete,
    read_magicpose,
)
from ..model_loaders.mimicmotion import MimicMotionNetworks, config_of_unet, load_mimicmotion, read_pose_net
from ..model_loaders.recognise import not_what_was_expected, recognise
from ..model_loaders.sd15 import SD15Parts, read_controlnet, read_sd15
from ..model_loaders.stableanimator import StableAnimatorNetworks, load_stableanimator
from ..model_loaders.weights import read_config, read_weights
from ..networks.appearance import HEAD
from ..networks.face_encoder import FusionFaceId
from ..networks.id_attention import install_id_adapter
from ..networks.pose_net import PoseNet
from ..networks.svd_unet import build_unet
from .settings import TrainMagicPose, TrainMimicMotion, TrainStableAnimator


def mimicmotion_start(job: TrainMimicMotion) -> MimicMotionNetworks:
    """MimicMotion's networks as a job says."""
    if job.weights is not None:
        return load_mimicmotion(job.weights, job.pose_net, window=job.frames)
    if job.config is not None:
        unet = build_unet(config_of_unet(_json(job.config)))
        return MimicMotionNetworks(unet, _fresh_pose_net(unet), job.frames)
    if job.pose_net is not None:
        return load_mimicmotion(job.unet, job.pose_net, window=job.frames)
    unet = _plain_unet(job.unet)
    return MimicMotionNetworks(unet, _fresh_pose_net(unet), job.frames)


def stableanimator_start(job: TrainStableAnimator) -> StableAnimatorNetworks:
    """StableAnimator's networks as a job says."""
    if job.weights is not None:
        return load_stableanimator(job.weights, job.pose_net, job.face_encoder)
    if job.mimicmotion is not None:
        return from_mimicmotion(load_mimicmotion(job.mimicmotion, job.pose_net, window=job.frames))
    sizes = {}
    if job.config is not None:
        config = _json(job.config)
        unet, sizes = build_unet(config_of_unet(config)), config.get("face_encoder", {})
    else:
        unet = _plain_unet(job.unet)
    pose_net = _fresh_pose_net(unet)
    if job.pose_net is not None:
        pose_net.load_state_dict(read_pose_net(job.pose_net))
    return with_identity(unet, pose_net, job.frames, **sizes)


def magicpose_start(job: TrainMagicPose) -> tuple[MagicPoseNetworks, SD15Parts]:
    """MagicPose's networks as a job says, without a ControlNet for stage 1, and what encodes pictures and texts."""
    found = _magicpose_of_base(job) if job.weights is None else read_magicpose(job.weights, job.controlnet, job.base)
    if job.stage == 1:
        found = replace(found, controlnet=None)
    elif found.controlnet is None:
        raise FileNotFoundError(
            f"{job.weights} holds no pose ControlNet for stage 2, and none was found in the models folders: name one "
            f"with --controlnet. {where_to_get(CONTROLNET_NAME)}"
        )
    return found.build_networks(), found.build_parts()


def _magicpose_of_base(job: TrainMagicPose) -> MagicPoseWeights:
    """A plain Stable Diffusion 1.5 whose UNet is the appearance network too, as `control_sd15_ini.ckpt` has it."""
    parts = read_sd15(job.base)
    check_complete(job.base, parts)
    unet = parts["unet"]
    same = {name: tensor for name, tensor in unet.weights.items() if not name.startswith(HEAD)}
    controlnet = None
    if job.stage == 2:
        controlnet = read_controlnet(job.controlnet or require_file(CONTROLNET_NAME), unet.config)
    return MagicPoseWeights(
        unet, replace(unet, weights=same), controlnet, parts["vae"], parts["text_encoder"], tokenizer=None
    )


def with_identity(unet: Any, pose_net: PoseNet, window: int, **sizes: int) -> StableAnimatorNetworks:
    """StableAnimator out of SVD's UNet, which gets the identity adapter in place, and a PoseNet.

    sizes: of the fresh face encoder, where they differ from the full ones or do not follow from the UNet.
    """
    install_id_adapter(unet)
    width = unet.config.cross_attention_dim
    encoder = FusionFaceId(**{"cross_attention_dim": width, "clip_embeddings_dim": width, **sizes})
    # Published encoders start with zeros here. The adapter divides by the deviation of what comes of them.
    nn.init.xavier_uniform_(encoder.fusion_model.proj_out.weight)
    return StableAnimatorNetworks(unet, pose_net, encoder, window)


def from_mimicmotion(networks: MimicMotionNetworks, **sizes: int) -> StableAnimatorNetworks:
    """:func:`with_identity` of MimicMotion's networks, changed in place, whose PoseNet gets to know the drawings.

    Those of the two systems differ in the order of the colour channels alone, so those of the first convolution are
    exchanged.
    """
    first = networks.pose_net.conv_layers[0].weight
    first.data = first.data.flip(1).contiguous()
    return with_identity(networks.unet, networks.pose_net, networks.window, **sizes)


def _fresh_pose_net(unet: Any) -> PoseNet:
    return PoseNet(unet.config.block_out_channels[0])


def _plain_unet(path: Path) -> Any:
    """SVD's UNet of a file of its own, with or without the prefix `unet.`."""
    weights = read_weights(path)
    content = recognise(weights)
    if content.kind == "svd_unet_prefixed":
        weights = without_prefix(weights, "unet.")
    elif content.kind != "svd_unet":
        raise not_what_was_expected(path, content, "the weights of SVD's UNet")
    return assemble(partial(build_unet, config_of_unet(read_config(path))), weights, "SVD's UNet", path)


def _json(path: Path) -> dict[str, Any]:
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is not valid JSON ({error}).") from error
    if not isinstance(config, dict) or not ("unet" in config or "block_out_channels" in config):
        raise ValueError(f'{path} is no configuration of networks; {{"unet": {{...}}}} was expected.')
    return config
