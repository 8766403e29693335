"""LoRA files in three namings change the host's network alike, and as the formula says."""

from __future__ import annotations

import logging

import pytest
import torch

from .harness import Host, Value
from .svd_job import TINY, loaders, pose_pictures
from .test_svd_sampling import stock_graph

RANK, ALPHA, STRENGTH = 2, 1.0, 0.7
BLOCK = "down_blocks.1.attentions.0"
LAYERS = {  # diffusers' name: LDM's
    f"{BLOCK}.transformer_blocks.0.attn1.to_q": "input_blocks.3.1.transformer_blocks.0.attn1.to_q",
    f"{BLOCK}.temporal_transformer_blocks.0.attn1.to_out.0": "input_blocks.3.1.time_stack.0.attn1.to_out.0",
}
NAMINGS = ("LDM", "PEFT", "Kohya", "Kohya, LDM")


def plain(host: Host) -> dict[str, torch.Tensor]:
    """The weights of the network without any LoRA."""
    return host.run("ChoreoLoadMimicMotion", weights=TINY)[0].model.diffusion_model.state_dict()


def factors(weight: torch.Tensor) -> dict[str, torch.Tensor]:
    """The two matrices of a LoRA for a layer's weight."""
    generator = torch.Generator().manual_seed(weight.numel())
    shapes = {"down": (RANK, weight.shape[1]), "up": (weight.shape[0], RANK)}
    return {part: torch.randn(shape, generator=generator) for part, shape in shapes.items()}


def file_of(naming: str, network: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    weights = {}
    for diffusers, ldm in LAYERS.items():
        parts = factors(network[f"{ldm}.weight"])
        if naming == "PEFT":
            name, down, up = f"unet.{diffusers}", "lora_A", "lora_B"
        elif naming == "Kohya":
            name, down, up = "lora_unet_" + diffusers.replace(".", "_"), "lora_down", "lora_up"
        elif naming == "Kohya, LDM":
            name, down, up = "lora_unet_" + ldm.replace(".", "_"), "lora_down", "lora_up"
        else:
            name, down, up = f"diffusion_model.{ldm}", "lora_A", "lora_B"
        weights |= {f"{name}.{down}.weight": parts["down"], f"{name}.{up}.weight": parts["up"]}
        weights[f"{name}.alpha"] = torch.tensor(ALPHA)
    return weights


@pytest.fixture
def loras(host: Host, tmp_path, monkeypatch):
    """A models/loras folder: save(name, weights)."""
    import folder_paths
    from safetensors.torch import save_file

    monkeypatch.setitem(folder_paths.folder_names_and_paths, "loras", ([str(tmp_path)], {".safetensors"}))

    def save(name: str, weights: dict[str, torch.Tensor]) -> str:
        save_file({key: tensor.contiguous() for key, tensor in weights.items()}, tmp_path / name)
        folder_paths.filename_list_cache.clear()
        return name

    return save


def load(host: Host, name: str) -> tuple:
    graph = {
        "load": loaders()["load"],
        "lora": ("ChoreoLoadLora", {"model": ("load", 0), "lora": name, "strength": STRENGTH}),
    }
    result = host.queue(graph)
    return result.error, result.outputs.get("lora", (None,))[0]


def check_weights(model, network: dict[str, torch.Tensor], applied: set[str]) -> None:
    """The layers are as the formula says, or as they were."""
    import comfy.model_management as mm

    mm.load_models_gpu([model], force_patch_weights=True)
    patched = model.model.diffusion_model.state_dict()
    for diffusers, ldm in LAYERS.items():
        before = network[f"{ldm}.weight"]
        parts = factors(before)
        change = STRENGTH * ALPHA / RANK * parts["up"] @ parts["down"]
        torch.testing.assert_close(patched[f"{ldm}.weight"], before + change if diffusers in applied else before)


@pytest.mark.parametrize("naming", NAMINGS)
def test_weights_become_what_the_formula_says(host: Host, loras, naming: str) -> None:
    network = {name: tensor.clone() for name, tensor in plain(host).items()}
    error, model = load(host, loras("lora.safetensors", file_of(naming, network)))
    assert error is None
    check_weights(model, network, set(LAYERS))


SPATIAL, TEMPORAL = LAYERS
BY_STOCK = {"LDM": {SPATIAL, TEMPORAL}, "PEFT": set(), "Kohya": {SPATIAL}, "Kohya, LDM": {SPATIAL, TEMPORAL}}


@pytest.mark.parametrize("naming", NAMINGS)
@pytest.mark.parametrize("node", ["LoraLoaderModelOnly", "LoraLoader"])
def test_the_stock_loaders_apply_what_they_know_and_report_the_rest(
    host: Host, loras, caplog, node: str, naming: str
) -> None:
    network = {name: tensor.clone() for name, tensor in plain(host).items()}
    weights = file_of(naming, network)
    widgets = {"lora_name": loras("lora.safetensors", weights), "strength_model": STRENGTH}
    if node == "LoraLoader":
        widgets["clip"] = Value(None)
    graph = {"load": loaders()["load"], "lora": (node, {"model": ("load", 0), **widgets})}
    result = host.queue(graph)
    assert result.error is None
    check_weights(result.outputs["lora"][0], network, BY_STOCK[naming])
    unknown = 3 * (len(LAYERS) - len(BY_STOCK[naming]))  # down, up and alpha of a layer
    assert caplog.text.count("lora key not loaded") == unknown


def test_a_lora_changes_one_clone_and_nothing_else(host: Host, loras) -> None:
    name = loras("lora.safetensors", file_of("PEFT", plain(host)))
    graph = stock_graph(pose_pictures(4))
    before = host.queue(graph).outputs["sampled"][0]["samples"]
    with_lora = graph | {
        "lora": ("ChoreoLoadLora", {"model": ("load", 0), "lora": name, "strength": STRENGTH}),
        "fused": ("ChoreoLatentFusion", graph["fused"][1] | {"model": ("lora", 0)}),
    }
    result = host.queue(with_lora)
    assert result.error is None
    assert "load" in result.cached
    assert not torch.allclose(result.outputs["sampled"][0]["samples"], before)
    assert torch.equal(host.queue(graph).outputs["sampled"][0]["samples"], before)


def test_a_changed_file_is_read_again(host: Host, loras) -> None:
    network = plain(host)
    graph = {
        "load": loaders()["load"],
        "lora": ("ChoreoLoadLora", {"model": ("load", 0), "lora": loras("lora.safetensors", file_of("PEFT", network))}),
    }
    host.queue(graph)
    assert {"load", "lora"} <= set(host.queue(graph).cached)
    loras("lora.safetensors", file_of("LDM", network))
    again = host.queue(graph)
    assert "load" in again.cached
    assert "lora" not in again.cached


def test_layers_that_are_not_there_are_reported(host: Host, loras, caplog) -> None:
    extra = {"unet.text.to_q.lora_A.weight": torch.ones(RANK, 8), "unet.text.to_q.lora_B.weight": torch.ones(8, RANK)}
    with caplog.at_level(logging.WARNING):
        error, _ = load(host, loras("partly.safetensors", file_of("PEFT", plain(host)) | extra))
    assert error is None
    assert "1 layers of partly.safetensors were not applied: unet.text.to_q" in caplog.text
    error, _ = load(host, loras("other.safetensors", extra))
    assert "other.safetensors is no LoRA for this MODEL" in error
