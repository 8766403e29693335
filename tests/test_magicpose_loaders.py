"""Every layout of MagicPose and Stable Diffusion 1.5 loads, and every wrong or missing part is explained."""

from __future__ import annotations

import json
import logging

import pytest
import torch
from choreo.model_loaders import ldm_keys, magicpose, sd15
from choreo.model_loaders.assemble import differences, skeleton, without_prefix
from choreo.model_loaders.magicpose import load_magicpose, read_magicpose, to_checkpoint
from choreo.model_loaders.random_weights import random_weights
from choreo.model_loaders.sd15 import BUILDERS, CONFIGS, read_controlnet, read_sd15
from choreo.model_loaders.svd import clip_names_of
from choreo.model_loaders.untrained_magicpose import UNTRAINED_CONFIG, write_untrained_magicpose
from choreo.model_loaders.weights import read_weights
from choreo.networks.appearance import build_appearance, dead_weights
from choreo.networks.sd15_unet import SD15_UNET
from safetensors.torch import save_file

from . import manifests

WHOLE, STAGE1 = "magicpose_model_state_110000", "magicpose_model_state_10000"
START, CONTROLNET = "magicpose_control_sd15_ini", "magicpose_control_v11p_sd15_openpose"
KIND = {WHOLE: "magicpose", STAGE1: "magicpose_stage1", START: "controlnet_sd15"}
METADATA = {"config": json.dumps(UNTRAINED_CONFIG)}


# Full size, on the meta device


@pytest.fixture(scope="module")
def expected():
    """Names and shapes of every network at full size."""
    return {name: skeleton(build).state_dict() for name, build in BUILDERS.items()}


@pytest.mark.parametrize("name", [WHOLE, STAGE1, START])
def test_published_checkpoints_fit(name, expected, tmp_path):
    weights = manifests.weights(name)
    assert magicpose.unexplained(weights) == []
    parts = sd15.parts_of(weights, {}, tmp_path)
    text = clip_names_of(skeleton(BUILDERS["text_encoder"]), parts["text_encoder"].weights, "text_model.")
    assert differences(text, expected["text_encoder"]) == []
    assert differences(parts["unet"].weights, expected["unet"]) == []
    assert differences(parts["vae"].weights, expected["vae"]) == []
    appearance = magicpose.appearance_weights(weights, KIND[name])
    assert differences(appearance, expected["appearance"]) == []
    assert len(appearance) == 682


@pytest.mark.parametrize(("name", "prefix"), [(WHOLE, "pose_control_model."), (CONTROLNET, "control_model.")])
def test_published_controlnets_fit(name, prefix, expected):
    weights = without_prefix(manifests.weights(name), prefix)
    renamed = ldm_keys.controlnet_to_diffusers(weights)
    assert differences(renamed, expected["controlnet"]) == []
    assert set(ldm_keys.controlnet_to_ldm(renamed)) == set(weights)


def test_names_are_those_of_the_published_table():
    components = {
        "unet": (sd15.UNET_PREFIX, ldm_keys.unet_name_to_diffusers),
        "appearance_unet": (magicpose.APPEARANCE_PREFIX, ldm_keys.unet_name_to_diffusers),
        "controlnet": (magicpose.POSE_PREFIX, ldm_keys.controlnet_name_to_diffusers),
        "vae": (sd15.VAE_PREFIX, ldm_keys.vae_name_to_diffusers),
        "text_encoder": (sd15.TEXT_PREFIX, lambda name: name),
    }
    table = {old: new for old, new in manifests.key_map("magicpose_ldm_to_diffusers").items() if new}
    assert len(table) == 686 + 682 + 340 + 248 + 196
    for old, new in table.items():
        component, key = new.split("/")
        prefix, rule = components[component]
        assert old.startswith(prefix)
        assert rule(old.removeprefix(prefix)) == key


def test_names_are_bijections(expected):
    for name, to_ldm, to_diffusers in (
        ("unet", ldm_keys.unet_to_ldm, ldm_keys.unet_to_diffusers),
        ("controlnet", ldm_keys.controlnet_to_ldm, ldm_keys.controlnet_to_diffusers),
        ("vae", ldm_keys.vae_to_ldm, ldm_keys.vae_to_diffusers),
    ):
        back = to_diffusers(to_ldm(expected[name]))
        assert list(back) == list(expected[name])
        assert all(back[key].shape == tensor.shape for key, tensor in expected[name].items())


def test_what_has_no_effect_in_the_appearance_network():
    dead = dead_weights(skeleton(build_appearance))
    block = "up_blocks.3.attentions.2"
    kinds = {name.removeprefix(f"{block}.").removeprefix("transformer_blocks.0.").split(".")[0] for name in dead}
    assert all(name.startswith(block) for name in dead)
    assert kinds == {"attn1", "attn2", "norm2", "norm3", "ff", "proj_out"}


# In small


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    return write_untrained_magicpose(tmp_path_factory.mktemp("magicpose"))


@pytest.fixture(scope="module")
def weights(file):
    return read_weights(file)


@pytest.fixture(autouse=True)
def _no_models(tmp_path, monkeypatch):
    monkeypatch.setenv("CHOREO_MODELS", str(tmp_path / "nothing here"))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)


def _same(network, other):
    one, two = network.state_dict(), other.state_dict()
    return set(one) == set(two) and all(torch.equal(tensor, two[name]) for name, tensor in one.items())


def test_whole_checkpoint(file, weights):
    networks, parts = load_magicpose(file)
    assert networks.appearance.conv_in.weight.dtype == torch.float16
    saved = to_checkpoint(networks, parts)
    assert set(saved) == set(weights)
    assert all(torch.equal(saved[name], tensor) for name, tensor in weights.items())


def _pickled(weights, path):
    torch.save({"state_dict": weights}, path)
    (path.parent / "config.json").write_text(json.dumps(UNTRAINED_CONFIG))
    return path


def test_wrapped_pickle_with_tables_and_surplus(file, weights, tmp_path, caplog):
    more = {name: torch.zeros(1000) for name in magicpose.SCHEDULE}
    more["cond_stage_model.transformer.text_model.embeddings.position_ids"] = torch.arange(77)[None]
    more["appearance_control_model.input_hint_block.0.weight"] = torch.zeros(16, 3, 3, 3)
    networks, parts = load_magicpose(_pickled(weights | more, tmp_path / "model_state-110000.th"))
    whole, whole_parts = load_magicpose(file)
    assert _same(networks.appearance, whole.appearance)
    assert _same(parts.text_encoder, whole_parts.text_encoder)
    assert not caplog.records
    with caplog.at_level(logging.WARNING):
        load_magicpose(_pickled(weights | {"model_ema.decay": torch.ones(1)}, tmp_path / "model.th"))
    assert "model_ema.decay" in caplog.text


def _stage1(weights):
    return {
        name.replace(magicpose.APPEARANCE_PREFIX, sd15.CONTROL_PREFIX): tensor
        for name, tensor in weights.items()
        if not name.startswith(magicpose.POSE_PREFIX)
    }


def _controlnet(weights):
    own = without_prefix(weights, magicpose.POSE_PREFIX)
    return {sd15.CONTROL_PREFIX + name: tensor.contiguous() for name, tensor in own.items()}


def test_stage_1_takes_its_controlnet_from_elsewhere(file, weights, tmp_path):
    save_file(_stage1(weights), tmp_path / "stage1.safetensors", METADATA)
    alone, _ = load_magicpose(tmp_path / "stage1.safetensors")
    assert alone.controlnet is None
    save_file(_controlnet(weights), tmp_path / "control.safetensors")
    renamed = ldm_keys.controlnet_to_diffusers(without_prefix(weights, magicpose.POSE_PREFIX), 1)
    folder = tmp_path / "control_v11p_sd15_openpose"
    folder.mkdir()
    save_file(renamed, folder / "diffusion_pytorch_model.safetensors")
    whole, _ = load_magicpose(file)
    for controlnet in (tmp_path / "control.safetensors", folder):
        networks, _ = load_magicpose(tmp_path / "stage1.safetensors", controlnet)
        assert _same(networks.controlnet, whole.controlnet)
        assert _same(networks.appearance, whole.appearance)


def test_the_published_controlnet_is_found_in_the_models_folders(weights, tmp_path, monkeypatch):
    save_file(_stage1(weights), tmp_path / "stage1.safetensors", METADATA)
    models = tmp_path / "all" / "controlnet"
    models.mkdir(parents=True)
    torch.save(_controlnet(weights), models / magicpose.CONTROLNET_NAME)
    monkeypatch.setenv("CHOREO_MODELS", str(tmp_path / "all"))
    assert read_magicpose(tmp_path / "stage1.safetensors").controlnet is not None


def test_the_start_of_stage_1_is_encoder_of_the_controlnet_and_decoder_of_the_unet(weights, tmp_path):
    kept = {name: t for name, t in weights.items() if not name.startswith(magicpose.PREFIXES[3:5])}
    save_file(kept | _controlnet(weights), tmp_path / "control_sd15_ini.safetensors", METADATA)
    networks, _ = load_magicpose(tmp_path / "control_sd15_ini.safetensors")
    appearance, unet = networks.appearance.state_dict(), networks.unet.state_dict()
    own = ldm_keys.controlnet_to_diffusers(without_prefix(weights, magicpose.POSE_PREFIX), 1)
    for name, tensor in appearance.items():
        assert torch.equal(tensor, unet[name] if name.startswith("up_blocks.") else own[name]), name
    assert networks.controlnet is None


def _diffusers_folder(folder, weights):
    """A Stable Diffusion 1.5 as its diffusers folders are: the VAE's attention under its first names."""
    parts = sd15.parts_of(weights, UNTRAINED_CONFIG, folder)
    old = {new: old for old, new in sd15.OLD_VAE_ATTENTION.items()}
    for name, part in parts.items():
        files = sd15.FOLDER_NAMES[name]
        (folder / name).mkdir(parents=True)
        tensors = {key: tensor.contiguous() for key, tensor in part.weights.items()}
        if name == "vae":
            for new, first in old.items():
                tensors = {
                    key.replace(f"attentions.0.{new}.", f"attentions.0.{first}."): t for key, t in tensors.items()
                }
        save_file(tensors, folder / name / files[0])
        (folder / name / "config.json").write_text(json.dumps({"_class_name": "x", **UNTRAINED_CONFIG[name]}))
    return folder


def test_a_base_gives_unet_vae_and_text(file, weights, tmp_path):
    other = {name: tensor + 1 for name, tensor in weights.items()}
    stock = {name: t for name, t in other.items() if not name.startswith(magicpose.PREFIXES[3:])}
    save_file(stock, tmp_path / "sd15.safetensors", METADATA)
    folder = _diffusers_folder(tmp_path / "sd15", stock)
    whole, _ = load_magicpose(file)
    expected, expected_vae = whole.unet.conv_in.weight + 1, None
    for base in (tmp_path / "sd15.safetensors", folder):
        networks, parts = load_magicpose(file, base=base)
        assert torch.equal(networks.unet.conv_in.weight, expected)
        assert _same(networks.appearance, whole.appearance)
        assert expected_vae is None or _same(parts.vae, expected_vae)
        expected_vae = parts.vae


def test_parts_left_out_of_a_file_come_from_a_base(weights, tmp_path):
    pruned = {name: t for name, t in weights.items() if name.startswith(magicpose.PREFIXES[3:])}
    save_file(pruned, tmp_path / "pruned.safetensors", METADATA)
    with pytest.raises(FileNotFoundError, match=r"pruned.safetensors holds no unet, vae, text_encoder"):
        read_magicpose(tmp_path / "pruned.safetensors")
    stock = {name: t for name, t in weights.items() if not name.startswith(magicpose.PREFIXES[3:])}
    save_file(stock, tmp_path / sd15.SD15_NAMES[0], METADATA)
    assert read_magicpose(tmp_path / "pruned.safetensors").vae.path.name == sd15.SD15_NAMES[0]


def test_the_vocabulary_is_found_beside_the_file(file, weights, tmp_path):
    path = tmp_path / "magic.safetensors"
    save_file(weights, path, METADATA)
    (tmp_path / "tokenizer").mkdir()
    (tmp_path / "tokenizer" / "vocab.json").write_text("{}")
    assert read_magicpose(path).tokenizer == tmp_path / "tokenizer"
    assert read_magicpose(file).tokenizer is None


# What is refused

LDM_UNET = "model.diffusion_model.input_blocks.0.0.weight"
SDXL = {LDM_UNET: torch.zeros(1), "conditioner.embedders.1.model.x": torch.zeros(1)}
SD2 = {LDM_UNET: torch.zeros(1), "cond_stage_model.model.transformer.x": torch.zeros(1)}


@pytest.mark.parametrize(("tensors", "words"), [(SDXL, "an SDXL checkpoint"), (SD2, "a Stable Diffusion 2 checkpoint")])
def test_other_checkpoints_are_refused(tensors, words, file, tmp_path):
    path = tmp_path / "other.safetensors"
    save_file(tensors, path)
    for read in (read_magicpose, read_sd15, read_controlnet, lambda other: read_magicpose(file, base=other)):
        with pytest.raises(ValueError, match=words):
            read(path)
    with pytest.raises(ValueError, match=r"a MagicPose checkpoint, an SD 1\.5 ControlNet"):
        read_controlnet(file)


@pytest.mark.parametrize(("context", "words"), [(1024, "a ControlNet of SD 2"), (2048, "a ControlNet of SDXL")])
def test_controlnets_of_other_models_are_refused(context, words, weights, tmp_path):
    other = {
        name: torch.zeros(len(tensor), context) if name.endswith("attn2.to_k.weight") else tensor
        for name, tensor in _controlnet(weights).items()
    }
    save_file(other, tmp_path / "other.safetensors", METADATA)
    with pytest.raises(ValueError, match=words):
        read_controlnet(tmp_path / "other.safetensors")


def test_a_controlnet_whose_name_says_something_else_is_warned_of(weights, tmp_path, caplog):
    save_file(_controlnet(weights), tmp_path / "control_v11p_sd15_canny.safetensors", METADATA)
    with caplog.at_level(logging.WARNING):
        read_controlnet(tmp_path / "control_v11p_sd15_canny.safetensors")
    assert "ControlNet for canny" in caplog.text


def test_inpainting_models_are_refused(weights, tmp_path):
    wide = dict(weights) | {LDM_UNET: torch.zeros(64, 9, 3, 3)}
    save_file(wide, tmp_path / "inpainting.safetensors", METADATA)
    with pytest.raises(ValueError, match="inpainting model"):
        read_magicpose(tmp_path / "inpainting.safetensors")


def test_a_file_cut_short_of_tensors_names_them(weights, tmp_path):
    lacking = {name: t for name, t in weights.items() if "appearance_control_model.middle_block" not in name}
    save_file(lacking, tmp_path / "lacking.safetensors", METADATA)
    with pytest.raises(ValueError, match=r"does not fit MagicPose's appearance network: \d+ missing"):
        load_magicpose(tmp_path / "lacking.safetensors")


def test_published_configuration():
    config = manifests.config(WHOLE)
    assert SD15_UNET["block_out_channels"] == tuple(config["model_channels"] * m for m in config["channel_mult"])
    assert SD15_UNET["layers_per_block"] == config["num_res_blocks"]
    assert CONFIGS["vae"]["block_out_channels"] == tuple(config["vae"]["ch"] * m for m in config["vae"]["ch_mult"])


def test_random_weights_fill_every_network():
    for name, build in BUILDERS.items():
        small = UNTRAINED_CONFIG.get(name, UNTRAINED_CONFIG["unet"])
        assert differences(random_weights(lambda b=build, c=small: b(c), 1), build(small).state_dict()) == []
