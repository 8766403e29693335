"""StableAnimator's networks, preprocessing, schedule, windows, poses and whole pipeline."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from choreo.conditioning.clip_image import clip_pixels, embed_picture
from choreo.conditioning.picture import lanczos_fit, to_signed
from choreo.conditioning.stableanimator import fitted_poses
from choreo.networks.face_encoder import FacePerceiver, PerceiverAttention
from choreo.networks.id_attention import IDAttention, install_id_adapter
from choreo.networks.svd_unet import predict
from choreo.pipelines.stableanimator import Settings, animate
from choreo.pose.align import align
from choreo.pose.draw import draw_clip
from choreo.pose.poses import Poses
from choreo.pose.styles import STYLES
from choreo.pose.wholebody import openpose_134
from choreo.quirks import PUBLISHED_STABLEANIMATOR
from choreo.runtime import Runtime, use
from choreo.samplers.decode import decode_frames
from choreo.samplers.euler import denoised_from_v, euler_step
from choreo.samplers.face_optimisation import FaceOptimisation, FaceOptimiser
from choreo.samplers.sigmas import initial_scale, karras_sigmas, timesteps
from choreo.samplers.windows import LatentFusion, window_weights, windows
from torch import nn

from .cases import Case
from .networks import network
from .registry import runner
from .run_mimicmotion import recorded_noise
from .run_stableanimator_face import extractor, face_target
from .tables import tables_from_frame


def _loaded(module: nn.Module, case: Case) -> nn.Module:
    module.load_state_dict(case.weights())
    return module.eval()


# --- networks -------------------------------------------------------------------------------------------------------


def _attention(config: dict) -> nn.Module:
    from diffusers.models.attention_processor import Attention

    names = {"query_dim", "cross_attention_dim", "heads", "dim_head"}
    return Attention(**{name: value for name, value in config.items() if name in names})


@runner("stableanimator/self_attention")
def self_attention(case: Case) -> dict:
    return {"hidden_states": _loaded(_attention(case.config), case)(case.tensors["hidden_states"])}


@runner("stableanimator/id_attention")
def id_attention(case: Case) -> dict:
    attention = _attention(case.config)
    attention.set_processor(IDAttention(attention, case.config["num_tokens"], case.config["scale"]))
    inputs = case.tensors["hidden_states"], case.tensors["encoder_hidden_states"]
    return {"hidden_states": _loaded(attention, case)(*inputs)}


@runner("stableanimator/perceiver_attention")
def perceiver_attention(case: Case) -> dict:
    module = _loaded(PerceiverAttention(**case.config), case)
    return {"latents": module(case.tensors["latents"], case.tensors["x"])}


@runner("stableanimator/face_perceiver")
def face_perceiver(case: Case) -> dict:
    module = _loaded(FacePerceiver(**case.config), case)
    return {"latents": module(case.tensors["latents"], case.tensors["x"])}


@runner("stableanimator/fusion_face_id")
def fusion_face_id(case: Case) -> dict:
    module = network(case, "face_encoder")
    identity, clip = case.tensors["id_embeds"], case.tensors["clip_embeds"]
    return {
        "tokens": module(identity, clip),
        "tokens_shortcut_half": module(identity, clip, shortcut=True, scale=0.5),
        "tokens_3d_first": module(identity[:1, None], clip[:1]),
        "tokens_zero_id": module(torch.zeros_like(identity[:1]), clip[:1]),
    }


@runner("stableanimator/spatio_temporal_transformer")
def spatio_temporal_transformer(case: Case) -> dict:
    from diffusers.models.transformers.transformer_temporal import TransformerSpatioTemporalModel

    config = dict(case.config)
    tokens, clip = config.pop("num_tokens"), (config.pop("batch"), config.pop("frames"))
    module = TransformerSpatioTemporalModel(**config)
    install_id_adapter(module, tokens)
    _loaded(module, case)

    def run(indicator: torch.Tensor) -> torch.Tensor:
        inputs = case.tensors["hidden_states"], case.tensors["encoder_hidden_states"]
        return module(*inputs, image_only_indicator=indicator, return_dict=False)[0]

    return {"sample": run(torch.zeros(clip)), "sample_image_only": run(torch.ones(clip))}


@runner("stableanimator/unet")
def unet(case: Case) -> dict:
    module, given = network(case, "id_unet"), case.tensors
    sample, timestep, ids = given["sample"], given["timestep"], given["added_time_ids"]
    context = given["encoder_hidden_states"]
    nothing = torch.zeros_like(context)
    return {
        "sample": predict(module, sample, timestep, context, ids, pose_features=given["pose_latents"]),
        "sample_no_pose": predict(module, sample, timestep, context, ids),
        "sample_uncond_image_only": predict(module, sample, timestep, nothing, ids, image_only=True),
    }


@runner("stableanimator/pose_net")
def pose_net(case: Case) -> dict:
    module, pose = network(case, "pose_net"), case.tensors["pose"]
    return {"features": module(pose), "features_4d_first": module(pose[0])}


@runner("stableanimator/vae")
def vae(case: Case) -> dict:
    module, latents = network(case, "vae"), case.tensors["latents"]
    posterior = module.encode(case.tensors["image"]).latent_dist
    return {"mode": posterior.mode(), "decoded": module.decode(latents, num_frames=len(latents)).sample}


# --- preprocessing, schedule, windows -------------------------------------------------------------------------------


def _network_values(picture: np.ndarray) -> torch.Tensor:
    return to_signed(torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None])


@runner("stableanimator/preprocess")
def preprocess(case: Case) -> dict:
    size, tower = (case.config["height"], case.config["width"]), network(case, "image_encoder")
    (pose,) = fitted_poses(case.arrays["pose_png"], size)
    outputs = {"pose_resized_uint8": pose[None], "pose_tensor": _network_values(pose)}
    for name in ("", "_large"):
        picture = case.arrays[f"image{name}"]
        pixels = clip_pixels(picture)
        outputs |= {
            f"vae_pixels{name}": _network_values(lanczos_fit(picture, size, stretch=True)),
            f"clip_pixels{name}_every8": pixels[:, :, ::8, ::8],
            f"clip_embed{name}": embed_picture(tower, pixels),
        }
    return outputs


@runner("stableanimator/scheduler")
def scheduler(case: Case) -> dict:
    limits, outputs = (case.config["sigma_min"], case.config["sigma_max"]), {}
    for steps in (int(name.rpartition("_")[2]) for name in case.expected if name.startswith("out.sigmas_")):
        sigmas = karras_sigmas(steps, *limits)
        outputs |= {f"sigmas_{steps}": sigmas, f"timesteps_{steps}": timesteps(sigmas)}
        outputs |= {f"init_noise_sigma_{steps}": initial_scale(sigmas)}
    sigmas, i = karras_sigmas(case.config["num_inference_steps_for_step"], *limits), int(case.tensors["step_index"])
    x = case.tensors["sample"]
    denoised = denoised_from_v(x, case.tensors["model_output"], sigmas[i])
    return outputs | {
        "scaled_input": x / (sigmas[i] ** 2 + 1) ** 0.5,
        "pred_original_sample": denoised,
        "prev_sample": euler_step(x, denoised, sigmas[i], sigmas[i + 1]),
    }


@runner("stableanimator/tiling")
def tiling(case: Case) -> dict:
    outputs = {}
    for k, (frames, window, overlap) in enumerate(case.tensors["frames_tile_overlap"].tolist()):
        tiles = windows(frames, window, overlap)
        fusion = LatentFusion((1, frames, 1, 1, 1))
        for tile in tiles:
            fusion.add(0, tile, torch.zeros(len(tile), 1, 1, 1))
        outputs |= {f"indices_{k}": np.array(tiles), f"count_{k}": fusion.weight[0]}
        outputs[f"weight_{k}"] = window_weights(len(tiles[0]))
    return outputs


# --- poses ----------------------------------------------------------------------------------------------------------


def _poses(case: Case, names: list[tuple[str, str]], size: str) -> Poses:
    """One frame for each pair of names of 133 key points in pixels, and their scores."""
    width, height = case.arrays[size].tolist()
    frames = [openpose_134(case.arrays[points], case.arrays[scores]) for points, scores in names]
    return Poses.from_frames([(points / (width, height), scores) for points, scores in frames], (height, width))


def _drawn(poses: Poses, case: Case) -> list[np.ndarray]:
    style = replace(STYLES["stableanimator"], canvas_short_side=case.config["ref_w"])
    return list(draw_clip(poses, poses.size, style, published=True))


@runner("stableanimator/pose_draw")
def pose_draw(case: Case) -> dict:
    (picture,) = _drawn(_poses(case, [("keypoints", "scores")], "size_wh"), case)
    pixels = picture.reshape(-1, 3)
    places = np.flatnonzero(pixels.any(axis=1))
    return {"nonzero_flat_index": places, "nonzero_rgb": pixels[places]}


@runner("stableanimator/pose_align_draw")
def pose_align_draw(case: Case) -> dict:
    reference = _poses(case, [("ref_keypoints", "ref_scores")], "ref_size_wh")
    numbers = range(sum(name.startswith("keypoints_") for name in case.arrays))
    driving = _poses(case, [(f"keypoints_{t}", f"scores_{t}") for t in numbers], "driving_size_wh")
    result = align(driving, reference, "stableanimator").poses
    tables = tables_from_frame(reference.frame(0), "ref_")
    outputs = {name: tables[name] for name in ("ref_faces", "ref_faces_score", "ref_hands", "ref_hands_score")}
    outputs |= {f"ref_body_{name}": tables[f"ref_{name}"] for name in ("candidate", "score", "subset")}
    for t in numbers:
        tables = tables_from_frame(result.frame(t), "")
        outputs |= {f"aligned_body_{t}": tables["candidate"], f"body_subset_{t}": tables["subset"]}
        outputs |= {f"aligned_faces_{t}": tables["faces"], f"aligned_hands_{t}": tables["hands"]}
    return outputs | {"pose_png_rgb": _drawn(result, case), "ref_pose_png_rgb": _drawn(reference, case)[0]}


# --- whole pipelines ------------------------------------------------------------------------------------------------


def pipeline_networks(case: Case) -> tuple[SimpleNamespace, SimpleNamespace]:
    """StableAnimator's own networks of a case, and SVD's."""
    own = {"unet": network(case, "id_unet"), "window": case.config["tile_size"]}
    own |= {name: network(case, name) for name in ("pose_net", "face_encoder")}
    return SimpleNamespace(**own), SimpleNamespace(
        vae=network(case, "vae"), image_encoder=network(case, "image_encoder")
    )


def pipeline_settings(case: Case) -> Settings:
    """The settings of a recorded pipeline."""
    config = case.config
    return Settings(
        steps=config["num_inference_steps"],
        guidance_first=config["min_guidance_scale"],
        guidance_last=config["max_guidance_scale"],
        window=config["tile_size"],
        overlap=config["tile_overlap"],
        fps_id=config["fps"],
        motion_bucket_id=config["motion_bucket_id"],
        noise_aug_strength=config["noise_aug_strength"],
        decode_chunk=config["decode_chunk_size"],
        quirks=PUBLISHED_STABLEANIMATOR,
    )


def run_pipeline(case: Case, networks: tuple[Any, Any], **options: Any) -> dict:
    """Latents after every step, and the frames; options: further ones of :func:`animate`."""
    outputs: dict = {}
    given = case.arrays
    frames = animate(
        *networks,
        given["image"],
        given["poses"],
        pipeline_settings(case),
        identity=given["id_embedding"],
        size=(case.config["height"], case.config["width"]),
        noise=recorded_noise(case.tensors["image_noise"], case.tensors["noise"]),
        on_step=lambda step, latents: outputs.update({f"latents_step_{step}": latents[None]}),
        **options,
    )
    return outputs | {"frames": np.stack(list(frames)).transpose(0, 3, 1, 2)}


@runner("stableanimator/pipeline")
def pipeline(case: Case) -> dict:
    networks, settings = pipeline_networks(case), pipeline_settings(case)
    with use(Runtime("cpu", torch.float32)):
        outputs = run_pipeline(case, networks)
        latents = outputs[f"latents_step_{settings.steps - 1}"][0]
        first = next(decode_frames(networks[1].vae, latents, settings.decode_chunk))
    return outputs | {"frame0_float": first.permute(2, 0, 1)}


@runner("stableanimator/pipeline_hjb")
def pipeline_hjb(case: Case) -> dict:
    config, networks = case.config, pipeline_networks(case)
    settings = FaceOptimisation(
        config["start_refine_step"],
        config["end_refine_step"],
        config["num_optimization_iter"],
        config["eta_scheduler"],
        config["decode_chunk_size"],
    )
    vae, steps = networks[1].vae, config["num_inference_steps"]
    with use(Runtime("cpu", torch.float32)):
        refine = FaceOptimiser(vae, extractor(case), face_target(case), settings=settings, steps=steps)
        return run_pipeline(case, networks, refine=refine)
