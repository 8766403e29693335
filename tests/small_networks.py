"""MimicMotion, StableAnimator and SVD parts with every weight random, biases and norms too.

In float32; made anew at every call.
"""

from __future__ import annotations

import torch
from choreo.model_loaders.mimicmotion import MimicMotionNetworks
from choreo.model_loaders.stableanimator import StableAnimatorNetworks
from choreo.model_loaders.svd import SVDParts
from choreo.model_loaders.untrained import (
    UNTRAINED_FACE_ENCODER,
    UNTRAINED_IMAGE_TOWER,
    UNTRAINED_UNET,
    UNTRAINED_VAE,
)
from choreo.networks.face_encoder import FusionFaceId
from choreo.networks.id_attention import build_id_unet
from choreo.networks.image_tower import build_image_tower
from choreo.networks.pose_net import PoseNet
from choreo.networks.svd_unet import build_unet
from choreo.networks.video_vae import build_video_vae

WINDOW = 4


def scrambled(module, seed):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            scale = parameter[0].numel() ** -0.5 if parameter.ndim > 1 else 0.3
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * scale)
        for part in module.modules():
            if isinstance(part, (torch.nn.GroupNorm, torch.nn.LayerNorm)):
                part.weight += 1
    return module.eval().requires_grad_(False)


def small_unet():
    return scrambled(build_unet(UNTRAINED_UNET), 1)


def small_id_unet():
    return scrambled(build_id_unet(UNTRAINED_UNET), 1)


def small_pose_net():
    return scrambled(PoseNet(UNTRAINED_UNET["block_out_channels"][0]), 2)


def small_parts():
    tower, vae = scrambled(build_image_tower(UNTRAINED_IMAGE_TOWER), 3), scrambled(build_video_vae(UNTRAINED_VAE), 4)
    return SVDParts(vae, tower)


def small_networks():
    return MimicMotionNetworks(small_unet(), small_pose_net(), WINDOW), small_parts()


def small_stableanimator():
    face_encoder = scrambled(FusionFaceId(**UNTRAINED_FACE_ENCODER), 5)
    return StableAnimatorNetworks(small_id_unet(), small_pose_net(), face_encoder, WINDOW), small_parts()
