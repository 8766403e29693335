"""Every published MimicMotion and SVD checkpoint is taken by the host at full size, on the meta device."""

from __future__ import annotations

import logging
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from .. import manifests
from .harness import Host

pytestmark = pytest.mark.filterwarnings("ignore:for .*copying from a non-meta")
FILES = {  # manifest: what the file is called
    "mimicmotion_full": "MimicMotion_1-1.pth",
    "mimicmotion_merged_unet": "MimicMotionMergedUnet_1-1-fp16.safetensors",
    "mimicmotion_pose_net": "mimic_motion_pose_net.safetensors",
    "mimicmotion_svd_xt_1_1_vae": "vae/diffusion_pytorch_model.fp16.safetensors",
    "mimicmotion_svd_xt_1_1_image_encoder": "image_encoder/model.fp16.safetensors",
}


@pytest.fixture
def files(host: Host, tmp_path: Path, monkeypatch) -> Path:
    """A folder of the published files, which hold no values."""
    contents = {tmp_path / name: manifest for manifest, name in FILES.items()}
    for path in contents:
        path.parent.mkdir(exist_ok=True)
        path.touch()
    for name in ("model_loaders.mimicmotion", "model_loaders.svd"):
        module = host.module(name)
        monkeypatch.setattr(module, "read_weights", lambda path: manifests.weights(contents[Path(path)]))
        monkeypatch.setattr(module, "read_config", lambda path: {})
    return tmp_path


@contextmanager
def without_values():
    """Nothing that is made inside takes memory."""
    with torch.device("meta"), torch.inference_mode():
        yield


@pytest.mark.parametrize("manifest", ["mimicmotion_full", "mimicmotion_merged_unet"])
def test_mimicmotion_is_svd_with_nothing_missing(host: Host, files: Path, monkeypatch, caplog, manifest: str) -> None:
    import comfy.model_base
    import comfy.model_management as mm

    monkeypatch.setattr(mm, "unet_offload_device", lambda: torch.device("meta"))
    models = host.module("host.models")
    with without_values(), caplog.at_level(logging.INFO):
        model = models.load_model(files / FILES[manifest])
    assert type(model.model) is comfy.model_base.SVD_img2vid
    assert len(model.model.diffusion_model.state_dict()) == 1428
    assert not any("missing" in line or "unexpected" in line for line in caplog.messages)
    assert models.size_multiple(model) == 64
    assert models.context_size(model) == 1024
    assert models.parts_of(model).window == 72
    pose_net = models.parts_of(model).pose_net.model.state_dict()
    wanted = manifests.weights("mimicmotion_pose_net")
    assert {name: tensor.shape for name, tensor in pose_net.items()} == {n: t.shape for n, t in wanted.items()}


def test_svd_parts_are_taken_with_nothing_missing(host: Host, files: Path, monkeypatch, caplog) -> None:
    import comfy.model_management as mm
    from comfy.ldm.modules.temporal_ae import VideoDecoder

    monkeypatch.setattr(mm, "text_encoder_offload_device", lambda: torch.device("meta"))
    svd_parts = host.module("host.svd_parts")
    with caplog.at_level(logging.INFO):
        parts = host.module("model_loaders.svd").read_svd_parts(files)
        with without_values():
            clip_vision = svd_parts.host_clip_vision(parts)
        # the host makes a few of the VAE's weights on the CPU wherever it is; zeros take little memory
        zeros = {name: torch.zeros(tensor.shape, dtype=tensor.dtype) for name, tensor in parts.vae.items()}
        vae = svd_parts.host_vae(replace(parts, vae=zeros))
    assert isinstance(vae.first_stage_model.decoder, VideoDecoder)
    assert (vae.latent_channels, vae.downscale_ratio) == (4, 8)
    assert len(vae.first_stage_model.state_dict()) == 372
    layers = {name.split(".")[3] for name in clip_vision.model.state_dict() if ".encoder.layers." in name}
    assert len(layers) == 32
    assert not any("missing" in line.lower() or "unexpected" in line for line in caplog.messages)


def test_the_stock_loader_gives_the_same_parts(host: Host, tmp_path: Path, monkeypatch, caplog) -> None:
    """Image Only Checkpoint Loader on svd_xt*.safetensors: nothing is missing, and our nodes take what it gives."""
    import comfy.clip_vision
    import comfy.model_management as mm
    import comfy.utils
    import folder_paths

    host.load_extra("nodes_video_model")
    (tmp_path / "svd_xt_1_1.safetensors").touch()
    monkeypatch.setitem(folder_paths.folder_names_and_paths, "checkpoints", ([str(tmp_path)], {".safetensors"}))
    unet = {k: v for k, v in manifests.weights("mimicmotion_full").items() if k.startswith("unet.")}
    unet = host.module("model_loaders.svd_keys").unet_to_ldm({k.removeprefix("unet."): v for k, v in unet.items()})
    weights = {f"model.diffusion_model.{name}": tensor for name, tensor in unet.items()}
    weights |= manifests.weights("mimicmotion_svd_single_file_parts")
    # the host makes a few weights on the CPU wherever it is told to; zeros take little memory
    weights = {name: torch.zeros_like(tensor, device="cpu") for name, tensor in weights.items()}
    monkeypatch.setattr(comfy.utils, "load_torch_file", lambda *_args, **options: _answer(weights, options))
    for device in ("unet_offload_device", "unet_inital_load_device", "text_encoder_offload_device"):
        monkeypatch.setattr(mm, device, lambda *_sizes: torch.device("meta"))
    monkeypatch.setattr(mm, "load_models_gpu", lambda *_models, **_options: None)
    with torch.inference_mode(), caplog.at_level(logging.INFO):
        model, clip_vision, vae = host.node("ImageOnlyCheckpointLoader")().load_checkpoint("svd_xt_1_1.safetensors")
    assert len(model.model.diffusion_model.state_dict()) == 1428
    host.module("host.codecs").check_vae(vae)
    assert isinstance(clip_vision, comfy.clip_vision.ClipVisionModel)
    assert clip_vision.model.visual_projection.out_features == host.module("host.models").context_size(model)
    assert not any("missing" in line.lower() or "unexpected" in line for line in caplog.messages)


def _answer(weights: dict[str, torch.Tensor], options: dict[str, bool]) -> object:
    return (dict(weights), None) if options.get("return_metadata") else dict(weights)
