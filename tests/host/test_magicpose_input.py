"""MagicPose in the host: input that cannot work gives one sentence, and other patches work beside it."""

from __future__ import annotations

from copy import copy, deepcopy
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from .harness import Host, Value
from .magicpose_job import give_files, loaders, networks, our_graph, sampled, stock_graph, written
from .svd_job import TINY, image, picture, pose_pictures, relative
from .test_bad_input import check_sentence


@pytest.fixture(autouse=True)
def files(host: Host, monkeypatch) -> Path:
    return give_files(host, monkeypatch)


def with_texts_of(model, width: int) -> Value:
    """A MODEL that says its texts have another width, as those of other Stable Diffusions do."""
    other = model.clone()
    other.model = copy(model.model)
    config = model.model.model_config
    other.model.model_config = SimpleNamespace(unet_config=config.unet_config | {"context_dim": width})
    return Value(other)


@pytest.mark.parametrize(("width", "words"), [(1024, "Stable Diffusion 2"), (2048, "Stable Diffusion XL")])
def test_other_stable_diffusions_are_refused(host: Host, width: int, words: str) -> None:
    model = host.queue(loaders()).outputs["load"][0]
    for graph, node in ((our_graph, "condition"), (stock_graph, "applied")):
        wrong = graph(pose_pictures(1), model=with_texts_of(model, width))
        check_sentence(host.queue({k: wrong[k] for k in ("load", "text", node)}).error, words, "1.5")


def test_networks_of_another_kind_are_refused(host: Host) -> None:
    graph = loaders() | {
        "video": ("ChoreoLoadMimicMotion", {"weights": TINY}),
        "applied": ("ChoreoApplyAppearance", networks() | {"model": ("video", 0)}),
    }
    check_sentence(host.queue(graph).error, "SVD_img2vid", "Stable Diffusion 1.5")


def test_the_appearance_network_is_no_model_to_sample(host: Host) -> None:
    graph = stock_graph(pose_pictures(1), model=("load", 1))
    check_sentence(host.queue(graph).error, "first MODEL of Load MagicPose")
    graph = stock_graph(pose_pictures(1))
    graph["sampled"][1]["model"] = ("load", 1)
    check_sentence(host.queue(graph).error, "makes no pictures", "Apply Appearance")


def test_a_model_that_is_no_appearance_network_is_told_of(host: Host, caplog) -> None:
    sampled(host, stock_graph(pose_pictures(1), appearance=("load", 0)))
    assert "no appearance network of MagicPose" in caplog.text


@pytest.mark.parametrize("graph", [our_graph, stock_graph], ids=["ours", "stock"])
def test_controlnets_of_another_kind_are_refused(host: Host, graph) -> None:
    control_net = host.queue(loaders()).outputs["load"][2].copy()
    control_net.control_model = deepcopy(control_net.control_model)
    for module in control_net.control_model.modules():
        if hasattr(module, "attn2"):
            module.attn2.to_k.in_features = 2048
    wrong = graph(pose_pictures(1))
    wrong["condition" if "condition" in wrong else "control"][1]["control_net"] = Value(control_net)
    check_sentence(host.queue(wrong).error, "for Stable Diffusion XL", "control_v11p_sd15_openpose")


def test_a_file_of_the_first_stage_has_no_controlnet(host: Host, tmp_path: Path, monkeypatch) -> None:
    from safetensors import safe_open
    from safetensors.torch import save_file

    with safe_open(written(host), "pt") as file:
        weights = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        metadata = file.metadata()
    first = {k.replace("appearance_control_model.", "control_model."): t for k, t in weights.items()}
    first = {key: tensor for key, tensor in first.items() if not key.startswith("pose_control_model.")}
    give_files(host, monkeypatch, tmp_path)
    save_file(first, tmp_path / "stage1.safetensors", metadata)
    graph = our_graph(pose_pictures(1))
    graph["load"][1]["weights"] = "stage1.safetensors"
    assert host.queue(graph).error is None
    [told] = [data["exception_message"] for event, data in host.server.messages if event == "execution_error"]
    check_sentence(told, "first stage", "Load ControlNet Model")
    host.fresh()
    graph = {"load": graph["load"], "applied": ("ChoreoApplyAppearance", networks())}
    assert host.queue(graph).error is None


def test_files_that_are_not_magicpose_are_refused(host: Host, tmp_path: Path, monkeypatch) -> None:
    from safetensors.torch import save_file

    give_files(host, monkeypatch, tmp_path)
    names = {
        "lora": ["unet.x.lora_A.weight"],
        "sd1": ["model.diffusion_model.input_blocks.0.0.weight", "cond_stage_model.transformer.text_model.x"],
        "sdxl": ["model.diffusion_model.input_blocks.0.0.weight", "conditioner.embedders.1.model.x"],
    }
    for name, keys in names.items():
        save_file({key: torch.zeros(1) for key in keys}, tmp_path / f"{name}.safetensors")
    for name in names:
        load = ("ChoreoLoadMagicPose", {"weights": f"{name}.safetensors"})
        check_sentence(host.queue({"x": load}).error, name, "MagicPose")
    check_sentence(host.queue({"x": ("ChoreoLoadMagicPose", {"weights": "model_state-110000.th"})}).error, "not found")


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"picture": image(picture()[:60])}, "multiples of 16"),
        ({"picture": image(picture(), picture())}, "One picture"),
        ({"start_percent": 0.6, "end_percent": 0.5}, "start_percent"),
    ],
    ids=["size", "two pictures", "percents"],
)
def test_inputs_that_do_not_fit_are_named(host: Host, changed: dict, words: str) -> None:
    graph = loaders() | {"applied": ("ChoreoApplyAppearance", networks() | changed)}
    check_sentence(host.queue(graph).error, words)


def test_grey_pictures_and_those_with_alpha_are_taken(host: Host) -> None:
    grey = [pose[..., :1] for pose in pose_pictures(2)]
    alpha = [np.concatenate([pose, pose[..., :1]], axis=2) for pose in pose_pictures(2)]
    shown = np.concatenate([picture(), picture()[..., :1]], axis=2)
    colour = sampled(host, our_graph(pose_pictures(2)))
    assert torch.equal(sampled(host, our_graph(alpha, picture=image(shown))), colour)
    three = [pose.repeat(3, axis=2) for pose in grey]
    assert torch.equal(sampled(host, our_graph(grey)), sampled(host, our_graph(three)))


def test_other_numbers_of_poses_and_frames_are_told_of(host: Host, caplog) -> None:
    graph = stock_graph(pose_pictures(2))
    graph["empty"][1]["batch_size"] = 3
    found = sampled(host, graph)
    assert "2 pose pictures and the LATENT 3 frames" in caplog.text
    graph["applied"][1]["frames_at_once"] = 2
    assert relative(sampled(host, graph), found) < 1e-5


def test_of_two_appearances_the_last_one_counts(host: Host) -> None:
    other = image(picture(9))
    twice = stock_graph(pose_pictures(1), picture=other, model=("first", 0))
    twice["first"] = ("ChoreoApplyAppearance", networks())
    assert torch.equal(sampled(host, twice), sampled(host, stock_graph(pose_pictures(1), picture=other)))


# what works beside it -------------------------------------------------------------------------------------------------


def lora(folder: Path, host: Host) -> str:
    """A LoRA file that changes one self-attention."""
    from safetensors.torch import save_file

    layer = "input_blocks.1.1.transformer_blocks.0.attn1.to_k"
    weight = host.queue(loaders()).outputs["load"][0].model.diffusion_model.state_dict()[f"{layer}.weight"]
    shapes = {"lora_down": (2, weight.shape[1]), "lora_up": (weight.shape[0], 2)}
    generator, name = torch.Generator().manual_seed(1), "lora_unet_" + layer.replace(".", "_")
    weights = {f"{name}.{part}.weight": torch.randn(shape, generator=generator) for part, shape in shapes.items()}
    save_file(weights, folder / "a.safetensors")
    return "a.safetensors"


def test_loras_work_before_and_behind_it(host: Host, tmp_path: Path, monkeypatch) -> None:
    import folder_paths

    monkeypatch.setitem(folder_paths.folder_names_and_paths, "loras", ([str(tmp_path)], {".safetensors"}))
    folder_paths.filename_list_cache.clear()
    widgets = {"lora_name": lora(tmp_path, host), "strength_model": 0.5}
    poses = pose_pictures(1)
    before = stock_graph(poses, model=("lora", 0)) | {"lora": ("LoraLoaderModelOnly", {"model": ("load", 0)} | widgets)}
    behind = stock_graph(poses) | {"lora": ("LoraLoaderModelOnly", {"model": ("applied", 0)} | widgets)}
    behind["sampled"][1]["model"] = ("lora", 0)
    plain, one, other = (sampled(host, graph) for graph in (stock_graph(poses), before, behind))
    assert torch.equal(one, other)
    assert relative(one, plain) > 1e-3
    assert torch.equal(sampled(host, stock_graph(poses)), plain)


@pytest.mark.parametrize(
    ("extra", "node", "widgets"),
    [
        ("nodes_freelunch", "FreeU_V2", {}),
        ("nodes_pag", "PerturbedAttentionGuidance", {}),
        ("nodes_hypertile", "HyperTile", {"tile_size": 32}),
        ("nodes_tomesd", "TomePatchModel", {}),
    ],
)
def test_stock_patches_work_beside_it(host: Host, extra: str, node: str, widgets: dict) -> None:
    if node not in host.nodes.NODE_CLASS_MAPPINGS:
        host.load_extra(extra)
    poses = pose_pictures(2)
    graph = stock_graph(poses) | {"patch": (node, {"model": ("applied", 0)} | widgets)}
    graph["sampled"][1]["model"] = ("patch", 0)
    found = sampled(host, graph)
    assert torch.isfinite(found).all()
    before = stock_graph(poses, model=("patch", 0)) | {"patch": (node, {"model": ("load", 0)} | widgets)}
    assert relative(sampled(host, before), found) < 1e-5 or node == "TomePatchModel"


def test_patches_of_cross_attention_see_every_frame(host: Host) -> None:
    """As IP-Adapter has them: they are told which frames a call has."""
    seen = []

    def patch(n, context, value, options):
        seen.append((tuple(options.get("ad_params", {}).get("sub_idxs", ())), len(n)))
        return n, context, value

    model = host.queue(loaders()).outputs["load"][0].clone()
    model.set_model_attn2_patch(patch)
    sampled(host, stock_graph(pose_pictures(3), model=Value(model), frames_at_once=2))
    assert {numbers for numbers, _ in seen} == {(0, 1), (2,)}
    assert all(rows in (len(numbers), 2 * len(numbers)) for numbers, rows in seen)


def test_frames_of_a_motion_module_stay_together(host: Host, monkeypatch) -> None:
    import comfy.model_management as mm
    from comfy.patcher_extension import PatcherInjection

    rows = []
    model = host.queue(loaders()).outputs["load"][0]
    hook = model.model.diffusion_model.register_forward_pre_hook(lambda _m, inputs: rows.append(len(inputs[0])))
    monkeypatch.setattr(mm, "get_free_memory", lambda _device=None, *more, **named: (1, 1) if more or named else 1)
    sampled(host, stock_graph(pose_pictures(3)))
    assert set(rows) == {1}
    graph = stock_graph(pose_pictures(3))
    applied = host.queue({name: graph[name] for name in ("load", "text", "applied")}).outputs["applied"][0]
    before, behind = model.clone(), applied.clone()
    for moving in (before, behind):
        moving.set_injections("motion", [PatcherInjection(inject=lambda _p: None, eject=lambda _p: None)])
    rows.clear()
    sampled(host, stock_graph(pose_pictures(3), model=Value(before)))
    graph["sampled"][1]["model"] = Value(behind)
    sampled(host, graph)
    hook.remove()
    assert set(rows) == {3}
