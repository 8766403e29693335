"""Latents -> frames, in chunks of a fixed size, streamed."""

from __future__ import annotations

from collections.abc import Iterator
from inspect import signature

import numpy as np
import torch
from torch import nn

from ..networks.finite import check_finite
from ..networks.speedups import faster
from ..quirks import CLEAN, Quirks
from ..runtime import current, with_smaller_batches

DECODE_CHUNK = 8


def decode_frames(
    vae: nn.Module, latents: torch.Tensor, chunk: int = DECODE_CHUNK, skip: int = 0
) -> Iterator[torch.Tensor]:
    """Frames (H, W, 3) float32 in [0, 1] on the CPU, one at a time; the VAE is on the device while this is consumed.

    latents: (frames, 4, h, w), multiplied by the VAE's scaling factor (0.18215).
    vae: a temporal one (SVD's) or one of single pictures (Stable Diffusion's).
    chunk: frames decoded together. The temporal decoder sees no further than its chunk, so the size is part of the
        result and never follows free memory; a VAE of pictures takes fewer when memory is short.
    skip: leave out this many frames at the start after decoding, as they still act on the rest of their chunk.
    """
    runtime = current()
    with runtime.on_device(vae), faster(vae):
        for start in range(0, len(latents), chunk):
            runtime.check_cancelled()
            frames = _decode_chunk(vae, latents[start : start + chunk], start)
            runtime.progress("decoding", start + len(frames), len(latents))
            yield from frames[max(skip - start, 0) :]


def _decode_chunk(vae: nn.Module, latents: torch.Tensor, start: int) -> torch.Tensor:
    weight = next(vae.parameters())
    z = (latents / vae.config.scaling_factor).to(weight.device, weight.dtype)

    is_temporal = "num_frames" in signature(vae.decode).parameters

    def decode(size: int) -> torch.Tensor:
        with torch.no_grad():
            if is_temporal:
                return vae.decode(z, num_frames=len(z)).sample.float().cpu()
            return torch.cat([vae.decode(part).sample.float().cpu() for part in z.split(size)])

    sizes = [len(z)] if is_temporal else sorted({len(z), 1}, reverse=True)
    frames = with_smaller_batches(decode, sizes, f"decoding {len(z)} frames at once")
    check_finite(frames, f"the decoded frames {start} to {start + len(z) - 1}")
    return to_unit(frames).permute(0, 2, 3, 1)


def to_unit(decoded: torch.Tensor) -> torch.Tensor:
    """The VAE's values, nominally in [-1, 1], to [0, 1], clamped."""
    return (decoded / 2 + 0.5).clamp(0, 1)


def to_uint8(frame: torch.Tensor, quirks: Quirks = CLEAN) -> np.ndarray:
    """A frame in [0, 1] as 8-bit values of the same shape, rounded (published: truncated)."""
    scaled = frame * 255
    return (scaled if quirks.truncated_frames else scaled.round()).to(torch.uint8).numpy()
