"""MimicMotion's preprocessing, schedules, windows, loop and whole pipeline, and those of its ComfyUI wrapper."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cache
from types import SimpleNamespace

import numpy as np
import torch
from choreo.conditioning.clip_image import clip_pixels, embed_picture, resize_with_antialiasing
from choreo.conditioning.mimicmotion import condition
from choreo.conditioning.picture import (
    centre_square,
    cover_crop,
    cover_size,
    to_signed,
    truncating_round_trip,
    video_size,
)
from choreo.conditioning.svd import Noise, SVDConditioning, added_time_ids
from choreo.pipelines.mimicmotion import Settings, animate
from choreo.quirks import WRAPPER, Quirks
from choreo.runtime import Runtime, use
from choreo.samplers.animate_lcm import lcm_step
from choreo.samplers.decode import decode_frames, to_uint8, to_unit
from choreo.samplers.euler import denoised_from_v, euler_step
from choreo.samplers.guidance import guidance_ramp, guide
from choreo.samplers.sigmas import ays_sigmas, initial_scale, karras_sigmas, lcm_sigmas, timesteps
from choreo.samplers.svd import sample_svd
from choreo.samplers.windows import LatentFusion, window_weights, windows

from .cases import Case
from .networks import network
from .registry import runner

TRUNCATED = Quirks(truncated_frames=True)


def _numbered(case: Case, prefix: str) -> Iterator[tuple[int, torch.Tensor]]:
    """in.<prefix>_0, in.<prefix>_1, ..."""
    number = 0
    while f"{prefix}_{number}" in case.tensors:
        yield number, case.tensors[f"{prefix}_{number}"]
        number += 1


def recorded_noise(*tensors: torch.Tensor) -> Noise:
    """The recorded noise in the order in which it is asked for, each time of the shape that is asked for."""
    remaining = iter(tensors)

    def noise(*shape: int) -> torch.Tensor:
        values = next(remaining)
        assert tuple(values.shape) == shape, f"noise of shape {shape} asked for, {tuple(values.shape)} recorded"
        return values

    return noise


# --- pictures -------------------------------------------------------------------------------------------------------


@runner("mimicmotion/preprocess_image")
def preprocess_image(case: Case) -> dict:
    aspect, values = case.config["aspect_ratio"], torch.arange(256, dtype=torch.uint8)
    table = case.arrays["in_out.geometry"].copy()
    for row in table:
        height, width, resolution = row[:3].tolist()
        target = video_size(height, width, resolution, aspect)
        row[3:] = *target, *cover_size(height, width, target)
    outputs = {"in_out.geometry": table}
    for name, dtype in (("fp16", torch.float16), ("fp32", torch.float32)):
        outputs[f"norm_lut_{name}"] = to_signed(values, dtype)
        outputs[f"roundtrip_lut_{name}"] = truncating_round_trip(values, dtype)
    for k, picture in _fitted(case, aspect).items():
        outputs[f"image_{k}"] = picture.transpose(2, 0, 1)
    return outputs


@runner("pose/mimicmotion_reference_preprocess")
def reference_preprocess(case: Case) -> dict:
    return {f"reference_u8_{k}": picture for k, picture in _fitted(case, case.config["aspect"]).items()}


def _fitted(case: Case, aspect: float) -> dict[int, np.ndarray]:
    fitted = {}
    for k, image in _numbered(case, "image"):
        target = video_size(*image.shape[:2], int(case.tensors[f"resolution_{k}"]), aspect)
        fitted[k] = cover_crop(image.numpy(), target)
    return fitted


@runner("pose/magicpose_crop512")
def magicpose_crop(case: Case) -> dict:
    outputs = {}
    for k, image in _numbered(case, "image"):
        square = centre_square(image.numpy(), case.config["size"]).astype(np.float32) / 255
        outputs[f"pose512_sub_{k}"] = square.transpose(2, 0, 1)[:, ::8, ::8]
    return outputs


@runner("mimicmotion/resize_with_antialiasing")
def antialiased_resize(case: Case) -> dict:
    return {
        f"y_{k}": resize_with_antialiasing(x.float(), tuple(case.tensors[f"size_{k}"].tolist()))
        for k, x in _numbered(case, "x")
    }


@runner("mimicmotion/clip_image_embed")
def clip_image_embed(case: Case) -> dict:
    pixels = clip_pixels(case.arrays["image"], "squash", case.config["image_size"])
    embeds = embed_picture(network(case, "image_encoder"), pixels)
    return {
        "pixel_values_sub7": pixels[:, :, ::7, ::7],
        "image_embeddings": torch.cat([torch.zeros_like(embeds), embeds]),
    }


@runner("mimicmotion/wrapper_clip_preprocess")
def wrapper_clip_preprocess(case: Case) -> dict:
    return {
        f"pixel_values_sub7_{k}": clip_pixels(image.numpy(), "centre crop")[:, :, ::7, ::7]
        for k, image in _numbered(case, "image")
    }


# --- conditioning and schedules -------------------------------------------------------------------------------------


@runner("mimicmotion/conditioning")
def conditioning_values(case: Case) -> dict:
    from diffusers.models.embeddings import Timesteps

    unit = to_unit(case.tensors["decoded_values"])
    outputs = {"unit_values": unit, "uint8_values": to_uint8(unit, TRUNCATED)}
    ids_projection = Timesteps(case.config["addition_time_embed_dim"], True, 0)
    time_projection = Timesteps(case.config["time_proj_channels"], True, 0)
    for k, (fps, bucket, strength) in ((k, row.tolist()) for k, row in _numbered(case, "fps_bucket_aug")):
        ids = added_time_ids(fps, bucket, strength)
        outputs[f"added_time_ids_{k}"] = ids.expand(2, -1)
        outputs[f"add_time_proj_{k}"] = ids_projection(ids.flatten()).reshape(1, -1)
    for k, t in _numbered(case, "t"):
        outputs[f"time_proj_{k}"] = time_projection(t[None])
    for k, (first, last, frames) in ((k, row.tolist()) for k, row in _numbered(case, "guidance")):
        outputs[f"guidance_{k}"] = guidance_ramp(first, last, int(frames))
    return outputs


@runner("mimicmotion/euler_schedule")
def euler_schedule(case: Case) -> dict:
    outputs = {}
    for steps in case.config["steps"]:
        sigmas = karras_sigmas(steps, case.config["sigma_min"], case.config["sigma_max"])
        outputs |= {f"sigmas_{steps}": sigmas, f"timesteps_{steps}": timesteps(sigmas)}
        outputs |= {f"timesteps_fp16_{steps}": timesteps(sigmas).half()}
        outputs |= {f"init_noise_sigma_{steps}": initial_scale(sigmas)}
    for k, (low, high) in ((k, row.tolist()) for k, row in _numbered(case, "range")):
        steps = len(case.expected[f"out.range_timesteps_{k}"])
        sigmas = karras_sigmas(steps, low, high)
        outputs |= {f"range_sigmas_{k}": sigmas, f"range_timesteps_{k}": timesteps(sigmas)}
    sigmas = karras_sigmas(case.config["step_n"], case.config["sigma_min"], case.config["sigma_max"])
    for name in ("fp16", "fp32"):
        x = case.tensors[f"step_x0_{name}"]
        for k, v in _numbered(case, f"step_v_{name}"):
            outputs[f"step_scaled_{name}_{k}"] = x / (sigmas[k] ** 2 + 1) ** 0.5
            x = euler_step(x, denoised_from_v(x, v, sigmas[k]), sigmas[k], sigmas[k + 1])
            outputs[f"step_x_{name}_{k}"] = x
    return outputs


@runner("mimicmotion/wrapper_ays")
def wrapper_ays(case: Case) -> dict:
    outputs = {}
    for steps in case.config["steps"]:
        sigmas = ays_sigmas(steps, above_zero=WRAPPER.ays_above_zero)
        outputs |= {f"sigmas_{steps}": sigmas, f"input_sigmas_{steps}": sigmas, f"timesteps_{steps}": timesteps(sigmas)}
        outputs |= {f"init_noise_sigma_{steps}": initial_scale(sigmas)}
    return outputs


@runner("mimicmotion/wrapper_animatelcm")
def wrapper_animatelcm(case: Case) -> dict:
    low, high = case.config["sigma_min"], case.config["sigma_max"]
    outputs = {}
    for steps in case.config["steps"]:
        sigmas = lcm_sigmas(steps, low, high)
        outputs |= {f"sigmas_{steps}": sigmas, f"timesteps_{steps}": timesteps(sigmas)}
    outputs["init_noise_sigma"] = initial_scale(sigmas)
    sigmas, x = lcm_sigmas(case.config["step_n"], low, high), case.tensors["step_x0"]
    for k, v in _numbered(case, "step_v"):
        outputs[f"step_scaled_{k}"] = x / (sigmas[k] ** 2 + 1) ** 0.5
        x = lcm_step(denoised_from_v(x, v, sigmas[k]), sigmas[k + 1], case.tensors[f"step_noise_{k}"])
        outputs[f"step_x_{k}"] = x
    return outputs


# --- windows and the loop -------------------------------------------------------------------------------------------


@runner("mimicmotion/tile_schedule")
def tile_schedule(case: Case) -> dict:
    outputs = {}
    for k, (frames, window, overlap) in enumerate(case.tensors["params"].tolist()):
        tiles = windows(frames, window, overlap)
        fusion = LatentFusion((1, frames, 1, 1, 1))
        for tile in tiles:
            fusion.add(0, tile, torch.zeros(len(tile), 1, 1, 1))
        outputs |= {f"tiles_{k}": np.array(tiles), f"weight_{k}": window_weights(len(tiles[0]))}
        outputs |= {f"weight_sum_{k}": fusion.weight[0]}
    return outputs


@runner("mimicmotion/latent_fusion")
def latent_fusion(case: Case) -> dict:
    outputs = {}
    for k, (frames, window, overlap) in enumerate(case.tensors["params"].tolist()):
        predictions = [case.tensors[f"tile_pred_{name}_{k}"] for name in ("uncond", "cond")]
        fusion = LatentFusion((2, frames, *predictions[0].shape[2:]))
        for number, tile in enumerate(windows(frames, window, overlap)):
            for row, prediction in enumerate(predictions):
                fusion.add(row, tile, prediction[number])
        ramp = guidance_ramp(*case.tensors[f"guidance_min_max_{k}"].tolist(), frames)
        outputs |= {f"fused_guided_{k}": guide(*fusion.mean(), ramp), f"guidance_{k}": ramp}
    return outputs


@runner("mimicmotion/sampling_loop_stub")
def sampling_loop_stub(case: Case) -> dict:
    config, tensors, outputs = case.config, case.tensors, {}

    def predict(sample, timestep, image_embeds, time_ids, pose_features):
        v = 0.5 * sample[:, :, :4] - 0.25 * sample[:, :, 4:] + 0.1 * timestep + tensors["P"]
        v = v + (0.2 * image_embeds.mean((1, 2)) + 0.01 * time_ids.mean(1)).view(-1, 1, 1, 1, 1)
        if pose_features is not None:
            v = v + pose_features.mean(1, keepdim=True).unflatten(0, sample.shape[:2])
        return v

    conditioning = SVDConditioning(
        tensors["image_embeddings"][1:],
        tensors["image_latents"][1:],
        added_time_ids(config["fps"], config["motion_bucket_id"], config["noise_aug_strength"]),
        torch.nn.functional.avg_pool2d(tensors["pose"], 8),
    )
    with use(Runtime("cpu", torch.float32)):
        sample_svd(
            predict,
            conditioning,
            recorded_noise(tensors["noise"]),
            sigmas=karras_sigmas(config["num_inference_steps"]),
            window=config["tile_size"],
            overlap=config["tile_overlap"],
            guidance=(config["min_guidance_scale"], config["max_guidance_scale"]),
            on_step=_keep_steps(outputs),
        )
    return outputs


def _keep_steps(outputs: dict):
    return lambda step, latents: outputs.update({f"latents_step{step}": latents[None]})


# --- whole pipelines ------------------------------------------------------------------------------------------------


@cache
def _networks(case: Case) -> tuple[SimpleNamespace, SimpleNamespace]:
    networks = SimpleNamespace(unet=network(case, "unet"), pose_net=network(case, "pose_net"), window=None)
    return networks, SimpleNamespace(vae=network(case, "vae"), image_encoder=network(case, "image_encoder"))


def _animate(case: Case, poses: Iterable[np.ndarray], settings: Settings) -> tuple[dict, list[np.ndarray]]:
    outputs: dict = {}
    noise = recorded_noise(case.tensors["image_noise"], case.tensors["latent_noise"])
    frames = animate(*_networks(case), case.arrays["image"], poses, settings, noise=noise, on_step=_keep_steps(outputs))
    return outputs, list(frames)


def _decoded(case: Case, outputs: dict, chunk: int) -> torch.Tensor:
    """All frames (N, H, W, 3) of the last recorded step, with frame 0."""
    last = outputs[max((name for name in outputs if name.startswith("latents_step")), key=lambda n: int(n[12:]))]
    return torch.stack(list(decode_frames(_networks(case)[1].vae, last[0], chunk)))


@runner("mimicmotion/pipeline")
def pipeline(case: Case) -> dict:
    config = case.config
    poses = list(case.arrays["pose"].transpose(0, 2, 3, 1))
    settings = Settings(
        steps=config["num_inference_steps"],
        guidance_first=config["min_guidance_scale"],
        guidance_last=config["max_guidance_scale"],
        window=config["tile_size"],
        overlap=config["tile_overlap"],
        fps_id=config["fps"],
        motion_bucket_id=config["motion_bucket_id"],
        noise_aug_strength=config["noise_aug_strength"],
        decode_chunk=config["decode_chunk_size"],
        quirks=TRUNCATED,
    )
    with use(Runtime("cpu", torch.float32)):
        outputs, frames = _animate(case, poses, settings)
        decoded = _decoded(case, outputs, settings.decode_chunk)
        conditioning = condition(
            *_networks(case),
            case.arrays["image"],
            poses,
            recorded_noise(case.tensors["image_noise"]),
            noise_aug_strength=settings.noise_aug_strength,
        )
    embeds, latents = conditioning.image_embeds, conditioning.image_latents
    return outputs | {
        "frames_uint8": np.stack(frames).transpose(0, 3, 1, 2),
        "frames_float_sub4": decoded.permute(0, 3, 1, 2)[:, :, ::4, ::4],
        "image_embeddings": torch.cat([torch.zeros_like(embeds), embeds]),
        "image_latents": torch.cat([torch.zeros_like(latents), latents]),
    }


@runner("mimicmotion/wrapper_pipeline")
def wrapper_pipeline(case: Case) -> dict:
    config = case.config
    settings = Settings(
        steps=config["steps"],
        schedule="ays" if config["align_your_steps"] else "karras",
        guidance_first=config["cfg_min"],
        guidance_last=config["cfg_max"],
        window=config["context_size"],
        overlap=config["context_overlap"],
        fps_id=config["fps"],
        noise_aug_strength=config["noise_aug_strength"],
        image_embed_strength=config["image_embed_strength"],
        clip_method="centre crop",
        pose_strength=config["pose_strength"],
        pose_start=config["pose_start_percent"],
        pose_end=config["pose_end_percent"],
        decode_chunk=config["decode_chunk_size"],
        quirks=WRAPPER,
    )
    with use(Runtime("cpu", torch.float32)):
        outputs, _frames = _animate(case, case.arrays["pose"], settings)
        decoded = _decoded(case, outputs, settings.decode_chunk)
    return outputs | {"images_sub4": decoded[1:, ::4, ::4]}
