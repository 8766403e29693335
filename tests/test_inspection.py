"""`choreo inspect` names files, what is missing and what is surplus."""

from __future__ import annotations

import pytest
import torch
from choreo.model_loaders import inspection
from choreo.model_loaders.inspection import inspect
from choreo.model_loaders.tiny import UNET_FILE
from choreo.model_loaders.untrained import write_untrained
from choreo.model_loaders.untrained_magicpose import write_untrained_magicpose
from choreo.model_loaders.weights import read_metadata, read_weights
from safetensors.torch import save_file

from . import manifests


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny")
    write_untrained(folder)
    return folder


def test_a_whole_folder(tiny):
    found = inspect(tiny)
    assert [report.kind for report in found] == ["mimicmotion", "clip_vision", "svd_vae"]
    assert all(report.problems == () for report in found)
    assert all(set(report.dtypes) == {"float16"} for report in found)
    assert found[0].num_parameters == sum(tensor.numel() for tensor in read_weights(tiny / UNET_FILE).values())
    assert "default window 16 frames, by its configuration" in found[0].notes


def test_missing_and_surplus(tiny, tmp_path):
    weights, metadata = read_weights(tiny / UNET_FILE), read_metadata(tiny / UNET_FILE)
    del weights["unet.conv_out.bias"], weights["pose_net.conv_layers.0.bias"]
    weights["unet.extra"] = torch.zeros(1)
    save_file(weights, tmp_path / "m.safetensors", metadata)
    (report,) = inspect(tmp_path / "m.safetensors")
    assert report.problems == (
        "UNet: 1 missing (conv_out.bias)",
        "UNet: 1 not expected (extra)",
        "PoseNet: 1 missing (conv_layers.0.bias)",
    )


def test_a_unet_alone_tells_about_its_pose_net(tiny, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    content = read_weights(tiny / UNET_FILE)
    unet = {name[5:]: tensor for name, tensor in content.items() if name.startswith("unet.")}
    save_file(unet, tmp_path / "u.safetensors", read_metadata(tiny / UNET_FILE))
    assert "without its PoseNet" in inspect(tmp_path / "u.safetensors")[0].notes[1]
    save_file({name[9:]: t for name, t in content.items() if name.startswith("pose_net.")}, tmp_path / "pose_net.sft")
    (tmp_path / "pose_net.sft").rename(tmp_path / "pose_net.safetensors")
    assert inspect(tmp_path / "u.safetensors")[0].notes[1] == f"PoseNet: {tmp_path / 'pose_net.safetensors'}"


def test_magicpose(tmp_path):
    path = write_untrained_magicpose(tmp_path)
    weights, metadata = read_weights(path), read_metadata(path)
    assert inspect(path)[0].problems == ()
    del weights["pose_control_model.zero_convs.0.0.bias"], weights["appearance_control_model.time_embed.0.bias"]
    save_file(weights | {"model_ema.decay": torch.zeros(1)}, path, metadata)
    (report,) = inspect(path)
    assert report.problems == (
        "appearance network: 1 missing (time_embedding.linear_1.bias)",
        "pose ControlNet: 1 missing (controlnet_down_blocks.0.bias)",
    )
    assert report.notes == ("1 tensors that MagicPose has no use for, e.g. model_ema.decay",)


def test_stableanimator(tmp_path):
    write_untrained(tmp_path, system="stableanimator")
    face_encoder, _pose_net, unet = inspect(tmp_path / "stableanimator")
    assert (face_encoder.kind, unet.kind) == ("stableanimator_face_encoder", "stableanimator_unet")
    assert not face_encoder.problems and not unet.problems
    assert f"face encoder: {face_encoder.path}" in unet.notes
    weights = read_weights(unet.path)
    name = next(name for name in weights if name.endswith("id_to_v.weight"))
    del weights[name]
    save_file(weights, unet.path, read_metadata(unet.path))
    assert inspect(unet.path)[0].problems == (f"UNet: 1 missing ({name})",)


def test_an_empty_folder(tmp_path):
    with pytest.raises(FileNotFoundError, match="holds no weights"):
        inspect(tmp_path)


OURS = [name for name in manifests.names() if name.startswith("mimicmotion_") and "map" not in name]
STABLE = ("stableanimator_unet", "stableanimator_pose_net", "stableanimator_face_encoder")


@pytest.mark.parametrize("name", [*OURS, *STABLE, "magicpose_model_state_110000", "mimo_image_encoder"])
def test_published_files_have_no_problems(tmp_path, monkeypatch, name):
    path = tmp_path / "file.safetensors"
    save_file({"stand-in": torch.zeros(1)}, path)
    monkeypatch.setattr(inspection, "read_weights", lambda _: manifests.weights(name))
    (report,) = inspect(path)
    assert report.problems == ()
    assert report.num_tensors == len(manifests.weights(name))
