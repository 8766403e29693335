"""A file is recognised by its tensors, and messages name what it is."""

from __future__ import annotations

import pytest
import torch
from choreo.model_loaders.recognise import not_what_was_expected, recognise

from . import manifests

EXPECTED = {
    "followyourpose_pose_encoder": "followyourpose_pose_encoder",
    "followyourpose_unet3d": "followyourpose_unet",
    "magicpose_control_sd15_ini": "controlnet_sd15",
    "magicpose_control_v11p_sd15_openpose": "controlnet",
    "magicpose_model_state_10000": "magicpose_stage1",
    "magicpose_model_state_110000": "magicpose",
    "mimicmotion_full": "mimicmotion",
    "mimicmotion_merged_unet": "svd_unet",
    "mimicmotion_pose_net": "pose_net",
    "mimicmotion_svd_single_file_parts": "svd",
    "mimicmotion_svd_xt_1_1_image_encoder": "clip_vision",
    "mimicmotion_svd_xt_1_1_vae": "svd_vae",
    "mimo_denoising_unet": "mimo_denoising_unet",
    "mimo_image_encoder": "clip_vision",
    "mimo_motion_module": "motion_module",
    "mimo_pose_guider": "pose_guider",
    "mimo_reference_unet": "reference_unet",
    "mimo_sd_vae_ft_mse": "vae",
    "stableanimator_face_encoder": "stableanimator_face_encoder",
    "stableanimator_glintr100_torch": "arcface",
    "stableanimator_pose_net": "pose_net",
    "stableanimator_unet": "stableanimator_unet",
}


@pytest.mark.parametrize(("name", "kind"), EXPECTED.items())
def test_published_checkpoints(name, kind):
    assert recognise(manifests.weights(name)).kind == kind


def test_every_packed_manifest_is_covered():
    assert set(manifests.names()) == {*EXPECTED, "mimicmotion_svd_vae_key_map", "magicpose_ldm_to_diffusers"}


def _named(*names):
    return {name: torch.empty(1, device="meta") for name in names}


UNET = "model.diffusion_model.input_blocks.0.0.weight"


@pytest.mark.parametrize(
    ("names", "kind"),
    [
        ((UNET, "cond_stage_model.transformer.text_model.x"), "sd1"),
        ((UNET, "cond_stage_model.model.transformer.x"), "sd2"),
        ((UNET, "conditioner.embedders.0.transformer.x", "conditioner.embedders.1.model.x"), "sdxl"),
        ((UNET, "model.diffusion_model.input_blocks.1.1.time_stack.0.x"), "svd_unet_ldm"),
        (("unet.down_blocks.0.x.lora_A.weight",), "lora"),
        (("lora_unet_down_blocks_0.lora_up.weight",), "lora"),
        (("text_model.embeddings.x", "vision_model.embeddings.patch_embedding.weight"), "clip_text"),
        (("something.else",), "unknown"),
        ((), "unknown"),
    ],
)
def test_other_files(names, kind):
    assert recognise(_named(*names)).kind == kind


def test_message_names_file_content_and_expectation():
    content = recognise(manifests.weights("stableanimator_unet"))
    message = str(not_what_was_expected("unet.pth", content, "MimicMotion weights"))
    assert message == "unet.pth is a StableAnimator UNet, MimicMotion weights were expected."
