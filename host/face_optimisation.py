"""StableAnimator's face optimisation in stock samplers: what a step predicts is optimised before the sampler uses it.

The host runs nodes in inference mode, and nothing can be differentiated through tensors that are made there. So the
decoder and ArcFace are copies of their own, built outside of it, and taken out of it again whenever the host has moved
them. The host loads and unloads them like other models; a step makes room for them and fetches the UNet back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import comfy.model_base
import comfy.model_management as mm
import torch
from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import WrappersMP

from ..model_loaders.arcface import load_arcface
from ..model_loaders.assemble import skeleton
from ..model_loaders.svd_keys import vae_to_diffusers
from ..networks.video_vae import SVD_VAE, build_video_vae
from ..pipelines.preflight import face_bytes
from ..runtime import use
from ..samplers.face_optimisation import Box, FaceOptimisation, FaceOptimiser, FaceTarget, reference_embedding
from .castable import loaded_whole
from .codecs import SCALE, check_vae
from .fusion import step_of
from .progress import HostRuntime, tell

WRAPPER = "choreo_faces"
DECODER = "decoder."
UNUSED = "mid_block.attentions."  # of a decoder with one layer a block: diffusers builds it, and does not run it


@dataclass(frozen=True)
class Networks:
    """What the loss goes through, as modules outside of inference mode, each in a patcher of the host."""

    decoder: ModelPatcher
    recogniser: ModelPatcher


def networks_for_faces(vae: Any, arcface_path: Path, dtype: str) -> Networks:
    """The VAE's decoder in this dtype, and ArcFace from a torch file or an ONNX file.

    Raises ValueError for other VAEs than SVD's, and what :func:`.model_loaders.arcface.load_arcface` raises.
    """
    check_vae(vae)
    with torch.inference_mode(False):
        return Networks(
            loaded_whole(_decoder_of(vae, getattr(torch, dtype))), loaded_whole(load_arcface(arcface_path).float())
        )


def _decoder_of(vae: Any, dtype: torch.dtype) -> torch.nn.Module:
    """diffusers' decoder with copies of the weights of the host's VAE."""
    state = vae.first_stage_model.state_dict()
    weights = {
        name: tensor.to("cpu", dtype, copy=True)
        for name, tensor in vae_to_diffusers({n: t for n, t in state.items() if n.startswith(DECODER)}).items()
    }
    widths = [
        len(state[f"{DECODER}up.{level}.block.0.conv1.weight"])
        for level in range(sum(name.endswith(".block.0.conv1.weight") and ".up." in name for name in state))
    ]
    layers = sum(name.startswith(f"{DECODER}mid.block_") and name.endswith(".conv1.weight") for name in state)
    config = SVD_VAE | {"block_out_channels": tuple(widths), "layers_per_block": layers}
    decoder = skeleton(partial(build_video_vae, config)).decoder
    expected = decoder.state_dict()
    weights = {name.removeprefix(DECODER): tensor for name, tensor in weights.items()}
    weights |= {n: torch.zeros(t.shape, dtype=dtype) for n, t in expected.items() if n not in weights and UNUSED in n}
    decoder.load_state_dict(weights, assign=True)
    return decoder.eval().requires_grad_(False)


class _Loading(HostRuntime):
    """A runtime whose networks the host loads; quiet, as the sampler has the node's progress bar."""

    def __init__(self, networks: Networks, needed: int = 0) -> None:
        super().__init__()
        self.patchers = {id(patcher.model): patcher for patcher in (networks.decoder, networks.recogniser)}
        self.needed = needed

    @contextmanager
    def on_device(self, *modules: torch.nn.Module, dtype: torch.dtype | None = None) -> Iterator[None]:
        """The modules are loaded, and stay until the host wants their place; they have their dtypes already."""
        with torch.inference_mode():  # also what is unloaded for them stays what it was
            mm.load_models_gpu([self.patchers[id(module)] for module in modules], memory_required=self.needed)
        for module in modules:
            _leave_inference_mode(module)
        yield

    def progress(self, stage: str, done: int, total: int) -> None:
        """Nothing."""


def _leave_inference_mode(module: torch.nn.Module) -> None:
    """Replace tensors that the host has made while moving them; called outside of inference mode."""
    for layer in module.modules():
        for name, weight in list(layer.named_parameters(recurse=False)):
            if weight.is_inference():
                setattr(layer, name, torch.nn.Parameter(weight.detach().clone(), requires_grad=False))
        for name, buffer in list(layer.named_buffers(recurse=False)):
            if buffer.is_inference():
                setattr(layer, name, buffer.clone())


def reference_face(networks: Networks, picture: torch.Tensor, box: Box) -> torch.Tensor:
    """(1, D): :func:`.samplers.face_optimisation.reference_embedding` of a picture (3, H, W) in [-1, 1]."""
    with torch.inference_mode(False), use(_Loading(networks)):
        return reference_embedding(networks.recogniser.model, picture.clone(), box)


def optimise_faces(
    model: ModelPatcher, networks: Networks, target: FaceTarget, settings: FaceOptimisation, size: tuple[int, int]
) -> ModelPatcher:
    """A clone of a MODEL whose predictions are optimised, in every sampler that asks for them step by step.

    size: (height, width) of the video in pixels. Raises ValueError for models that are not made of SVD.
    """
    if not isinstance(model.model, comfy.model_base.SVD_img2vid):
        raise ValueError(
            "Face optimisation is for models made of Stable Video Diffusion; this MODEL is of another kind."
        )
    model = model.clone()
    model.remove_wrappers_with_key(WrappersMP.OUTER_SAMPLE, WRAPPER)
    sample = partial(_sample_with_faces, networks, target, settings, size)
    model.add_wrapper_with_key(WrappersMP.OUTER_SAMPLE, WRAPPER, sample)
    return model


def _sample_with_faces(  # noqa: PLR0917 - as the host calls it
    networks: Networks,
    target: FaceTarget,
    settings: FaceOptimisation,
    size: tuple[int, int],
    executor: Any,
    noise: torch.Tensor,
    latent_image: torch.Tensor,
    sampler: Any,
    sigmas: torch.Tensor,
    *args: Any,
    **kwargs: Any,
) -> torch.Tensor:
    if len(noise) != len(target.boxes):
        raise ValueError(
            f"The latents have {len(noise)} frames, the face masks of Face Optimisation {len(target.boxes)}: make the "
            "masks from the poses that the conditioning takes."
        )
    if tuple(SCALE * side for side in noise.shape[-2:]) != size:
        raise ValueError(
            f"The latents are for a video of {SCALE * noise.shape[-1]}x{SCALE * noise.shape[-2]}, the picture of Face "
            f"Optimisation is {size[1]}x{size[0]}: connect the picture that the conditioning takes."
        )
    guider = executor.class_obj
    with torch.inference_mode(False):
        vae = SimpleNamespace(
            decoder=networks.decoder.model, config=SimpleNamespace(scaling_factor=SVD_VAE["scaling_factor"])
        )
        _leave_inference_mode(networks.decoder.model)
        _leave_inference_mode(networks.recogniser.model)
        optimiser = FaceOptimiser(vae, networks.recogniser.model, target, settings=settings, steps=len(sigmas) - 1)
    needed = _checked_memory(networks, settings, size, len(noise))
    refine = partial(_refined, guider, optimiser, _Loading(networks, needed), sigmas)
    before = guider.model_options.get("sampler_post_cfg_function", [])
    guider.model_options["sampler_post_cfg_function"] = [*before, refine]
    samples = executor(noise, latent_image, sampler, sigmas, *args, **kwargs)
    tell(optimiser.report())
    return samples


def _checked_memory(networks: Networks, settings: FaceOptimisation, size: tuple[int, int], frames: int) -> int:
    """Bytes that a step needs; MemoryError with what would fit when the device has not that much at all."""
    needed = partial(face_bytes, networks.decoder.model, networks.recogniser.model, size=size, num_frames=frames)
    there = mm.get_total_memory(mm.get_torch_device())
    if needed(settings) > there:
        smaller = range(settings.chunk - 1, 0, -1)
        fits = next((chunk for chunk in smaller if needed(replace(settings, chunk=chunk)) <= there), 0)
        advice = f"a chunk of {fits}" if fits else "a smaller video"
        raise MemoryError(
            f"Face Optimisation needs {needed(settings) / 1e9:.2f} GB for a chunk of {settings.chunk} frames of "
            f"{size[1]}x{size[0]} in {settings.dtype}, the device has {there / 1e9:.2f}: choose {advice}, dtype "
            "bfloat16, or offload."
        )
    return needed(settings)


def _refined(
    guider: Any, optimiser: Callable[..., torch.Tensor], runtime: _Loading, sigmas: torch.Tensor, args: dict[str, Any]
) -> torch.Tensor:
    """A post-CFG function: x0 in, optimised x0 out; the UNet is where it was when this returns."""
    x0 = args["denoised"]
    step = step_of(args["sigma"].max(), sigmas)
    with use(runtime):
        refined = optimiser(x0, step)
    if refined is x0:
        return x0
    models = [guider.model_patcher, *guider.loaded_models]
    mm.load_models_gpu(models, memory_required=guider.model_patcher.memory_required(list(x0.shape)))
    return refined.to(x0)
