"""Every published MimicMotion, StableAnimator and SVD checkpoint fits, at full size, on the meta device."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from choreo.model_loaders import svd_keys
from choreo.model_loaders.assemble import differences, skeleton, without_prefix
from choreo.model_loaders.stableanimator import face_encoder_sizes
from choreo.model_loaders.svd import CLIP_PREFIX, VAE_PREFIX, clip_names_of
from choreo.networks.face_encoder import FusionFaceId
from choreo.networks.id_attention import build_id_unet
from choreo.networks.image_tower import CLIP_VIT_H_14, build_image_tower
from choreo.networks.pose_net import PoseNet
from choreo.networks.svd_unet import SVD_XT, build_unet
from choreo.networks.video_vae import SVD_VAE, build_video_vae

from . import manifests

SHARED = Path(__file__).resolve().parents[2] / "shared" / "manifests"
SINGLE_FILE = "mimicmotion_svd_single_file_parts"


@pytest.fixture(scope="module")
def unet():
    return skeleton(build_unet)


@pytest.fixture(scope="module")
def vae():
    return skeleton(build_video_vae)


@pytest.fixture(scope="module")
def image_tower():
    return skeleton(build_image_tower)


def test_full_checkpoint_fits(unet):
    weights = manifests.weights("mimicmotion_full")
    unet_weights, pose_weights = without_prefix(weights, "unet."), without_prefix(weights, "pose_net.")
    assert len(unet_weights) + len(pose_weights) == len(weights) == 1447
    assert differences(unet_weights, unet.state_dict()) == []
    assert differences(pose_weights, skeleton(PoseNet).state_dict()) == []


def test_unet_alone_and_pose_net_alone_fit(unet):
    assert differences(manifests.weights("mimicmotion_merged_unet"), unet.state_dict()) == []
    assert differences(manifests.weights("mimicmotion_pose_net"), skeleton(PoseNet).state_dict()) == []
    assert differences(manifests.weights("stableanimator_pose_net"), skeleton(PoseNet).state_dict()) == []


def test_stableanimator_fits():
    weights = manifests.weights("stableanimator_unet")
    adapter = [name for name in weights if ".attn2.processor." in name]
    assert len(weights) == 1460 and len(adapter) == 32
    assert differences(weights, skeleton(build_id_unet).state_dict()) == []
    face_encoder = manifests.weights("stableanimator_face_encoder")
    sizes = face_encoder_sizes(face_encoder)
    recorded = manifests.config("stableanimator_face_encoder")
    assert sizes.items() >= {name: recorded[name] for name in sizes.keys() & recorded.keys()}.items()
    assert differences(face_encoder, skeleton(lambda: FusionFaceId(**sizes)).state_dict()) == []
    assert differences(face_encoder, skeleton(FusionFaceId).state_dict()) == [], "the defaults are the release"


def test_diffusers_parts_fit(vae, image_tower):
    clip = manifests.weights("mimicmotion_svd_xt_1_1_image_encoder")
    assert differences(manifests.weights("mimicmotion_svd_xt_1_1_vae"), vae.state_dict()) == []
    assert differences(clip_names_of(image_tower, clip), image_tower.state_dict()) == []


@pytest.mark.parametrize("prefix", ["", "vision_model."])
def test_image_tower_fits_under_either_naming_of_transformers(image_tower, prefix):
    clip = {
        (prefix + name.removeprefix("vision_model.") if name.startswith("vision_model.") else name): tensor
        for name, tensor in manifests.weights("mimicmotion_svd_xt_1_1_image_encoder").items()
    }
    clip[prefix + "embeddings.position_ids"] = torch.empty(1, 257, dtype=torch.int64, device="meta")
    assert differences(clip_names_of(image_tower, clip), image_tower.state_dict()) == []


def test_single_file_parts_fit(vae, image_tower):
    weights = manifests.weights(SINGLE_FILE)
    vae_weights, clip_weights = without_prefix(weights, VAE_PREFIX), without_prefix(weights, CLIP_PREFIX)
    assert len(vae_weights) + len(clip_weights) == len(weights)
    assert differences(svd_keys.vae_to_diffusers(vae_weights), vae.state_dict()) == []
    clip = clip_names_of(image_tower, svd_keys.clip_to_transformers(clip_weights))
    assert differences(clip, image_tower.state_dict()) == []


def test_vae_names_are_those_of_the_published_table():
    table = manifests.key_map("mimicmotion_svd_vae_key_map")
    assert {old: svd_keys.vae_name_to_diffusers(old) for old in table} == table
    assert {svd_keys.vae_name_to_ldm(new): new for new in table.values()} == table


def test_unet_names_are_a_bijection():
    names = list(without_prefix(manifests.weights("mimicmotion_full"), "unet."))
    ldm = [svd_keys.unet_name_to_ldm(name) for name in names]
    assert len(set(ldm)) == 1428
    assert [svd_keys.unet_name_to_diffusers(name) for name in ldm] == names


@pytest.mark.parametrize(
    ("diffusers", "ldm"),
    [
        ("conv_in.weight", "input_blocks.0.0.weight"),
        ("add_embedding.linear_2.bias", "label_emb.0.2.bias"),
        ("down_blocks.1.downsamplers.0.conv.bias", "input_blocks.6.0.op.bias"),
        ("down_blocks.3.resnets.1.time_mixer.mix_factor", "input_blocks.11.0.time_mixer.mix_factor"),
        (
            "mid_block.resnets.1.temporal_res_block.time_emb_proj.weight",
            "middle_block.2.time_stack.emb_layers.1.weight",
        ),
        ("up_blocks.0.upsamplers.0.conv.weight", "output_blocks.2.1.conv.weight"),
        ("up_blocks.1.upsamplers.0.conv.weight", "output_blocks.5.2.conv.weight"),
        (
            "up_blocks.3.resnets.2.spatial_res_block.conv_shortcut.weight",
            "output_blocks.11.0.skip_connection.weight",
        ),
        (
            "up_blocks.1.attentions.0.temporal_transformer_blocks.0.ff_in.net.2.bias",
            "output_blocks.3.1.time_stack.0.ff_in.net.2.bias",
        ),
        ("down_blocks.0.attentions.1.time_pos_embed.linear_2.bias", "input_blocks.2.1.time_pos_embed.2.bias"),
    ],
)
def test_unet_names_of_every_kind(diffusers, ldm):
    assert svd_keys.unet_name_to_ldm(diffusers) == ldm
    assert svd_keys.unet_name_to_diffusers(ldm) == diffusers


@pytest.mark.parametrize("name", ["pose_net.scale", "lora.down_blocks.0.resnets.0.x", "input_blocks"])
def test_a_name_of_something_else_is_refused(name):
    with pytest.raises(ValueError, match="is not the name of a UNet's weight"):
        svd_keys.unet_name_to_ldm(name)
    with pytest.raises(ValueError, match="is not the name of a UNet's weight"):
        svd_keys.unet_name_to_diffusers(name)


def test_published_configurations():
    published = manifests.config("mimicmotion_full")["unet"]
    assert {key: list(v) if isinstance(v, tuple) else v for key, v in SVD_XT.items()} == published
    for name, ours in (
        ("mimicmotion_svd_xt_1_1_vae", SVD_VAE),
        ("mimicmotion_svd_xt_1_1_image_encoder", CLIP_VIT_H_14),
    ):
        recorded = manifests.config(name)
        for key, value in ours.items():
            if key in recorded:
                assert recorded[key] == (list(value) if isinstance(value, tuple) else value), key


@pytest.mark.skipif(not SHARED.is_dir(), reason="../shared/manifests is not there; the packed manifests are tested")
def test_packed_manifests_are_current():
    for path in SHARED.glob("*.json"):
        content = json.loads(path.read_text())
        is_map = "rule" in content
        if path.stem in manifests.names() and "tensors" in content and not is_map:
            expected = {key: tuple(shape) for key, (shape, _) in content["tensors"].items()}
            assert {key: tuple(t.shape) for key, t in manifests.weights(path.stem).items()} == expected
