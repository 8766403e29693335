"""Clips as the frozen networks of Stable Video Diffusion see them."""

from __future__ import annotations

import hashlib

import torch
from torch import nn

from ..conditioning.clip_image import clip_pixels, embed_picture
from ..conditioning.picture import to_signed
from ..quirks import CLEAN, Quirks
from .system import Rows

ENCODE_BATCH = 8


def encode_frames(vae: nn.Module, frames: torch.Tensor) -> torch.Tensor:
    """The VAE's posterior of frames in [-1, 1]: float32 (N, 8, h, w), mean and ln of the variance, unscaled."""
    weight = next(vae.parameters())
    posteriors = [vae.encode(part.to(weight)).latent_dist for part in frames.split(ENCODE_BATCH)]
    return torch.cat([torch.cat([each.mean, each.logvar], dim=1).float() for each in posteriors])


def encode_clip(
    vae: nn.Module,
    image_encoder: nn.Module,
    frames: torch.Tensor,
    reference: torch.Tensor,
    *,
    augmentation: torch.Tensor | float = 0.0,
    quirks: Quirks = CLEAN,
) -> Rows:
    """What the frozen networks give for a clip, float32 on their device.

    frames: uint8 (F, H, W, 3); reference: uint8 (1, H, W, 3); augmentation: noise on the reference, (1, 3, H, W).
    Returns moments (F, 8, h, w), image_latents (4, h, w) and image_embeds (1, D).
    """
    device = next(vae.parameters()).device
    if quirks.truncated_reference:
        reference = (reference.float() / 255 * 255).to(torch.uint8)
    with torch.no_grad():
        picture = to_signed(reference.permute(0, 3, 1, 2).to(device)) + augmentation
        image_latents = encode_frames(vae, picture)[0, :4]
        embeds = encode_reference(image_encoder, reference[0])
        moments = encode_frames(vae, to_signed(frames.permute(0, 3, 1, 2).to(device)))
    return {"moments": moments, "image_latents": image_latents, "image_embeds": embeds}


def encode_reference(image_encoder: nn.Module, reference: torch.Tensor) -> torch.Tensor:
    """(1, D) float32, the image tower's embedding of a picture (H, W, 3) of 0 to 255."""
    pixels = clip_pixels(reference.cpu().numpy(), size=image_encoder.config.image_size)
    return embed_picture(image_encoder, pixels)[0].float()


def digest(module: nn.Module) -> str:
    """A short name for a network's weights, from some values of every tensor."""
    state = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        flat = tensor.detach().flatten()
        some = flat[:: max(1, flat.numel() // 64)].float().cpu().numpy()
        state.update(f"{name}{tuple(tensor.shape)}".encode() + some.tobytes())
    return state.hexdigest()[:16]
