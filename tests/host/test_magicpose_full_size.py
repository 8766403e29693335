"""The published MagicPose checkpoint is taken by the host at full size, on the meta device, and fits stock loaders."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from .. import manifests
from .harness import Host
from .test_svd_full_size import without_values

pytestmark = pytest.mark.filterwarnings("ignore:for .*copying from a non-meta")


@pytest.fixture
def meta(monkeypatch) -> None:
    """The host makes its networks where they take no memory."""
    import comfy.model_management as mm

    for name in ("unet_offload_device", "unet_inital_load_device", "text_encoder_initial_device"):
        monkeypatch.setattr(mm, name, lambda *_call, **_more: torch.device("meta"))
    monkeypatch.setattr(mm, "load_models_gpu", lambda *_call, **_more: None)
    monkeypatch.setattr(mm, "get_free_memory", lambda *call, **_more: (1 << 40, 1 << 40) if call[1:] else 1 << 40)


def read(host: Host, monkeypatch, path: Path, manifest: str):
    """What the loader makes of a manifest."""
    loader = host.module("model_loaders.magicpose")
    monkeypatch.setattr(loader, "read_weights", lambda _path: manifests.weights(manifest))
    monkeypatch.setattr(loader, "read_config", lambda _path: {})
    path.touch()
    return loader.read_magicpose(path)


def test_all_networks_are_the_hosts_with_nothing_missing(host: Host, meta, monkeypatch, caplog, tmp_path) -> None:
    import comfy.model_base

    sd15, appearance = host.module("host.sd15"), host.module("host.appearance")
    found = read(host, monkeypatch, tmp_path / "model_state-110000.th", "magicpose_model_state_110000")
    with without_values(), caplog.at_level(logging.INFO):
        model, writer = sd15.host_unet(found.unet), sd15.host_unet(found.appearance, head=found.unet)
        control_net, clip = sd15.host_controlnet(found.controlnet), sd15.host_clip(found.text_encoder)
    # the host makes a few of the VAE's weights on the CPU wherever it is; zeros take little memory
    zeros = {name: torch.zeros(tensor.shape, dtype=tensor.dtype) for name, tensor in found.vae.weights.items()}
    vae = sd15.host_vae(replace(found.vae, weights=zeros))
    assert type(model.model) is comfy.model_base.BaseModel
    assert [len(m.model.diffusion_model.state_dict()) for m in (model, writer)] == [686, 686]
    assert len(control_net.control_model.state_dict()) == 340
    assert len(vae.first_stage_model.state_dict()) == 248
    assert len(clip.cond_stage_model.state_dict()) == 196 + len(sd15.NOT_IN_FILES)
    assert not any("missing" in line.lower() or "unexpected" in line for line in caplog.messages)
    appearance.check_networks(model, appearance.as_writer(writer))
    appearance.check_control(control_net, appearance.text_width(model))
    assert host.module("host.models").size_multiple(model) == 64


def test_a_stock_checkpoint_reads_the_bank(host: Host, meta, monkeypatch, tmp_path) -> None:
    import comfy.sd

    sd15, appearance = host.module("host.sd15"), host.module("host.appearance")
    found = read(host, monkeypatch, tmp_path / "model_state-110000.th", "magicpose_model_state_110000")
    unet = {k: t for k, t in manifests.weights("magicpose_control_sd15_ini").items() if not k.startswith("control_")}
    with without_values():
        stock = comfy.sd.load_state_dict_guess_config(unet, output_vae=False, output_clip=False)[0]
        writer = appearance.as_writer(sd15.host_unet(found.appearance, head=found.unet))
        latents = torch.empty(1, 4, 64, 64)
        applied = appearance.apply_appearance(stock, appearance.Appearance(writer, latents))
    assert applied.get_additional_models_with_key(appearance.KEY) == [writer]


def test_the_bank_has_the_published_shapes(host: Host, meta, monkeypatch, tmp_path) -> None:
    sd15, appearance = host.module("host.sd15"), host.module("host.appearance")
    found = read(host, monkeypatch, tmp_path / "model_state-110000.th", "magicpose_model_state_110000")
    with without_values():
        network = sd15.host_unet(found.appearance, head=found.unet).model.diffusion_model
        blocks = sum(hasattr(m, "attn1") for m in network.modules())
        writer = appearance._Writer(blocks)
        with pytest.raises(appearance._Complete):
            context, x = torch.empty(1, 77, 768, dtype=network.dtype), torch.empty(1, 4, 64, 64, dtype=network.dtype)
            network(x, torch.ones(1), context=context, transformer_options={"patches": {"attn1_patch": [writer]}})
    shapes = [tuple(entry.shape[1:]) for entry in writer.bank.values()]
    down = [(4096, 320)] * 2 + [(1024, 640)] * 2 + [(256, 1280)] * 2
    up = [(256, 1280)] * 3 + [(1024, 640)] * 3 + [(4096, 320)] * 3
    assert shapes == [*down, (64, 1280), *up]
