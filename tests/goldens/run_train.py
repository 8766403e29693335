"""One training step of MimicMotion's unofficial trainer."""

from __future__ import annotations

import torch
from choreo.conditioning.picture import to_signed
from choreo.quirks import PUBLISHED
from choreo.samplers.euler import denoised_from_v
from choreo.training.encoding import encode_clip
from choreo.training.optimisation import adamw
from choreo.training.sigmas import LogNormal
from choreo.training.step import Draws, Recipe, denoising_loss, noisy_clips
from choreo.training.svd import PosedUNet

from .cases import Case
from .networks import network
from .registry import runner


@runner("mimicmotion/train_step")
@torch.enable_grad()
def train_step(case: Case) -> dict:
    config, tensors, outputs = case.config, case.tensors, {}
    recipe = Recipe(
        levels=LogNormal(config["P_mean"], config["P_std"]),
        dropout=config["conditioning_dropout_prob"],
        noise_aug=config["noise_aug_strength"],
        fps=config["fps"],
        motion_bucket_id=config["motion_bucket_id"],
        quirks=PUBLISHED,
    )
    module = PosedUNet(network(case, "unet"), network(case, "pose_net")).requires_grad_(True)
    vae, tower = network(case, "vae"), network(case, "image_encoder")
    frames, poses = (tensors[name].permute(0, 1, 3, 4, 2) for name in ("pixel_values_u8", "pose_pixel_values_u8"))
    reference = tensors["reference_image_u8"].permute(0, 2, 3, 1)
    encoded = encode_clip(vae, tower, frames[0], reference, quirks=PUBLISHED)
    for k, p in enumerate(tensors["random_p"]):
        module.zero_grad()
        draws = Draws(tensors["vae_noise"][None], tensors["noise"], tensors["rnd_normal"].flatten(), p[None])
        clips = noisy_clips(
            encoded["moments"][None],
            encoded["image_latents"][None],
            encoded["image_embeds"][None],
            draws,
            noise_aug=torch.tensor([recipe.noise_aug]),
            recipe=recipe,
            scaling=vae.config.scaling_factor,
        )
        v = module(**clips.inputs(), pose_pictures=poses)
        loss = denoising_loss(v, clips).mean()
        loss.backward()
        outputs[f"loss_{k}"] = loss.detach()
        outputs |= _gradients(module, config, k)
        if k == 0:
            outputs |= _intermediate(module, clips, v, poses)
            updated = _updated(module, config)
    return outputs | updated


def _intermediate(module: PosedUNet, clips, v: torch.Tensor, poses: torch.Tensor) -> dict:
    sigma = clips.sigma
    return {
        "sigma": sigma,
        "c_noise": clips.timestep.view_as(sigma),
        "added_time_ids": clips.time_ids,
        "latents": clips.latents,
        "input_latents": clips.sample,
        "encoder_hidden_states": clips.image_embeds,
        "model_pred": v.detach(),
        "predict_x0": denoised_from_v(clips.noisy, v, sigma).detach(),
        "pose_latents": module.pose_net(to_signed(poses).permute(0, 1, 4, 2, 3)).detach(),
    }


def _gradients(module: PosedUNet, config: dict, k: int) -> dict:
    norms = {name: parameter.grad.norm() for name, parameter in module.named_parameters()}
    return {
        f"grad_norms_unet_{k}": torch.stack([norms["unet." + name] for name in config["grad_param_names_unet"]]),
        f"grad_norms_pose_net_{k}": torch.stack(
            [norms["pose_net." + name] for name in config["grad_param_names_pose_net"]]
        ),
        f"grad_total_norm_{k}": torch.stack(list(norms.values())).norm(),
    }


def _updated(module: PosedUNet, config: dict) -> dict:
    """Some parameters after clipping and one step of AdamW, which is then undone."""
    before = {name: parameter.detach().clone() for name, parameter in module.named_parameters()}
    settings = config["adamw"]
    torch.nn.utils.clip_grad_norm_(module.parameters(), config["max_grad_norm"])
    adamw(
        [{"params": list(module.parameters()), "lr": settings["lr"]}],
        betas=tuple(settings["betas"]),
        weight_decay=settings["weight_decay"],
        eps=settings["eps"],
    ).step()
    outputs = {
        "adamw_conv_out_weight": module.unet.conv_out.weight.detach().clone(),
        "adamw_final_proj_bias": module.pose_net.final_proj.bias.detach().clone(),
        "adamw_scale": module.pose_net.scale.detach().clone(),
    }
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            parameter.copy_(before[name])
    return outputs
