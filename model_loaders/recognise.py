"""What is in a weights file: told by its tensors' names and shapes, never by the file's name."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

Weights = Mapping[str, torch.Tensor]


@dataclass(frozen=True)
class Content:
    """What a file holds.

    kind:  a short name for programs, e.g. "mimicmotion" or "pose_net".
    title: the same in words, with an article, for messages.
    """

    kind: str
    title: str
    matches: Callable[[Weights], bool]


def _has(*keys: str) -> Callable[[Weights], bool]:
    return lambda weights: all(key in weights for key in keys)


def _starts(*prefixes: str) -> Callable[[Weights], bool]:
    return lambda weights: all(any(key.startswith(prefix) for key in weights) for prefix in prefixes)


def _contains(*parts: str) -> Callable[[Weights], bool]:
    return lambda weights: all(any(part in key for key in weights) for part in parts)


def _every(part: str) -> Callable[[Weights], bool]:
    return lambda weights: bool(weights) and all(part in key for key in weights)


def _shape(key: str, *sizes: int | None) -> Callable[[Weights], bool]:
    """A tensor of a shape; None stands for any size."""

    def matches(weights: Weights) -> bool:
        shape = tuple(weights[key].shape) if key in weights else ()
        return len(shape) == len(sizes) and all(b in (None, a) for a, b in zip(shape, sizes, strict=True))

    return matches


def _all(*tests: Callable[[Weights], bool]) -> Callable[[Weights], bool]:
    return lambda weights: all(test(weights) for test in tests)


LDM_UNET = "model.diffusion_model.input_blocks.0.0.weight"
CROSS_ATTENTION = "down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k.weight"
FACE_ENCODER = ("proj.0.weight", "proj.2.weight", "norm.weight", "fusion_model.proj_in.weight")
SVD_SPATIAL = _all(_shape("conv_in.weight", None, 8, 3, 3), _contains(".temporal_transformer_blocks."))

# The first match counts: what is special comes before what is general.
CONTENTS: Sequence[Content] = (
    Content("lora", "a LoRA", _contains("lora_")),
    Content("mimicmotion", "a full MimicMotion checkpoint", _starts("unet.", "pose_net.conv_layers.")),
    Content("svd_unet_prefixed", "an SVD UNet under the prefix unet.", _starts("unet.conv_in.", "unet.down_blocks.")),
    Content("stableanimator_unet", "a StableAnimator UNet", _contains("attn2.processor.id_to_k")),
    Content("svd_unet", "an SVD UNet (plain or MimicMotion's: names cannot tell)", SVD_SPATIAL),
    Content("pose_net", "a PoseNet", _has("conv_layers.0.weight", "final_proj.weight", "scale")),
    Content("stableanimator_face_encoder", "a StableAnimator face encoder", _has(*FACE_ENCODER)),
    Content("arcface", "an ArcFace network", _has("prelu.weight", "layer1.0.bn1.weight", "features.weight")),
    Content(
        "svd",
        "a Stable Video Diffusion checkpoint",
        _starts("first_stage_model.", "conditioner.embedders.0.open_clip."),
    ),
    Content("svd_unet_ldm", "an SVD UNet in LDM naming", _contains("input_blocks.1.1.time_stack.")),
    Content("svd_vae", "an SVD VAE", _has("decoder.time_conv_out.weight")),
    Content("svd_vae_ldm", "an SVD VAE in LDM naming", _contains("decoder.conv_out.time_mix_conv.")),
    Content("magicpose", "a MagicPose checkpoint", _starts("appearance_control_model.", "pose_control_model.")),
    Content(
        "controlnet_sd15",
        "an SD 1.5 checkpoint with a ControlNet (MagicPose's start)",
        _starts("control_model.zero_convs.", LDM_UNET),
    ),
    Content("magicpose_stage1", "a MagicPose stage 1 checkpoint", _starts("control_model.output_blocks.", LDM_UNET)),
    Content("controlnet", "a ControlNet", _contains("input_hint_block.")),
    Content("controlnet", "a ControlNet", _contains("controlnet_cond_embedding.")),
    Content("sdxl", "an SDXL checkpoint", _starts(LDM_UNET, "conditioner.embedders.1.")),
    Content("sd2", "a Stable Diffusion 2 checkpoint", _starts(LDM_UNET, "cond_stage_model.model.")),
    Content("sd1", "a Stable Diffusion 1 checkpoint", _starts(LDM_UNET, "cond_stage_model.transformer.")),
    Content("ldm_unet", "a diffusion model without its VAE and text encoder", _has(LDM_UNET)),
    Content("followyourpose_unet", "a Follow Your Pose UNet", _contains("attn_temp.to_q")),
    Content("followyourpose_pose_encoder", "a Follow Your Pose pose encoder", _has("body.0.block1.weight")),
    Content("motion_module", "a motion module (AnimateDiff's or MIMO's)", _every("motion_modules.")),
    Content("motion_unet", "a MIMO UNet with its motion module", _contains("motion_modules.")),
    Content(
        "mimo_denoising_unet",
        "a MIMO denoising UNet",
        _all(_shape("conv_in.weight", 320, 8, 3, 3), _has(CROSS_ATTENTION)),
    ),
    Content("sd_unet", "a Stable Diffusion UNet", _all(_has("conv_out.weight", CROSS_ATTENTION))),
    Content("reference_unet", "a reference UNet (MIMO's, without conv_out)", _has("conv_in.weight", CROSS_ATTENTION)),
    Content("pose_guider", "a MIMO pose guider", _has("conv_in.weight", "blocks.0.weight", "conv_out.weight")),
    Content("vae", "a picture VAE", _starts("encoder.down_blocks.", "decoder.up_blocks.")),
    Content("vae", "a picture VAE in LDM naming", _contains("encoder.down.0.block.", "decoder.up.0.block.")),
    Content("clip_text", "a CLIP with its text encoder", _contains("text_model.")),
    Content("clip_vision", "a CLIP image tower", _contains("embeddings.patch_embedding.weight")),
    Content("clip_vision_open_clip", "an OpenCLIP image tower", _contains("transformer.resblocks.", "ln_pre.")),
)
UNKNOWN = Content("unknown", "something unknown", lambda _weights: True)


def recognise(weights: Weights) -> Content:
    """What these weights are; tensors on the meta device will do, only names and shapes are looked at."""
    return next((content for content in CONTENTS if content.matches(weights)), UNKNOWN)


def not_what_was_expected(path: str | Path, content: Content, expected: str) -> ValueError:
    """The error for a file that holds something else; expected in words, e.g. "MimicMotion weights"."""
    return ValueError(f"{path} is {content.title}, {expected} were expected.")
