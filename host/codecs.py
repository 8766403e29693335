"""VAE and CLIP_VISION of the host: the published way in, and a decoder whose result does not follow free memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import comfy.model_management as mm
import numpy as np
import torch
from comfy.ldm.modules.temporal_ae import VideoDecoder

from ..conditioning.clip_image import CLIP_SIZE, ClipMethod, clip_pixels
from ..runtime import current, with_smaller_batches
from ..samplers.decode import DECODE_CHUNK, to_unit
from ..samplers.tiles import cross_faded, decode_tiled, pieces_of_time

SCALE = 8  # pixels per latent
LATENT_CHANNELS = 4


def embed_picture(clip_vision: Any, picture: np.ndarray, method: ClipMethod, width: int) -> torch.Tensor:
    """CLIP embedding (1, 1, width) float32 on the CPU, of a uint8 (H, W, 3) picture with Choreo's preprocessing.

    width: of the embedding the network needs; ValueError when the CLIP_VISION gives another.
    """
    size = getattr(clip_vision, "image_size", CLIP_SIZE)
    pixels = clip_pixels(picture, method, size)
    mm.load_model_gpu(clip_vision.patcher)
    embeds = clip_vision.model(pixel_values=pixels.to(clip_vision.load_device), intermediate_output=-2)[2]
    if embeds.shape != (1, width):
        raise ValueError(
            f"This CLIP_VISION gives embeddings of the shape {tuple(embeds.shape)}, the MODEL needs (1, {width}): "
            "take the CLIP_VISION that belongs to the same Stable Video Diffusion (ViT-H/14 at full size)."
        )
    return _finite(embeds.float().cpu(), "the CLIP embedding of the picture")[:, None]


def encode_picture(vae: Any, pixels: torch.Tensor, video: bool = True) -> torch.Tensor:
    """Mode of the VAE's posterior, (1, 4, h, w) float32 on the CPU, not scaled; pixels (1, 3, H, W) in [-1, 1].

    video: the VAE must be SVD's, not any of Stable Diffusion 1.5.
    """
    check_vae(vae, video)
    latents = vae.encode((pixels.movedim(1, -1) + 1) / 2).float().cpu()
    wanted = (1, LATENT_CHANNELS, pixels.shape[-2] // SCALE, pixels.shape[-1] // SCALE)
    if latents.shape != wanted:
        raise ValueError(
            f"This VAE makes latents of the shape {tuple(latents.shape)}, {wanted} are needed; use the VAE that "
            "belongs to the MODEL."
        )
    return _finite(latents, "the VAE latents of the picture")


def check_vae(vae: Any, video: bool = True) -> None:
    """Raise ValueError for a VAE of another size than Stable Diffusion's, and for one that is not SVD's for videos.

    Others of Stable Diffusion's size have no temporal decoder.
    """
    vae.throw_exception_if_invalid()
    if (vae.latent_channels, vae.downscale_ratio) != (LATENT_CHANNELS, SCALE):
        title, short = ("Stable Video Diffusion", "SVD") if video else 2 * ("Stable Diffusion 1.5",)
        raise ValueError(
            f"This VAE has {vae.latent_channels} latent channels, {title}'s has {LATENT_CHANNELS}; "
            f"use the VAE of {short}."
        )
    if video and not isinstance(getattr(vae.first_stage_model, "decoder", None), VideoDecoder):
        raise ValueError("This VAE is for single pictures, it cannot decode video; use the VAE of SVD.")


@dataclass(frozen=True)
class Pieces:
    """What is decoded at once; every value is part of the result, which never follows free memory.

    chunk:        frames decoded together.
    overlap:      frames that neighbouring chunks share and fade over.
    tile:         side of picture tiles in pixels, 0 for whole pictures; a tile has all frames of its chunk.
    tile_overlap: pixels that neighbouring tiles share and fade over.
    """

    chunk: int = DECODE_CHUNK
    overlap: int = 0
    tile: int = 0
    tile_overlap: int = 64


def decode_chunks(vae: Any, latents: torch.Tensor, pieces: Pieces, skip: int = 0) -> Iterator[torch.Tensor]:
    """Frames (n, H, W, 3) float32 in [0, 1] on the CPU, some at a time, as the core's decoder gives them.

    latents: (frames, 4, h, w), not scaled. skip: leave out this many frames at the start after decoding.
    The VAE is the host's, loaded and unloaded by it.
    """
    check_vae(vae)
    times = pieces_of_time(len(latents), pieces.chunk, pieces.overlap)
    sides = [min(side, pieces.tile // SCALE or side) for side in latents.shape[-2:]]
    needed = vae.memory_used_decode((1, LATENT_CHANNELS, *sides), vae.vae_dtype) * min(pieces.chunk, len(latents))
    mm.load_models_gpu([vae.patcher], memory_required=needed)

    def decoded() -> Iterator[torch.Tensor]:
        for time in times:
            frames = to_unit(_decode(vae, latents[time], pieces, time.start)).movedim(1, -1)
            current().show(partial(_shown, frames[-1]))
            yield frames
            current().progress("decoding", time.stop, len(latents))

    done = 0
    for frames in cross_faded(decoded(), pieces.overlap):
        yield frames[max(skip - done, 0) :]
        done += len(frames)


def _shown(frame: torch.Tensor) -> np.ndarray:
    return frame.mul(255).byte().numpy()


def _decode(vae: Any, latents: torch.Tensor, pieces: Pieces, start: int) -> torch.Tensor:
    def decode(part: torch.Tensor) -> torch.Tensor:
        current().check_cancelled()
        return vae.first_stage_model.decode(part.to(vae.device, vae.vae_dtype)).float().cpu()

    def run(_frames: int) -> torch.Tensor:
        if not pieces.tile:
            return decode(latents)
        return decode_tiled(decode, latents, pieces.tile // SCALE, pieces.tile_overlap // SCALE, SCALE)

    frames = with_smaller_batches(run, [len(latents)], f"decoding {len(latents)} frames at once")
    return _finite(frames, f"the decoded frames {start} to {start + len(latents) - 1}")


def _finite(values: torch.Tensor, what: str) -> torch.Tensor:
    if not torch.isfinite(values).all():
        raise FloatingPointError(
            f"NaN or infinity in {what}: start ComfyUI with --fp32-vae (for the VAE) or check the weights."
        )
    return values
