"""MimicMotion's networks, each for itself."""

from __future__ import annotations

import torch
from choreo.networks.svd_unet import predict

from .cases import Case
from .networks import network
from .registry import runner


@runner("mimicmotion/pose_net")
def pose_net(case: Case) -> dict:
    return {"pose_latents": network(case, "pose_net")(case.tensors["pose"].float())}


def _unet_inputs(case: Case) -> tuple[torch.Tensor, ...]:
    names = ("sample", "timestep", "encoder_hidden_states", "added_time_ids", "pose_latents")
    return tuple(case.tensors[name].float() for name in names)


@runner("mimicmotion/unet")
def unet(case: Case) -> dict:
    *inputs, pose = _unet_inputs(case)
    module = network(case, "unet")
    return {
        "with_pose": predict(module, *inputs, pose_features=pose),
        "no_pose": predict(module, *inputs),
        "image_only": predict(module, *inputs, pose_features=pose, image_only=True),
    }


@runner("mimicmotion/unet_extra")
def unet_extra(case: Case) -> dict:
    sample, timestep, embeds, time_ids, pose = _unet_inputs(case)
    module = network(case, "unet")
    first_clip = pose[: sample.shape[1]]
    strength = case.config["pose_strength"]
    single = (sample[:1], timestep, embeds[:1], time_ids[:1])
    return {
        "batch2": predict(module, sample, timestep, embeds, time_ids, pose_features=pose),
        "pose_strength_03": predict(module, *single, pose_features=first_clip * strength),
        "single_frame": predict(module, sample[:1, :1], *single[1:], pose_features=pose[:1]),
    }


@runner("mimicmotion/vae")
def vae(case: Case) -> dict:
    module = network(case, "vae")
    posterior = module.encode(case.tensors["image"].float()).latent_dist
    latents = case.tensors["z"].float()

    def decode(chunk: int) -> torch.Tensor:
        return torch.cat([module.decode(part, num_frames=len(part)).sample for part in latents.split(chunk)])

    return {
        "mode": posterior.mode(),
        "logvar": posterior.logvar,
        "decode_all": decode(len(latents)),
        "decode_chunk2": decode(2),
        "decode_first_only": module.decode(latents[:1], num_frames=1).sample,
    }
