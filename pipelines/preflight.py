"""How much memory a job will need, before it takes minutes to find out.

Weights, pose features and latents are counted. Activations are estimated from what the code allocates: every tensor
that lives at the same time in one call, counted on the meta device at full size, is in units of frames x pixels x
channels of the first level (16 to 72 frames of 576x1024 in float16: within 3 %)

    UNet: the larger of 14 and 9 + 12 pieces, a piece being the share of the tokens that go through feed-forward
    layers together; VAE decoder: 7; its gradient for the face optimisation: 16, of which 4 may wait in main memory.

MARGIN allows for what that does not see: workspaces of the libraries and gaps between blocks. Counted in the same way,
the published program needs 16.0 GB for windows of 72 frames, 7.1 GB for 16, and 14.2 GB to decode; its users report
16, 8 and 16 GB. Attention is taken to need no memory of its own, as with the fused kernels of CUDA and the CPU.
"""

from __future__ import annotations

import logging
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..model_loaders.svd import SVDParts
from ..networks.attention import CPU_PIECE, GPU_PIECE
from ..runtime import current
from ..samplers.face_optimisation import FaceOptimisation

log = logging.getLogger(__name__)

UNET_UNITS, FEED_FORWARD_UNITS, PIECE_UNITS = 14, 9, 12
DECODER_UNITS = 7
FACE_UNITS, FACE_UNITS_OFFLOADED = 16, 12
MARGIN = 1.15
LATENT_COPIES = 8  # latents, sums of two passes, their mean and the temporaries of a step, float32
MEMINFO = Path("/proc/meminfo")


@dataclass(frozen=True)
class Estimate:
    """Bytes that a job needs.

    sampling_bytes: on the device while sampling: the UNet, one call of it, and the pose features of a window.
    decoding_bytes: on the device while decoding: the VAE and one chunk of frames.
    host_bytes:     in main memory: latents and pose features of the clip, and the networks that wait.
    """

    sampling_bytes: int
    decoding_bytes: int
    host_bytes: int

    @property
    def device_bytes(self) -> int:
        """The most that is on the device at once; CLIP tower, PoseNet and the VAE's encoder need less."""
        return max(self.sampling_bytes, self.decoding_bytes)


@dataclass(frozen=True)
class Check:
    """What to tell the user; fits is None where nothing tells how much memory is free."""

    sentence: str
    fits: bool | None


def estimate(
    networks: Any,
    parts: SVDParts,
    *,
    size: tuple[int, int],
    num_frames: int,
    window: int,
    chunk: int,
    dtype: torch.dtype,
    piece: int = GPU_PIECE,
) -> Estimate:
    """Memory for a clip of num_frames (a reference frame counted) of size (height, width) pixels.

    networks: a system's own (`unet`, `window` and others); they may be on the meta device. The two passes of guidance
    count as one after the other, the form in which the sampler runs them when
    memory is short. piece: tokens that go through a feed-forward layer together.
    """
    height, width = size
    factor = 2 ** (len(parts.vae.config.block_out_channels) - 1)
    latent_pixels = (height // factor) * (width // factor)
    channels = networks.unet.config.block_out_channels[0]
    features = latent_pixels * channels * dtype.itemsize  # of one frame, also one unit of the UNet's activations
    frames = min(window, num_frames)
    shared = min(1.0, piece / (frames * latent_pixels))
    units = max(UNET_UNITS, FEED_FORWARD_UNITS + PIECE_UNITS * shared)
    decoded = height * width * parts.vae.config.block_out_channels[0] * dtype.itemsize
    waiting = [module for module in _modules(networks, parts) if module is not networks.unet]
    return Estimate(
        sampling_bytes=_weights([networks.unet], dtype) + int(frames * features * (units * MARGIN + 1)),
        decoding_bytes=_weights([parts.vae], dtype) + int(min(chunk, num_frames) * decoded * DECODER_UNITS * MARGIN),
        host_bytes=_weights(waiting, dtype) + num_frames * (features + latent_pixels * 4 * 4 * LATENT_COPIES),
    )


def largest_window(
    networks: Any,
    parts: SVDParts,
    *,
    size: tuple[int, int],
    num_frames: int,
    chunk: int,
    dtype: torch.dtype,
    free_bytes: int,
    piece: int = GPU_PIECE,
) -> int:
    """The largest window, up to the whole clip, with which a job fits into the free bytes of the device; 0 for none.

    The arguments are those of :func:`estimate`.
    """

    def needed(window: int) -> int:
        need = estimate(
            networks,
            parts,
            size=size,
            num_frames=num_frames,
            window=window,
            chunk=chunk,
            dtype=dtype,
            piece=piece,
        )
        return need.device_bytes

    choices = range(2, num_frames + 1)
    fitting = bisect_left(choices, True, key=lambda window: needed(window) > free_bytes)
    return choices[fitting - 1] if fitting else 0


def check(
    networks: Any,
    parts: SVDParts,
    *,
    size: tuple[int, int],
    num_frames: int,
    window: int | None,
    chunk: int,
) -> Check:
    """Compare a job with what is free on the runtime's device and in main memory.

    networks, parts: loaded, on the CPU. window: None is the one of the weights.
    """
    runtime = current()
    on_cpu = runtime.device.type == "cpu"
    clip = {"size": size, "num_frames": num_frames, "chunk": chunk, "dtype": runtime.dtype}
    clip["piece"] = CPU_PIECE if on_cpu else GPU_PIECE
    need = estimate(networks, parts, window=window or networks.window, **clip)
    main = free_memory(torch.device("cpu"))
    if main is not None:  # what the networks hold already is theirs to use
        main += sum(weight.nbytes for module in _modules(networks, parts) for weight in module.parameters())
    free = free_memory(runtime.device)
    if on_cpu:
        free = None if main is None else max(main - need.host_bytes, 0)
    sentence = (
        f"Sampling needs about {_gb(need.sampling_bytes)} on {runtime.device}, decoding {_gb(need.decoding_bytes)}"
    )
    if free is None:
        return Check(f"{sentence}.", None)
    fits = need.device_bytes <= free
    largest = largest_window(networks, parts, free_bytes=free, **clip)
    sentence += f"; {_gb(free)} {'is' if fits else 'is all that is'} free. {_advice(need, fits, free, largest)}"
    if not on_cpu and main is not None and need.host_bytes > main:
        fits = False
        sentence += f" The clip needs {_gb(need.host_bytes)} of main memory, where {_gb(main)} is free: shorten it."
    return Check(sentence, fits)


def face_bytes(
    decoder: nn.Module, recogniser: nn.Module, settings: FaceOptimisation, size: tuple[int, int], num_frames: int
) -> int:
    """Bytes that the face optimisation needs on the device: its networks, and the gradient of one chunk.

    decoder: of the VAE; recogniser: ArcFace; both may be on the meta device. size: (height, width) in pixels. The UNet
    waits elsewhere meanwhile.
    """
    dtype = getattr(torch, settings.dtype)
    channels = decoder.conv_norm_out.num_channels
    units = FACE_UNITS_OFFLOADED if settings.offload else FACE_UNITS
    frame = size[0] * size[1] * channels * dtype.itemsize
    networks = _weights([decoder], dtype) + _weights([recogniser], torch.float32)
    return networks + int(min(settings.chunk, num_frames) * frame * units * MARGIN)


def check_faces(
    decoder: nn.Module, recogniser: nn.Module, settings: FaceOptimisation, size: tuple[int, int], num_frames: int
) -> Check:
    """Compare the face optimisation with what is free on the runtime's device, and say what would fit if it does not.

    The arguments are those of :func:`face_bytes`.
    """
    device = current().device
    needed = partial(face_bytes, decoder, recogniser, size=size, num_frames=num_frames)
    sentence = (
        f"Face optimisation needs about {_gb(needed(settings))} on {device} for chunks of {settings.chunk} frames in "
        f"{settings.dtype}"
    )
    free = free_memory(device)
    if free is None or needed(settings) <= free:
        return Check(f"{sentence}{'' if free is None else f'; {_gb(free)} is free'}.", None if free is None else True)
    chunks = [{"chunk": chunk} for chunk in range(settings.chunk - 1, 0, -1)]
    for change in ({"offload": True}, {"dtype": "bfloat16"}, {"dtype": "bfloat16", "offload": True}, *chunks):
        if needed(replace(settings, **change)) <= free:
            words = " ".join(
                f"--face-{name}" + ("" if value is True else f" {value}") for name, value in change.items()
            )
            advice = f"With {words} it needs {_gb(needed(replace(settings, **change)))}."
            break
    else:
        advice = "Choose a smaller size."
    return Check(f"{sentence}; {_gb(free)} is all that is free. Memory may run out. {advice}", False)


def report(checked: Check) -> None:
    """Log what a check says, as a warning when the job does not fit; never an error, as an estimate may be wrong."""
    log.log(logging.WARNING if checked.fits is False else logging.INFO, checked.sentence)


def _advice(need: Estimate, fits: bool, free: int, largest: int) -> str:
    if fits:
        return f"The largest window that fits is {largest} frames."
    if largest:
        return f"Memory may run out: the largest window that fits is {largest} frames (--window {largest})."
    if need.decoding_bytes > free:
        return "Memory may run out: choose a smaller --decode-chunk or a smaller size."
    return "Memory may run out with any window: choose a smaller size."


def free_memory(device: torch.device) -> int | None:
    """Bytes free on a CUDA device or, on Linux, in main memory; None where nothing tells."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    if device.type == "cpu" and MEMINFO.is_file():
        lines = (line.split() for line in MEMINFO.read_text(encoding="ascii").splitlines())
        return next((int(words[1]) * 1024 for words in lines if words[0] == "MemAvailable:"), None)
    return None


def _modules(*holders: Any) -> list[nn.Module]:
    return [value for holder in holders for value in vars(holder).values() if isinstance(value, nn.Module)]


def _weights(modules: Sequence[nn.Module], dtype: torch.dtype) -> int:
    return sum(weight.numel() for module in modules for weight in module.parameters()) * dtype.itemsize


def _gb(number: int) -> str:
    return f"{number / 1e9:.1f} GB"
