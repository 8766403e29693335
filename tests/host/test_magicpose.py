"""MagicPose on the host's own network gives what the headless core gives."""

from __future__ import annotations

import gc
from pathlib import Path

import numpy as np
import pytest
import torch

from .harness import Host, Value
from .magicpose_job import (
    STEPS,
    core,
    give_files,
    loaders,
    our_graph,
    sampled,
    start_of,
    stock_graph,
    stock_noise,
)
from .svd_job import picture, pose_pictures, relative, unscaled

FRAMES = 3
TEXTS = {"text": "a photo of a dancer", "negative_text": "blurry"}


@pytest.fixture(autouse=True)
def files(host: Host, monkeypatch) -> Path:
    return give_files(host, monkeypatch)


def with_texts(graph: dict) -> dict:
    """The graph with a text for each of positive and negative."""
    graph["text"][1]["text"] = TEXTS["text"]
    graph["other"] = ("CLIPTextEncode", {"clip": ("load", 3), "text": TEXTS["negative_text"]})
    for _, inputs in graph.values():
        if "negative" in inputs and inputs["negative"] == ("text", 0):
            inputs["negative"] = ("other", 0)
    if "condition" in graph:
        graph["condition"][1]["negative"] = ("other", 0)
    return graph


@pytest.mark.parametrize("frames", [1, FRAMES])
def test_ksampler_equals_the_core(host: Host, frames: int) -> None:
    """The host's ddim begins with a share of noise below 1, and ends with what is denoised at the last timestep."""
    poses, steps = pose_pictures(frames), 5
    _, wanted = core(host, poses, start_of(host, stock_noise(), steps), steps=steps)
    difference = relative(sampled(host, our_graph(poses, {"steps": steps})), unscaled(wanted))
    print(f"ComfyUI {host.version}: KSampler, {frames} frames, differs from the core by {difference:.1e}")
    assert difference < 1e-4


@pytest.mark.parametrize(
    ("guidance", "mode"), [("picture", "controlnet_important"), ("text", "balance")], ids=["picture", "text"]
)
@pytest.mark.parametrize("graph", [our_graph, stock_graph], ids=["ours", "stock"])
def test_texts_act_as_in_the_core(host: Host, graph, guidance: str, mode: str) -> None:
    poses = pose_pictures(2)
    _, wanted = core(host, poses, start_of(host, stock_noise()), control_mode=mode, **TEXTS)
    found = sampled(host, with_texts(graph(poses, guidance=guidance)))
    assert relative(found, unscaled(wanted)) < 1e-4


def test_stock_controlnet_nodes_give_the_same(host: Host) -> None:
    poses = pose_pictures(FRAMES)
    assert torch.equal(sampled(host, stock_graph(poses)), sampled(host, our_graph(poses)))


def test_guidance_by_picture_and_text_is_that_by_picture_where_texts_are_equal(host: Host) -> None:
    poses = pose_pictures(2)
    graph = stock_graph(poses, guidance="picture and text")
    graph["sampled"][1]["negative"] = ("text", 0)
    assert relative(sampled(host, graph), sampled(host, stock_graph(poses))) < 1e-5
    assert relative(sampled(host, with_texts(graph)), sampled(host, stock_graph(poses))) > 1e-3


def test_without_guidance_nothing_is_unconditional(host: Host) -> None:
    poses, calls = pose_pictures(2), []
    _, wanted = core(host, poses, start_of(host, stock_noise()), guidance=1.0)
    graph = our_graph(poses, {"cfg": 1.0})
    network = host.queue({"load": graph["load"]}).outputs["load"][0].model.diffusion_model
    hook = network.register_forward_pre_hook(lambda *_: calls.append(1))
    found = sampled(host, graph)
    hook.remove()
    assert relative(found, unscaled(wanted)) < 1e-4
    assert len(calls) == STEPS


@pytest.mark.parametrize("at_once", [1, 2])
def test_batches_of_frames_do_not_change_the_result(host: Host, at_once: int) -> None:
    poses = pose_pictures(FRAMES)
    for guidance in ("picture", "text"):
        whole = sampled(host, our_graph(poses, guidance=guidance))
        parts = sampled(host, our_graph(poses, guidance=guidance, frames_at_once=at_once))
        assert relative(parts, whole) < 1e-5


def test_the_bank_is_computed_once_a_step_and_gone_after_the_run(host: Host) -> None:
    calls = []
    graph = our_graph(pose_pictures(FRAMES), frames_at_once=1)
    network = host.queue({"load": graph["load"]}).outputs["load"][1].model.diffusion_model
    hook = network.register_forward_pre_hook(lambda *_: calls.append(1))
    sampled(host, graph)
    hook.remove()
    assert len(calls) == STEPS
    gc.collect()
    kept = {"_Run", "_Reader", "_Writer"}
    left = [o for o in gc.get_objects() if type(o).__name__ in kept and "appearance" in type(o).__module__]
    assert left == []


def test_texts_that_differ_by_frame_have_a_bank_each(host: Host) -> None:
    poses = pose_pictures(2)
    one, other = (sampled(host, with_text(our_graph(poses), text)) for text in ("a cat", "a dog"))
    texts = [host.queue(with_text(loaders(), text)).outputs["text"][0][0] for text in ("a cat", "a dog")]
    both = Value([[torch.cat([text for text, _ in texts]), texts[0][1]]])
    found = sampled(host, our_graph(poses, positive=both))
    assert relative(found[:1], one[:1]) < 1e-5
    assert relative(found[1:], other[1:]) < 1e-5
    parts = sampled(host, our_graph(poses, positive=both, frames_at_once=1))
    assert relative(parts, found) < 1e-5


def with_text(graph: dict, text: str) -> dict:
    graph["text"][1]["text"] = text
    return graph


def test_frames_share_their_noise_unless_told_otherwise(host: Host) -> None:
    poses = [pose_pictures(1)[0]] * 2
    same, apart = (sampled(host, stock_graph(poses, same_noise=same)) for same in (True, False))
    assert relative(same[:1], same[1:]) < 1e-5
    assert relative(apart[:1], apart[1:]) > 1e-2


def test_appearance_acts_between_its_percents(host: Host) -> None:
    poses = pose_pictures(1)
    whole = sampled(host, stock_graph(poses))
    never = sampled(host, stock_graph(poses, start_percent=1.0, end_percent=1.0))
    first = sampled(host, stock_graph(poses, end_percent=0.5))
    bare = stock_graph(poses)
    bare["sampled"][1].update(model=("load", 0), negative=("text", 0))
    assert relative(never, sampled(host, bare)) < 1e-5
    assert min(relative(first, never), relative(first, whole)) > 1e-3


def test_other_pictures_on_one_loaded_model_equal_a_fresh_load(host: Host) -> None:
    sampled(host, our_graph(pose_pictures(2)))
    changed = our_graph(pose_pictures(3, seed=3), picture=Value(torch.from_numpy(picture(9))[None].float() / 255))
    again = host.queue(changed)
    assert "load" in again.cached
    host.fresh()
    assert torch.equal(again.outputs["sampled"][0]["samples"], sampled(host, changed))


def test_pose_pictures_of_another_size_are_cut_as_published(host: Host) -> None:
    large = [np.kron(pose, np.ones((3, 2, 1), np.uint8)) for pose in pose_pictures(2)]
    _, wanted = core(host, large, start_of(host, stock_noise()))
    assert relative(sampled(host, our_graph(large)), unscaled(wanted)) < 1e-4


@pytest.mark.parametrize("steps", [3, 7, 36])
def test_steps_that_the_published_program_cannot_do(host: Host, steps: int) -> None:
    assert torch.isfinite(sampled(host, our_graph(pose_pictures(1), {"steps": steps}))).all()


@pytest.mark.parametrize("sampler", ["euler_ancestral", "dpmpp_2m_sde", "heun"])
def test_other_samplers_work(host: Host, sampler: str) -> None:
    found = sampled(host, our_graph(pose_pictures(2), {"sampler_name": sampler, "scheduler": "karras", "steps": 3}))
    assert torch.isfinite(found).all()


def test_a_stopped_run_leaves_nothing_behind(host: Host) -> None:
    graph = our_graph(pose_pictures(2))
    wanted = sampled(host, graph)
    graph["sampled"][1]["seed"] += 1
    stopped = host.queue(graph, interrupt_at=0)
    assert stopped.interrupted
    graph["sampled"][1]["seed"] -= 1
    host.fresh()
    assert torch.equal(sampled(host, graph), wanted)
