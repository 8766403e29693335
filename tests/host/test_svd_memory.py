"""MimicMotion under the host's memory manager: partial loads, stop, and what stays."""

from __future__ import annotations

import gc
import weakref

import pytest
import torch

from .harness import Host
from .svd_job import SIZE, clip, loaders, pose_pictures
from .test_svd_sampling import stock_graph

FRAMES = 3


@pytest.fixture
def patchers(host: Host):
    """The MODEL, and its PoseNet, as patchers of the host."""
    model = host.run("ChoreoLoadMimicMotion", weights="tiny (built in)")[0]
    return model, host.module("host.models").parts_of(model).pose_net


def load_in_part(patcher, device: str):
    """A share of the weights on the device, the rest behind."""
    patcher.load_device = torch.device(device)
    patcher.partially_load(patcher.load_device, int(0.4 * patcher.model_size()))
    assert patcher.model.model_lowvram
    return patcher.model


def predict(host: Host, network, device: str) -> torch.Tensor:
    """The UNet with poses in the first of two conditions."""
    fusion, config = host.module("host.fusion"), host.module("model_loaders.tiny").read_tiny()[0].config
    features = torch.ones(FRAMES, config["block_out_channels"][0], SIZE[0] // 8, SIZE[1] // 8, dtype=torch.float16)
    rows, generator = 2 * FRAMES, torch.Generator().manual_seed(1)
    options = {
        "patches": {"input_block_patch": [fusion.PosePatch({"a": fusion.PoseControl(features, None)})]},
        "uuids": ["a", "b"],
        "cond_or_uncond": [0, 1],
        "sigmas": torch.ones(FRAMES),
        "sample_sigmas": torch.tensor([2.0, 1.0, 0.0]),
    }
    x = torch.randn(rows, 8, SIZE[0] // 8, SIZE[1] // 8, generator=generator).to(device)
    widths = (1, config["cross_attention_dim"]), (config["projection_class_embeddings_input_dim"],)
    context, y = (torch.ones(rows, *shape, device=device) for shape in widths)
    time = torch.zeros(rows, device=device)
    with torch.inference_mode():
        return network(x, time, context=context, y=y, num_video_frames=FRAMES, transformer_options=options)


def test_a_partly_loaded_unet_leaves_nothing_behind(host: Host, patchers, monkeypatch) -> None:
    import comfy.model_management as mm

    monkeypatch.setattr(mm, "get_free_memory", lambda _device=None, both=False: (1 << 40, 1 << 40) if both else 1 << 40)
    assert predict(host, load_in_part(patchers[0], "meta").diffusion_model, "meta").device.type == "meta"


def test_a_partly_loaded_pose_net_leaves_nothing_behind(patchers) -> None:
    network = load_in_part(patchers[1], "meta")
    with torch.inference_mode():
        assert network(torch.zeros(1, 3, *SIZE, device="meta")).device.type == "meta"


def test_partial_loading_does_not_change_results(host: Host, patchers) -> None:
    model, pose_net = patchers
    pixels = torch.rand(2, 3, *SIZE)
    with torch.inference_mode():
        before = predict(host, model.model.diffusion_model, "cpu"), pose_net.model(pixels)
        after = predict(host, load_in_part(model, "cpu").diffusion_model, "cpu"), load_in_part(pose_net, "cpu")(pixels)
    assert torch.equal(before[0], after[0])
    assert torch.equal(before[1], after[1])


def test_stop_is_obeyed_within_one_call_of_the_unet(host: Host) -> None:
    import comfy.model_management as mm

    graph = stock_graph(pose_pictures(8))
    network = host.queue({"load": graph["load"]}).outputs["load"][0].model.diffusion_model
    reached = []
    hooks = [
        network.input_blocks[1][0].register_forward_pre_hook(lambda *_: mm.interrupt_current_processing()),
        network.output_blocks[0][0].register_forward_pre_hook(lambda *_: reached.append("output blocks")),
    ]
    stopped = host.queue(graph)
    for hook in hooks:
        hook.remove()
    assert stopped.interrupted
    assert not reached
    again = host.queue(graph)
    assert again.error is None
    host.fresh()
    assert torch.equal(again.outputs["sampled"][0]["samples"], host.queue(graph).outputs["sampled"][0]["samples"])


def test_stop_is_obeyed_while_pose_features_are_computed(host: Host) -> None:
    graph = loaders() | {"condition": ("ChoreoMimicMotionConditioning", clip(pose_pictures(40)))}
    assert host.queue(graph, interrupt_at=0).interrupted


def test_nothing_stays_after_a_stop(host: Host) -> None:
    import comfy.model_management as mm
    import comfy.utils

    graph = stock_graph(pose_pictures(8))
    model = host.queue({"load": graph["load"]}).outputs["load"][0].model
    hook = model.diffusion_model.input_blocks[1][0].register_forward_pre_hook(
        lambda *_: mm.interrupt_current_processing()
    )
    assert host.queue(graph).interrupted
    hook.remove()
    watched = weakref.ref(model)
    del model, hook
    mm.unload_all_models()
    host.fresh()
    comfy.utils.set_progress_bar_global_hook(None)
    gc.collect()
    assert watched() is None
    patch = host.module("host.fusion").PosePatch
    assert not any(isinstance(thing, patch) for thing in gc.get_objects())


def test_nothing_stays_that_the_host_cannot_unload(host: Host) -> None:
    import comfy.model_management as mm
    import comfy.utils

    outputs = host.queue(stock_graph(pose_pictures(8))).outputs
    model = outputs["load"][0]
    pose_net = host.module("host.models").parts_of(model).pose_net
    watched = [
        weakref.ref(thing) for thing in (model.model, pose_net.model, outputs["condition"][0][0][1]["choreo_poses"])
    ]
    mm.unload_all_models()
    assert not mm.current_loaded_models
    del model, pose_net, outputs
    host.fresh()
    comfy.utils.set_progress_bar_global_hook(None)  # the harness' hook keeps what it reports on
    gc.collect()
    assert [ref() for ref in watched] == [None, None, None]
