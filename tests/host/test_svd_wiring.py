"""What happens when MODEL, conditioning and sampler are not connected as meant."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from .harness import Host, Value
from .svd_job import clip, pose_pictures
from .test_svd_sampling import ksampler, stock_graph

FRAMES = 4


def tiny_weights(host: Host) -> Any:
    return host.module("model_loaders.tiny").read_tiny()[0]


def stock_model(host: Host) -> Value:
    """The same network as a stock loader gives it: without PoseNet, and nothing in it follows poses."""
    from comfy.model_patcher import ModelPatcher

    ours = host.module("host.models").model_of(tiny_weights(host))
    return Value(ModelPatcher(ours.model, ours.load_device, ours.offload_device))


def test_a_stock_model_has_no_poses_to_condition_on(host: Host) -> None:
    graph = stock_graph(pose_pictures(FRAMES))
    graph["condition"][1]["model"] = stock_model(host)
    error = host.queue(graph).error
    assert "no PoseNet" in error
    assert "Load MimicMotion" in error


@pytest.mark.parametrize("fused", [False, True], ids=["alone", "with latent fusion"])
def test_a_stock_model_does_not_ignore_poses(host: Host, fused: bool) -> None:
    stock = stock_model(host)
    graph = stock_graph(pose_pictures(FRAMES))
    if fused:
        graph["fused"][1]["model"] = stock
    else:
        graph["sampled"] = ("KSampler", ksampler("fused") | {"model": stock})
        del graph["fused"]
    calls = []
    hook = stock.value.model.diffusion_model.register_forward_pre_hook(lambda *_: calls.append(1))
    result = host.queue(graph)
    hook.remove()
    assert "connect the MODEL of Load MimicMotion to the sampler too" in result.error
    assert "\n" not in result.error
    assert not calls


def test_the_same_weights_loaded_twice_do(host: Host) -> None:
    graph = stock_graph(pose_pictures(FRAMES))
    wanted = host.queue(graph).outputs["sampled"][0]["samples"]
    graph["condition"][1]["model"] = Value(host.module("host.models").model_of(tiny_weights(host)))
    result = host.queue(graph)
    assert result.error is None
    assert torch.equal(result.outputs["sampled"][0]["samples"], wanted)


def test_poses_of_another_pose_net_are_refused(host: Host) -> None:
    weights = tiny_weights(host)
    other = replace(weights, pose_net={name: tensor * 2 for name, tensor in weights.pose_net.items()})
    graph = stock_graph(pose_pictures(FRAMES))
    graph["condition"][1]["model"] = Value(host.module("host.models").model_of(other))
    error = host.queue(graph).error
    assert "PoseNet of another MODEL" in error
    assert "one Load MimicMotion" in error


def test_sampling_without_poses_is_said(host: Host, caplog) -> None:
    graph = stock_graph(pose_pictures(FRAMES))
    conditioned = host.queue({key: graph[key] for key in ("load", "parts", "condition")}).outputs["condition"]
    bare = Value([[conditioned[1][0][0], dict(conditioned[1][0][1])]])
    graph["sampled"] = ("KSampler", ksampler("fused", positive=bare))
    assert host.queue(graph).error is None
    assert "sampled without poses" in caplog.text


def test_two_workflows_in_turn_do_not_disturb_each_other(host: Host) -> None:
    one, other = stock_graph(pose_pictures(FRAMES)), stock_graph(pose_pictures(FRAMES + 1, seed=3))
    first, between, again = (host.queue(graph).outputs["sampled"][0]["samples"] for graph in (one, other, one))
    assert torch.equal(first, again)
    assert len(between) == FRAMES + 1


def test_the_host_needs_neither_diffusers_nor_transformers(host: Host, tmp_path, monkeypatch) -> None:
    """Both are imported by many packs in versions that do not fit each other, so that importing them may fail."""
    import sys

    import folder_paths

    host.module("model_loaders.untrained").write_untrained(tmp_path)
    for key in ("mimicmotion", "diffusers"):
        monkeypatch.setitem(folder_paths.folder_names_and_paths, key, ([str(tmp_path)], {".safetensors"}))
    folder_paths.filename_list_cache.clear()
    for name in [name for name in sys.modules if name.split(".")[0] == "diffusers"]:
        monkeypatch.setitem(sys.modules, name, None)
    for package in ("diffusers", "transformers"):
        monkeypatch.setitem(sys.modules, package, None)
    inputs = clip(pose_pictures(FRAMES), steps=1)
    graph = {
        "load": ("ChoreoLoadMimicMotion", {"weights": "MimicMotion_tiny.safetensors"}),
        "parts": ("ChoreoLoadSVDParts", {"folder": "svd"}),
        "sampled": ("ChoreoMimicMotionSampler", inputs),
        "images": ("ChoreoDecodeVideo", {"samples": ("sampled", 0), "vae": ("parts", 0)}),
    }
    result = host.queue(graph)
    assert result.error is None
    assert len(result.outputs["images"][0]) == FRAMES - 1
