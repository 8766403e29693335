"""Memory and time of the face optimisation: the published gradient against ours, measured in small, counted in full."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from choreo.model_loaders.assemble import skeleton
from choreo.networks.arcface import GLINTR100, IResNet
from choreo.networks.video_vae import SVD_VAE, build_video_vae
from choreo.runtime import Runtime, use
from choreo.samplers.face_optimisation import FaceTarget, chunk_gradient, face_gradient

from .live_bytes import LiveBytes
from .peak_memory import peak_memory
from .published_face_optimisation import published_gradient
from .stopwatch import Stopwatch

MIDDLE_VAE = SVD_VAE | {"block_out_channels": (64, 128, 128, 128)}
MIDDLE_ARCFACE = {"layers": (2, 2, 2, 2), "widths": (16, 32, 64, 128), "stem": 16, "embedding": 128}
FRAMES, CHUNK = 8, 4
GIB = 2**30


def run() -> dict[str, float]:
    """Peak memory of both gradients of 8 frames of 64x64 by a smaller decoder, and of 16 of 512x512 by the real one.

    The first is measured on the runtime's device, the second counted on the meta device: bytes of all tensors alive
    at once, without workspaces of convolutions.
    """
    return _measured() | _counted()


def _measured() -> dict[str, float]:
    torch.manual_seed(0)
    vae, recogniser = build_video_vae(MIDDLE_VAE), IResNet(**MIDDLE_ARCFACE)
    with use(Runtime(dtype=torch.float32)) as runtime, runtime.on_device(vae, recogniser):
        for network in (vae, recogniser):
            network.eval().requires_grad_(False)
        latents = torch.randn(FRAMES, 4, 8, 8) * 0.18
        boxes, reference = [(20, 15, 45, 50)] * FRAMES, torch.randn(1, 128)
        target, factor = FaceTarget(boxes, reference), vae.config.scaling_factor
        on_device = latents.to(runtime.device), boxes, reference.to(runtime.device)
        ways = {
            "published": lambda: published_gradient(vae, recogniser, *on_device, CHUNK)[1],
            "ours": lambda: (
                face_gradient(vae.decoder, recogniser, latents, target, scaling_factor=factor, chunk=CHUNK).gradient
            ),
        }
        results, gradients, watch = {}, {}, Stopwatch()
        for name, gradient in ways.items():
            gradients[name] = gradient().float().cpu()  # to warm up
            with peak_memory(runtime.device) as peak, watch(name):
                gradient()
            results[f"{name}_seconds"] = watch.seconds[name]
            results[f"{name}_peak_mb"] = peak.megabytes
    off = (gradients["ours"] - gradients["published"]).abs().max() / gradients["published"].abs().max()
    return results | {
        "memory_ratio": results["published_peak_mb"] / results["ours_peak_mb"],
        "time_ratio": results["published_seconds"] / results["ours_seconds"],
        "gradient_relative_difference": off.item(),
    }


def _counted() -> dict[str, float]:
    results = {}
    for name, dtype, frames, size in (
        ("512x512", torch.float32, 16, (64, 64)),
        ("512x512_bfloat16", torch.bfloat16, 16, (64, 64)),
        ("576x1024", torch.float32, 16, (128, 72)),
    ):
        weights, lean = count_ours(size, dtype)
        results |= {f"{name}_ours_gib": lean, f"{name}_ours_offload_gib": count_ours(size, dtype, offload=True)[1]}
        results |= {f"{name}_decoder_and_arcface_gib": weights}
        results |= {f"{name}_published_{frames}_frames_gib": count_published(frames, size, dtype)}
    return results


def full_size(dtype: torch.dtype) -> tuple[torch.nn.Module, torch.nn.Module]:
    """SVD's VAE in this dtype, and ArcFace r100, without memory."""
    vae, recogniser = skeleton(build_video_vae), skeleton(lambda: IResNet(**GLINTR100))
    torch.nn.Module.to(vae, "meta", dtype)
    return vae.eval().requires_grad_(False), recogniser.to("meta").eval().requires_grad_(False)


def count_ours(
    size: tuple[int, int], dtype: torch.dtype, chunk: int = CHUNK, *, offload: bool = False
) -> tuple[float, float]:
    """GiB of weights, and at the peak of a chunk of latents of this size; the second is above the first."""
    vae, recogniser = full_size(dtype)
    z = torch.zeros(chunk, 4, *size, device="meta", dtype=dtype)
    boxes, reference = [(100, 100, 249, 289)] * chunk, torch.zeros(1, 512, device="meta")
    with LiveBytes(vae, recogniser) as live, _elsewhere(offload):
        chunk_gradient(vae.decoder, recogniser, z, boxes, reference)
    weights = sum(part.nbytes for network in (vae.decoder, recogniser) for part in network.parameters())
    return weights / GIB, live.peak / GIB


def _elsewhere(offload: bool) -> AbstractContextManager:
    """With offload, what autograd keeps is not counted, as if it were in main memory."""
    if not offload:
        return nullcontext()
    return torch.autograd.graph.saved_tensors_hooks(
        lambda kept: (kept.shape, kept.dtype), lambda kept: torch.zeros(kept[0], dtype=kept[1], device="meta")
    )


def count_published(frames: int, size: tuple[int, int], dtype: torch.dtype) -> float:
    """GiB at the peak of the published gradient, weights apart."""
    vae, recogniser = full_size(dtype)
    latents, boxes = torch.zeros(frames, 4, *size, device="meta", dtype=dtype), [(100, 100, 249, 289)] * frames
    with LiveBytes(vae, recogniser) as live:
        published_gradient(vae, recogniser.to(dtype), latents, boxes, torch.zeros(1, 512, device="meta", dtype=dtype))
    return live.peak / GIB
