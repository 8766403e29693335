"""MimicMotion on the host's own network gives what the headless core gives."""

from __future__ import annotations

import pytest
import torch

from .harness import Host, Value
from .svd_job import SEED, SIZE, STEPS, clip, core, loaders, picture, pose_pictures, relative, unscaled

WINDOW, OVERLAP = 6, 2
CFG = 2.5


def stock_noise(frames: int, seed: int = SEED) -> torch.Tensor:
    """The noise that the host's samplers start from."""
    return torch.randn(frames, 4, SIZE[0] // 8, SIZE[1] // 8, generator=torch.Generator().manual_seed(seed))


def stock_graph(poses: list, window: int = WINDOW, **widgets) -> dict:
    """Conditioning, latent fusion and the host's own KSampler."""
    return loaders() | {
        "condition": ("ChoreoMimicMotionConditioning", clip(poses, **widgets)),
        "fused": ("ChoreoLatentFusion", {"model": ("load", 0), "window": window, "overlap": OVERLAP}),
        "sampled": ("KSampler", ksampler("fused")),
    }


def ksampler(model: str, **changed) -> dict:
    return {
        "model": (model, 0),
        "positive": ("condition", 0),
        "negative": ("condition", 1),
        "latent_image": ("condition", 2),
        "seed": SEED,
        "steps": STEPS,
        "cfg": CFG,
        "sampler_name": "euler",
        "scheduler": "karras",
        "denoise": 1.0,
    } | changed


def compare(host: Host, graph: dict, wanted: torch.Tensor, what: str) -> None:
    result = host.queue(graph)
    assert result.error is None
    latent = result.outputs["sampled"][0]
    difference = relative(latent["samples"], unscaled(wanted))
    print(f"ComfyUI {host.version}: {what} differs from the core by {difference:.1e}")
    assert difference < 1e-3
    assert latent["choreo_reference_frames"] == 1


@pytest.mark.parametrize("frames", [5, WINDOW, 11], ids=["less than a window", "one window", "several windows"])
def test_ksampler_with_latent_fusion_equals_the_core(host: Host, frames: int) -> None:
    poses = pose_pictures(frames)
    settings = {"window": WINDOW, "overlap": OVERLAP, "guidance_first": CFG, "guidance_last": CFG}
    wanted = core(host, poses, stock_noise(frames)[:WINDOW], **settings)
    compare(host, stock_graph(poses), wanted, f"KSampler, {frames} frames")


def test_the_stock_guidance_ramp_works_with_it(host: Host) -> None:
    if "VideoLinearCFGGuidance" not in host.nodes.NODE_CLASS_MAPPINGS:
        host.load_extra("nodes_video_model")
    poses = pose_pictures(8)
    settings = {"window": WINDOW, "overlap": OVERLAP, "guidance_first": 1.0, "guidance_last": CFG, "pose_strength": 0.6}
    wanted = core(host, poses, stock_noise(8)[:WINDOW], **settings)
    graph = stock_graph(poses, pose_strength=0.6) | {
        "ramp": ("VideoLinearCFGGuidance", {"model": ("fused", 0), "min_cfg": 1.0}),
        "sampled": ("KSampler", ksampler("ramp")),
    }
    compare(host, graph, wanted, "KSampler with VideoLinearCFGGuidance")


@pytest.mark.parametrize("frames", [3, 10])
@pytest.mark.parametrize(
    "settings",
    [
        {"guidance_first": 1.0, "guidance_last": 3.0, "pose_start": 0.3, "pose_end": 0.6},
        {"guidance_first": 3.0, "guidance_last": 1.0, "noise_aug_strength": 0.2, "fps_id": 12, "motion_bucket_id": 60},
        {"guidance_first": 1.0, "guidance_last": 1.0, "sampler": "animate_lcm", "clip_method": "centre crop"},
        {"schedule": "ays", "pose_strength": 0.5, "image_embed_strength": 0.7},
    ],
    ids=["ramp", "falling ramp", "lcm", "ays"],
)
def test_the_one_box_sampler_equals_the_core(host: Host, frames: int, settings: dict) -> None:
    poses = pose_pictures(frames)
    settings = {"steps": 3, "window": WINDOW, "overlap": OVERLAP, "seed": SEED} | settings
    graph = loaders() | {"sampled": ("ChoreoMimicMotionSampler", clip(poses, **settings))}
    compare(host, graph, core(host, poses, **settings), f"one box, {frames} frames")


@pytest.mark.parametrize("sampler", ["dpm_2", "dpmpp_2m", "heun"])
def test_samplers_with_steps_between_work(host: Host, sampler: str) -> None:
    graph = stock_graph(pose_pictures(8)) | {"sampled": ("KSampler", ksampler("fused", sampler_name=sampler, steps=3))}
    result = host.queue(graph)
    assert result.error is None
    assert torch.isfinite(result.outputs["sampled"][0]["samples"]).all()


def test_other_inputs_on_one_loaded_model_equal_a_fresh_load(host: Host) -> None:
    host.queue(stock_graph(pose_pictures(8)))
    changed = stock_graph(pose_pictures(7, seed=3), pose_strength=0.5, shown=picture(9))
    again = host.queue(changed)
    assert "load" in again.cached
    host.fresh()
    fresh = host.queue(changed)
    assert not fresh.cached
    assert torch.equal(again.outputs["sampled"][0]["samples"], fresh.outputs["sampled"][0]["samples"])


def test_the_same_workflow_twice_runs_once(host: Host) -> None:
    graph = stock_graph(pose_pictures(4))
    host.queue(graph)
    assert {"load", "parts", "condition", "fused", "sampled"} <= set(host.queue(graph).cached)


def test_cached_values_are_not_modified(host: Host) -> None:
    graph = stock_graph(pose_pictures(8))
    conditioned = host.queue({name: node for name, node in graph.items() if name != "sampled"}).outputs
    model, (positive, negative, latent) = conditioned["load"][0], conditioned["condition"]
    tensors = [positive[0][0], negative[0][0], latent["samples"], positive[0][1]["choreo_poses"].features]
    tensors += [entry[0][1]["concat_latent_image"] for entry in (positive, negative)] + list(Value.kept.values())
    before = [tensor.clone() for tensor in tensors if isinstance(tensor, torch.Tensor)]
    options, keys = str(model.model_options), set(positive[0][1])
    assert host.queue(graph).error is None
    after = [tensor for tensor in tensors if isinstance(tensor, torch.Tensor)]
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    assert (options, keys) == (str(model.model_options), set(positive[0][1]))
