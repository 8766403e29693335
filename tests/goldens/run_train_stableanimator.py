"""One training step of StableAnimator's trainer: its data, its noise levels, its loss and gradients."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import torch
from choreo.conditioning.picture import to_signed
from choreo.datasets.framing import Framing
from choreo.datasets.sampling import clip_length, clip_positions, frames_outside
from choreo.pose.face import Faces
from choreo.samplers.euler import denoised_from_v
from choreo.training.encoding import encode_frames, encode_reference
from choreo.training.regions import mask_shares, region_weights
from choreo.training.sigmas import InterpolatedCosine, stratified
from choreo.training.stableanimator import RECIPE, IdentityUNet, choose_trained
from choreo.training.step import Draws, denoising_loss, noisy_clips, posterior_sample

from .cases import Case
from .networks import network
from .registry import runner


def _levels(config: dict) -> InterpolatedCosine:
    return InterpolatedCosine(
        least=config["min_value"],
        most=config["max_value"],
        side=config["image_d"],
        low=config["noise_d_low"],
        high=config["noise_d_high"],
        data=config["sigma_data"],
    )


@runner("stableanimator/train_sigma")
def train_sigma(case: Case) -> dict:
    levels, batch = _levels(case.config), case.tensors["u_batch"]
    return {
        "sigma_batch": levels.sigma(stratified(batch, torch.arange(len(batch)), len(batch))),
        "sigma_single": levels.sigma(case.tensors["u_single"]),
    }


@runner("stableanimator/train_loss")
@torch.enable_grad()
def train_loss(case: Case) -> dict:
    config, tensors = case.config, case.tensors
    recipe = replace(
        RECIPE,
        levels=_levels(config),
        dropout=config["conditioning_dropout_prob"],
        noise_aug=config["train_noise_aug"],
        fps=config["fps_id"] + 1,
        motion_bucket_id=config["motion_bucket_id"],
    )
    module = IdentityUNet(*(network(case, name) for name in ("id_unet", "pose_net", "face_encoder")))
    choose_trained(module)
    vae, embeds = network(case, "vae"), _embeds(case)
    frames, identity = tensors["pixel_values"], tensors["id_embeds"][:, None]
    batch, length = frames.shape[:2]
    clips = noisy_clips(
        encode_frames(vae, frames.flatten(0, 1)).unflatten(0, (batch, length)),
        _reference_latents(case, vae, recipe.noise_aug),
        embeds,
        Draws(
            tensors["vae_noise_frames"].unflatten(0, (batch, length)),
            tensors["noise"],
            stratified(tensors["u_sigma"], torch.arange(batch), batch),
            tensors["random_p"],
        ),
        noise_aug=torch.full((batch,), recipe.noise_aug),
        recipe=recipe,
        scaling=vae.config.scaling_factor,
    )
    poses = _levels_of_255(tensors["pose_pixels"])
    v = module(**clips.inputs(), pose_pictures=poses, picture=embeds, identity=identity)
    masks = tensors["face_masks"].flatten(0, 2)
    shares = mask_shares(masks, clips.latents.shape[-2:], nearest=True).unflatten(0, (batch, length))
    loss = denoising_loss(v, clips, region_weights(shares, recipe.region_weight)).mean()
    loss.backward()
    context = module.context(clips.image_embeds, clips.pose_share, embeds, identity)
    return {
        "loss": loss.detach(),
        "latents": clips.latents,
        "sigmas": clips.sigma.flatten(),
        "timesteps": clips.timestep,
        "added_time_ids": clips.time_ids,
        "unet_input": clips.sample,
        "encoder_hidden_states": context.detach(),
        "model_pred": v.detach(),
        "denoised": denoised_from_v(clips.noisy, v, clips.sigma).detach(),
        **_gradients(module, config["grad_norm_keys"]),
    }


def _levels_of_255(pixels: torch.Tensor) -> torch.Tensor:
    """Pixels (..., 3, H, W) in [-1, 1] as (..., H, W, 3) of 0 to 255, without rounding."""
    return ((pixels + 1) * 127.5).movedim(-3, -1)


def _embeds(case: Case) -> torch.Tensor:
    """(B, 1, D) of the references without noise."""
    tower = network(case, "image_encoder")
    return torch.stack([encode_reference(tower, each) for each in _levels_of_255(case.tensors["reference_image"])])


def _reference_latents(case: Case, vae: torch.nn.Module, strength: float) -> torch.Tensor:
    """(B, 4, h, w): a sample of the posterior, where the package takes its mode."""
    pixels = case.tensors["reference_image"] + strength * case.tensors["reference_noise"]
    return posterior_sample(encode_frames(vae, pixels), case.tensors["vae_noise_reference"])


def _gradients(module: IdentityUNet, names: list[str]) -> dict:
    gradients = {name: parameter.grad for name, parameter in module.named_parameters() if parameter.requires_grad}
    norms = [-1.0 if gradients[name] is None else gradients[name].norm() for name in names]
    middle = module.unet.mid_block.attentions[0].transformer_blocks[0].attn2.processor
    return {
        "grad_norms": torch.tensor(norms),
        "grad.unet.mid_id_to_k": middle.id_to_k.weight.grad,
        "grad.pose_net.final_proj.weight": gradients["pose_net.final_proj.weight"],
        "grad.face_encoder.proj_in": gradients["face_encoder.fusion_model.proj_in.weight"],
    }


@runner("stableanimator/dataset_item")
def dataset_item(case: Case) -> dict:
    config, arrays = case.config, case.arrays
    length, start = (int(arrays[name]) for name in ("video_length", "start_idx"))
    frames, rate = config["n_sample_frames"], config["sample_frame_rate"]
    size = (config["height"], config["width"])
    numbers = np.array(clip_positions(length, frames, rate, start))
    outside = frames_outside(np.arange(length), numbers)
    stored = {int(number): row for row, number in enumerate(arrays["frame_ids"])}
    clip, reference = [stored[number] for number in numbers.tolist()], stored[outside[arrays["reference_choice"]]]
    framing = Framing.of(arrays["images"].shape[1:3], size, "stretch", "bicubic")
    pictures, poses = (torch.from_numpy(framing.pictures(arrays[name])).movedim(-1, 1) for name in ("images", "poses"))
    masks = torch.from_numpy(framing.pictures(arrays["masks"]))[:, None]
    boxes = np.array([[2, 2, 8, 8], [4, 4, 28, 30]], np.float32)  # the smaller face first
    faces = Faces(boxes, np.ones(2, np.float32), np.zeros((2, 5, 2), np.float32))
    return {
        "randint_range": np.array([0, length - clip_length(length, frames, rate)]),
        "available_reference": outside,
        "pixel_values": to_signed(pictures[clip]),
        "pose_pixels": to_signed(poses[clip]),
        "reference_image": to_signed(pictures[reference]),
        "tgt_face_masks": masks[clip] / 255,
        "face_detector_input": cv2.resize(arrays["images"][reference], size[::-1])[..., ::-1],
        "id_first_value": np.float32((1.0, 2.0)[faces.largest()]),
    }
