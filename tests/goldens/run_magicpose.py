"""MagicPose's networks, schedule, loop, pictures, and its whole pipeline behind the encoders."""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from choreo.conditioning.magicpose import MagicPoseConditioning, encode_poses, encode_reference, fit_picture, to_hint
from choreo.conditioning.picture import to_signed
from choreo.conditioning.text import encode_tokens
from choreo.model_loaders.assemble import without_prefix
from choreo.model_loaders.ldm_keys import controlnet_to_diffusers
from choreo.model_loaders.magicpose import POSE_PREFIX, appearance_weights
from choreo.model_loaders.motion_module import load_motion_module, module_weights
from choreo.model_loaders.sd15 import CONFIGS, Part, parts_of
from choreo.networks.appearance import compute_bank, reading, writing
from choreo.networks.motion_module import move
from choreo.networks.sd15_unet import encode_hint, pose_residuals, predict_noise
from choreo.pose.draw import Renderer
from choreo.pose.poses import BODY, FACE, LEFT_HAND, NUM_POINTS, RIGHT_HAND
from choreo.quirks import MAGICPOSE
from choreo.runtime import Runtime, use
from choreo.samplers.ddim import alphas_cumprod, betas, ddim_step, schedule
from choreo.samplers.decode import decode_frames, to_uint8, to_unit
from choreo.samplers.magicpose import ClipNoise, MagicPoseSampler

from .cases import Case
from .registry import runner

POSE_STYLE = "classic"
NOISES = ("ref_noise", "step_noise")  # which the published program draws anew for every frame

# --- networks ---------------------------------------------------------------------------------------------------------


def _configs(config: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The settings of a case as the configurations that diffusers and transformers save."""
    attending = [2**level in config["attn"] for level in range(len(config["mult"]))]
    groups = {"norm_num_groups": config["norm_groups"]}
    unet = {
        "down_block_types": ["CrossAttnDownBlock2D" if yes else "DownBlock2D" for yes in attending],
        "up_block_types": ["CrossAttnUpBlock2D" if yes else "UpBlock2D" for yes in reversed(attending)],
        "block_out_channels": [config["mc"] * factor for factor in config["mult"]],
        "layers_per_block": config["nrb"],
        "cross_attention_dim": config["ctx"],
        "attention_head_dim": config["heads"],
        **groups,
    }
    vae = {
        "block_out_channels": [config["vch"] * factor for factor in config["vmult"]],
        "layers_per_block": config["vnrb"],
        **groups,
    }
    clip = config.get("clip", {})
    names = {"layers": "num_hidden_layers", "heads": "num_attention_heads", "max_len": "max_position_embeddings"}
    return {"unet": unet, "vae": vae, "text_encoder": {names.get(name, name): value for name, value in clip.items()}}


def networks_of(case: Case) -> SimpleNamespace:
    """The networks whose weights the case has, through the loader's rules, float32."""
    weights, configs = case.weights(), _configs(case.config)
    parts = parts_of(weights, configs, case.path)
    unet = {**CONFIGS["unet"], **configs["unet"]}
    layers = unet["layers_per_block"]
    parts["appearance"] = Part(appearance_weights(weights, "magicpose", layers), unet, case.path)
    parts["controlnet"] = Part(controlnet_to_diffusers(without_prefix(weights, POSE_PREFIX), layers), unet, case.path)
    return SimpleNamespace(**{name: part.build(name) for name, part in parts.items() if part.weights})


def _hint(case: Case) -> torch.Tensor:
    return to_hint(_poses(case))


def _poses(case: Case) -> list[np.ndarray]:
    return list(case.arrays["hint_u8"].transpose(0, 2, 3, 1))


@runner("magicpose/attn_block")
def attention_block(case: Case) -> dict:
    from diffusers.models.transformers.transformer_2d import Transformer2DModel

    config, tensors = case.config, case.tensors
    block = Transformer2DModel(
        config["heads"],
        config["dim_head"],
        in_channels=config["channels"],
        cross_attention_dim=config["ctx"],
        norm_num_groups=config["norm_groups"],
    )
    block.load_state_dict(case.weights())

    def run(x: torch.Tensor) -> torch.Tensor:
        return block(x, encoder_hidden_states=tensors["context"], return_dict=False)[0]

    with torch.no_grad():
        with writing(block) as bank:
            written = run(tensors["x_ref"])
        plain = run(tensors["x"])
        with reading(block, bank):
            return {"bank": bank[0], "write": written, "read": run(tensors["x"]), "plain": plain}


@runner("magicpose/appearance_bank")
def appearance_bank(case: Case) -> dict:
    tensors = case.tensors
    bank = compute_bank(networks_of(case).appearance, tensors["ref_latent"], tensors["t"], tensors["context"])
    return {f"bank.{i}": entry for i, entry in enumerate(bank)}


@runner("magicpose/pose_controlnet")
def pose_controlnet(case: Case) -> dict:
    tensors, controlnet = case.tensors, networks_of(case).controlnet
    features = encode_hint(controlnet, _hint(case))
    down, middle = pose_residuals(controlnet, tensors["x"], tensors["t"], tensors["context"], features)
    return {str(i): residual for i, residual in enumerate([*down, middle])}


@runner("magicpose/unet_modes")
def unet_modes(case: Case) -> dict:
    tensors, networks = case.tensors, networks_of(case)
    inputs = tensors["x"], tensors["t"], tensors["context"]
    residuals = pose_residuals(networks.controlnet, *inputs, encode_hint(networks.controlnet, _hint(case)))
    bank = compute_bank(networks.appearance, tensors["ref_latent"], *inputs[1:])
    with reading(networks.unet, bank):
        full = predict_noise(networks.unet, *inputs, residuals)
        appearance = predict_noise(networks.unet, *inputs)
    plain = predict_noise(networks.unet, *inputs)
    return {"eps_full": full, "eps_appearance_only": appearance, "eps_plain": plain}


@runner("magicpose/motion_module")
def motion_module(case: Case) -> dict:
    config = case.config
    module = load_motion_module(module_weights(case.weights()), case.path, config["num_attention_heads"])
    return {"y": move(module, case.tensors["x"], config["video_length"])}


@runner("magicpose/text_encoder")
def text_encoder(case: Case) -> dict:
    return {"last_hidden_state": encode_tokens(networks_of(case).text_encoder, case.tensors["input_ids"])}


@runner("magicpose/vae")
def vae(case: Case) -> dict:
    network = networks_of(case).vae
    picture = case.arrays["image_u8"][0].transpose(1, 2, 0)
    with use(Runtime("cpu", torch.float32)):
        latent = encode_reference(network, picture, case.tensors["noise"])
    pixels = to_signed(case.tensors["image_u8"])
    moments = network.encode(pixels).latent_dist.parameters
    decoded = network.decode(latent / network.config.scaling_factor).sample
    return {"moments": moments, "latent": latent, "decoded": decoded}


# --- schedule and loop ------------------------------------------------------------------------------------------------


@runner("magicpose/ddim_schedule")
def ddim_schedule(case: Case) -> dict:
    places = case.tensors["alphas_index"]
    outputs = {"alphas_cumprod": alphas_cumprod()[places], "betas": torch.from_numpy(betas())[places]}
    for name in (name.removeprefix("out.") for name in case.expected if name.endswith(".timesteps")):
        run = name.removesuffix(".timesteps")
        steps = schedule(int(run[1:]), 1.0, MAGICPOSE)
        tables = {"timesteps": steps.timesteps, "alphas": steps.alphas, "alphas_prev": steps.alphas_prev}
        tables["sigmas_eta1"] = steps.sigmas
        outputs |= {f"{run}.{table}": values.flip(0) for table, values in tables.items()}
    return outputs


def _sampler(case: Case, networks: Any, mode: str, frame: int = 0) -> MagicPoseSampler:
    config, tensors = case.config, case.tensors
    conditioning = MagicPoseConditioning(tensors["ref_latent"], tensors["context"], tensors["uncond_context"])
    steps = schedule(config["steps"], config.get("eta", 0.0), MAGICPOSE)
    recorded = (tensors.get(f"{name}.f{frame}") for name in NOISES)
    noise = (None if values is None else values[:, 0] for values in recorded)
    clip_noise = ClipNoise(tensors.get("x_T", tensors.get("x")), *noise)
    return MagicPoseSampler(networks, conditioning, clip_noise, steps, guidance=config["scale"], control_mode=mode)


@runner("magicpose/cfg_step")
def cfg_step(case: Case) -> dict:
    networks, outputs = networks_of(case), {}
    x = case.tensors["x"]
    with use(Runtime("cpu", torch.float32)):
        features = encode_poses(networks.controlnet, _poses(case))
        for mode in sorted({name.split(".")[1] for name in case.expected}):
            sampler = _sampler(case, networks, mode)
            step = len(sampler.schedule) - 1 - case.config["index"]
            assert sampler.schedule.timesteps[step] == case.tensors["t"]
            conditional, unconditional = sampler.predictions(x, step, features)
            guided = sampler.guided_by(conditional, unconditional)
            unconditional = conditional if unconditional is None else unconditional
            x_prev, denoised = ddim_step(x, guided, sampler.schedule, step)
            values = {"eps_cond": conditional, "eps_uncond": unconditional, "eps_guided": guided}
            values |= {"x_prev": x_prev, "pred_x0": denoised}
            outputs |= {f"{mode}.{name}": value for name, value in values.items()}
    return outputs


@runner("magicpose/sampling")
def sampling(case: Case) -> dict:
    networks, outputs, mode = networks_of(case), {}, case.config["mode"]

    def sample(frames: list[int]) -> torch.Tensor:
        def keep(step: int, latents: torch.Tensor) -> None:
            outputs.update({f"steps.f{k}.{step}": frame[None] for k, frame in zip(frames, latents, strict=True)})

        return _sampler(case, networks, mode, frames[0]).sample(features[frames], keep)

    with use(Runtime("cpu", torch.float32)):
        features = encode_poses(networks.controlnet, _poses(case))
        assert case.config["wonoise"] == ("ref_noise.f0" not in case.tensors)
        every = list(range(len(features)))
        alone = any(f"{name}.f0" in case.tensors for name in NOISES)
        latents = torch.cat([sample([k]) for k in every] if alone else [sample(every)])
        if hasattr(networks, "vae"):
            frames = [to_uint8(frame) for frame in decode_frames(networks.vae, latents)]
            decoded = networks.vae.decode(latents / networks.vae.config.scaling_factor).sample
            outputs |= {f"image_u8.f{k}": frame.transpose(2, 0, 1)[None] for k, frame in enumerate(frames)}
            outputs |= {f"image.f{k}": frame[None] for k, frame in enumerate(decoded)}
    outputs |= {f"latents.f{k}": frame[None] for k, frame in enumerate(latents)}
    return {name: value for name, value in outputs.items() if f"out.{name}" in case.expected}


# --- pictures ---------------------------------------------------------------------------------------------------------


@runner("magicpose/preprocess")
def preprocess(case: Case) -> dict:
    outputs, size = {}, case.config["size"]
    for name, picture in case.arrays.items():
        fitted = fit_picture(picture, (size, size), name)
        outputs[f"{name}.image"] = to_signed(torch.from_numpy(fitted.copy())).permute(2, 0, 1)
        outputs[f"{name}.pose"] = to_hint([fitted])[0]
    return outputs


@runner("magicpose/postprocess")
def postprocess(case: Case) -> dict:
    unit = to_unit(case.tensors["decoded"][0])
    return {"float": unit, "u8": to_uint8(unit)}


# --- pose pictures ----------------------------------------------------------------------------------------------------


@runner("magicpose/pose_draw")
def pose_draw(case: Case) -> dict:
    size, points, scores = (case.config["H"], case.config["W"]), *_people(case.arrays)
    pictures = {}
    for name, parts in (("body", {"hands": False, "face": False}), ("all", {})):
        pictures[name] = Renderer(POSE_STYLE, size, **parts).draw(points, scores)
    return pictures


def _people(tables: Mapping[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """The published tables as points and scores; hands and faces need not be those of the person they stand with.

    The pupils, which 134 points do not have, become face points of one more row.
    """
    rows = max(len(tables["subset"]), -(-len(tables["hands"]) // 2), len(tables["faces"]))
    points, scores = np.zeros((2 * rows, NUM_POINTS, 2)), np.zeros((2 * rows, NUM_POINTS))
    for row, subset in enumerate(tables["subset"][:, :18].astype(int)):
        points[row, BODY], scores[row, BODY] = tables["candidate"][subset, :2], subset >= 0
    for number, hand in enumerate(tables["hands"]):
        side = LEFT_HAND if number % 2 == 0 else RIGHT_HAND
        points[number // 2, side], scores[number // 2, side] = hand, 1
    for row, face in enumerate(tables["faces"]):
        points[row, FACE], scores[row, FACE] = face[:68], 1
        points[rows + row, FACE][: len(face) - 68], scores[rows + row, FACE][: len(face) - 68] = face[68:], 1
    return points, scores
