"""StableAnimator's files load in every layout, and every missing or wrong part is explained."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from choreo.model_loaders.assemble import without_prefix
from choreo.model_loaders.mimicmotion import load_mimicmotion
from choreo.model_loaders.stableanimator import load_stableanimator
from choreo.model_loaders.tiny import STABLEANIMATOR_FOLDER
from choreo.model_loaders.untrained import UNTRAINED_UNET, write_untrained
from choreo.model_loaders.weights import read_metadata, read_weights
from choreo.networks.id_attention import id_adapters
from safetensors.torch import save_file

PARTS = ("unet", "pose_net", "face_encoder")
ADAPTER = ".attn2.processor."


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("untrained")
    write_untrained(folder, system="stableanimator")
    return folder / STABLEANIMATOR_FOLDER


@pytest.fixture(scope="module")
def weights(written):
    return {part: read_weights(written / f"{part}.safetensors") for part in PARTS}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty folder on a machine without models."""
    monkeypatch.setenv("CHOREO_MODELS", str(tmp_path / "nothing here"))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def _published(folder, weights, pattern="{}.pth"):
    """The three files as released, pickles without configuration; with one beside them, as these are no SVD-XT."""
    folder.mkdir(parents=True, exist_ok=True)
    for part in PARTS:
        torch.save(weights[part], folder / pattern.format(part))
    (folder / "config.json").write_text(json.dumps({"unet": UNTRAINED_UNET}))
    return folder


def _assert_holds(networks, weights):
    for part in PARTS:
        state = getattr(networks, part).state_dict()
        assert set(state) == set(weights[part])
        for name, tensor in state.items():
            assert torch.equal(tensor, weights[part][name]) and tensor.dtype == torch.float16
        assert not getattr(networks, part).training
    assert networks.window == 16
    assert not any(parameter.requires_grad for parameter in networks.unet.parameters())


def test_every_adapter_has_the_weights_of_the_file(written, weights):
    networks = load_stableanimator(written / "unet.safetensors")
    _assert_holds(networks, weights)
    names = [name for name in weights["unet"] if ADAPTER in name]
    assert len(names) == 2 * len(id_adapters(networks.unet)) > 0
    assert all(torch.equal(networks.unet.get_parameter(name), weights["unet"][name]) for name in names)


@pytest.mark.parametrize("layout", ["", "Animation", "checkpoints/Animation"])
def test_a_folder_of_the_release(folder, weights, layout):
    _published(folder / "release" / layout, weights)
    _assert_holds(load_stableanimator(folder / "release"), weights)


def test_a_file_finds_its_neighbours(folder, weights):
    _published(folder / "mine", weights)
    _assert_holds(load_stableanimator(folder / "mine" / "unet.pth"), weights)


def test_steps_of_the_published_trainer_are_kept_apart(folder, weights):
    other = {part: {name: tensor + 1 for name, tensor in weights[part].items()} for part in PARTS}
    _published(folder / "run", other, "{}-2000.pth")
    _published(folder / "run", other)
    _published(folder / "run", weights, "{}-4000.pth")
    _assert_holds(load_stableanimator(folder / "run" / "unet-4000.pth"), weights)


def test_a_trainers_folder(folder, written, weights):
    for part, name in (("unet", "diffusion_pytorch_model"), ("pose_net", "pose_net"), ("face_encoder", "face_encoder")):
        (folder / "checkpoint-7" / part).mkdir(parents=True)
        shutil.copy(written / f"{part}.safetensors", folder / "checkpoint-7" / part / f"{name}.safetensors")
    _assert_holds(load_stableanimator(folder / "checkpoint-7"), weights)


def test_parts_given_or_in_a_models_folder(folder, weights, monkeypatch):
    _published(folder / "models" / "stable_animator" / "Animation", weights)
    (folder / "alone").mkdir()
    torch.save(weights["unet"], folder / "alone" / "best.pth")
    shutil.copy(folder / "models/stable_animator/Animation/config.json", folder / "alone")
    _assert_holds(load_stableanimator(folder / "alone" / "best.pth"), weights)
    (folder / "models").rename(folder / "elsewhere")
    with pytest.raises(FileNotFoundError):
        load_stableanimator(folder / "alone" / "best.pth")
    parts = folder / "elsewhere" / "stable_animator" / "Animation"
    networks = load_stableanimator(
        folder / "alone" / "best.pth", parts / "pose_net.pth", str(parts / "face_encoder.pth")
    )
    _assert_holds(networks, weights)


@pytest.mark.parametrize(("part", "words"), [("pose_net", "PoseNet"), ("face_encoder", "face encoder")])
def test_a_missing_part_is_named_with_where_to_get_it(folder, weights, part, words):
    (_published(folder / "a", weights) / f"{part}.pth").unlink()
    with pytest.raises(FileNotFoundError) as caught:
        load_stableanimator(folder / "a")
    for expected in (f"StableAnimator's {words}", f"{part}.pth", "FrancisRing/StableAnimator"):
        assert expected in str(caught.value)


def test_an_empty_folder(folder):
    with pytest.raises(FileNotFoundError, match=r"holds no StableAnimator weights.*FrancisRing"):
        load_stableanimator(folder)


def test_a_unet_without_the_adapter_is_refused(folder, weights):
    _published(folder, weights)
    plain = {name: tensor for name, tensor in weights["unet"].items() if ADAPTER not in name}
    torch.save(plain, folder / "unet.pth")
    with pytest.raises(ValueError, match=r"without the identity adapter.*id_to_k.*FrancisRing"):
        load_stableanimator(folder)


def test_half_an_adapter_is_refused(folder, written, weights):
    _published(folder, weights)
    lost = next(name for name in weights["unet"] if "id_to_v" in name)
    left = {name: tensor for name, tensor in weights["unet"].items() if name != lost}
    save_file(left, folder / "unet.safetensors", read_metadata(written / "unet.safetensors"))
    with pytest.raises(ValueError, match=rf"1 missing \({lost}\)"):
        load_stableanimator(folder / "unet.safetensors")


def test_files_in_the_wrong_place_are_named(folder, weights):
    _published(folder, weights)
    unet, pose_net, face_encoder = (folder / f"{part}.pth" for part in PARTS)
    with pytest.raises(ValueError, match=r"pose_net\.pth is a PoseNet, the weights of StableAnimator's UNet"):
        load_stableanimator(pose_net)
    with pytest.raises(ValueError, match="is a StableAnimator face encoder, PoseNet weights"):
        load_stableanimator(unet, face_encoder)
    with pytest.raises(ValueError, match="is a StableAnimator UNet, the weights of StableAnimator's face encoder"):
        load_stableanimator(unet, pose_net, unet)
    with pytest.raises(ValueError, match="is a StableAnimator UNet, MimicMotion weights were expected"):
        load_mimicmotion(unet)


def test_a_face_encoder_of_another_release_is_refused(folder, weights):
    _published(folder, weights)
    wide = dict(weights["face_encoder"])
    wide["norm.weight"] = torch.ones(16)
    torch.save(wide, folder / "face_encoder.pth")
    with pytest.raises(ValueError, match=r"tokens of 16 channels, but .*unet\.pth takes 32"):
        load_stableanimator(folder)


def test_a_full_mimicmotion_checkpoint_lends_its_pose_net(folder, written, weights):
    write_untrained(folder)
    path = folder / "MimicMotion_tiny.safetensors"
    networks = load_stableanimator(written / "unet.safetensors", path)
    expected = without_prefix(read_weights(path), "pose_net.")
    assert all(torch.equal(tensor, expected[name]) for name, tensor in networks.pose_net.state_dict().items())
