"""StableAnimator on the host's own network: what it loads, and that it gives what the headless core gives."""

from __future__ import annotations

import logging
import shutil
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from .. import manifests
from .harness import Host, Value
from .stableanimator_job import clip, core, core_networks, face, give_files, loaders, written
from .svd_job import SIZE, image, pose_pictures, relative, unscaled
from .svd_job import clip as mimicmotion_clip
from .svd_job import loaders as mimicmotion_loaders
from .test_bad_input import check_sentence
from .test_svd_memory import load_in_part
from .test_svd_sampling import CFG, OVERLAP, WINDOW, ksampler, stock_noise

pytestmark = pytest.mark.filterwarnings("ignore:for .*copying from a non-meta")
ADAPTER = "input_blocks.1.1.transformer_blocks.0.attn2.processor.id_to_k.weight"


@pytest.fixture(autouse=True)
def files(host: Host, monkeypatch) -> Path:
    return give_files(host, monkeypatch)


def stock_graph(poses: list, **widgets) -> dict:
    """Conditioning, latent fusion and the host's own KSampler."""
    return loaders() | {
        "condition": ("ChoreoStableAnimatorConditioning", clip(poses, **widgets)),
        "fused": ("ChoreoLatentFusion", {"model": ("load", 0), "window": WINDOW, "overlap": OVERLAP}),
        "sampled": ("KSampler", ksampler("fused")),
    }


def sampled(host: Host, graph: dict) -> torch.Tensor:
    result = host.queue(graph)
    assert result.error is None
    return result.outputs["sampled"][0]["samples"]


@pytest.mark.parametrize("frames", [4, 9], ids=["less than a window", "several windows"])
def test_ksampler_with_latent_fusion_equals_the_core(host: Host, frames: int) -> None:
    poses = pose_pictures(frames)
    settings = {"window": WINDOW, "overlap": OVERLAP, "guidance_first": CFG, "guidance_last": CFG}
    wanted = core(host, poses, stock_noise(frames)[:WINDOW], noise_aug_strength=0.0, **settings)
    found = sampled(host, stock_graph(poses, noise_aug_strength=0.0))
    difference = relative(found, unscaled(wanted))
    print(f"ComfyUI {host.version}: KSampler, {frames} frames, differs from the core by {difference:.1e}")
    assert difference < 1e-3


def test_the_strength_of_the_identity_is_the_cores(host: Host) -> None:
    poses, half = pose_pictures(4), {"identity_strength": 0.5, "noise_aug_strength": 0.0}
    settings = {"window": WINDOW, "overlap": OVERLAP, "guidance_first": CFG, "guidance_last": CFG}
    wanted = core(host, poses, stock_noise(4)[:WINDOW], **half, **settings)
    found = sampled(host, stock_graph(poses, **half))
    assert relative(found, unscaled(wanted)) < 1e-3
    assert relative(sampled(host, stock_graph(poses, noise_aug_strength=0.0)), found) > 0.05


def test_a_picture_that_has_to_be_cut_is_prepared_as_in_the_core(host: Host) -> None:
    whole = np.random.default_rng(5).integers(0, 256, (90, 100, 3), dtype=np.uint8)
    poses = pose_pictures(2)
    fit = {"picture": image(whole), "width": SIZE[1], "height": SIZE[0], "filter": "lanczos"}
    inputs = clip(poses, noise_aug_strength=0.0) | {"picture": ("fit", 0), "whole_picture": image(whole)}
    graph = loaders() | {
        "fit": ("ChoreoFitPicture", fit),
        "condition": ("ChoreoStableAnimatorConditioning", inputs),
    }
    result = host.queue(graph)
    assert result.error is None
    positive = result.outputs["condition"][0][0]
    core, runtime = host.module("conditioning.stableanimator"), host.module("runtime")
    with torch.no_grad(), runtime.use(runtime.Runtime("cpu", torch.float32)):
        noise = {"noise": lambda *shape: torch.zeros(shape), "size": SIZE, "identity": face()}
        wanted = core.condition(*core_networks(host), whole, poses, **noise)
    assert relative(positive[0], wanted.image_embeds) < 1e-4
    assert relative(positive[1]["concat_latent_image"], wanted.image_latents) < 1e-4
    assert (positive[1]["fps"] - 1, positive[1]["motion_bucket_id"]) == tuple(wanted.time_ids[0, :2].tolist())


def test_the_face_matters_and_a_loaded_model_keeps_nothing_of_it(host: Host) -> None:
    poses = pose_pictures(3)
    one, other, again = (sampled(host, stock_graph(poses, seed=seed)) for seed in (4, 5, 4))
    assert relative(other, one) > 0.05
    assert torch.equal(one, again)


def test_one_frame_and_no_guidance_work(host: Host) -> None:
    graph = stock_graph(pose_pictures(1)) | {"sampled": ("KSampler", ksampler("load", cfg=1.0, steps=2))}
    assert torch.isfinite(sampled(host, graph)).all()


def test_patches_of_other_packs_are_called(host: Host) -> None:
    """Attention that another node replaces attends to the picture; the face is added to what it gives."""
    model = host.run(loaders()["load"][0], **loaders()["load"][1])[0].clone()
    tokens, rows = [], []

    def replace(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, options: dict) -> torch.Tensor:
        tokens.append(k.shape[1])
        return v.expand(-1, q.shape[1], -1)

    def watch(n: torch.Tensor, context: torch.Tensor, value: torch.Tensor, options: dict) -> tuple:
        rows.append(context.shape[1])
        return n, context, value

    model.set_model_attn2_replace(replace, "input", 1)
    model.set_model_attn2_patch(watch)
    wanted = sampled(host, stock_graph(pose_pictures(3)) | {"sampled": ("KSampler", ksampler("load"))})
    changed = ksampler("load") | {"model": Value(model)}
    found = sampled(host, stock_graph(pose_pictures(3)) | {"sampled": ("KSampler", changed)})
    assert set(tokens) == {1}
    assert set(rows) == {1, 5}
    assert relative(found, wanted) < 1e-4


def test_weights_of_the_adapter_are_weights_of_the_network(host: Host) -> None:
    model = host.run(loaders()["load"][0], **loaders()["load"][1])[0]
    found = host.module("model_loaders.stableanimator").read_stableanimator(written(host) / "stableanimator")
    names = host.module("model_loaders.svd_keys").unet_to_ldm(found.unet, found.config["layers_per_block"])
    network = model.model.diffusion_model.state_dict()
    assert network.keys() == names.keys()
    assert torch.equal(network[ADAPTER], names[ADAPTER].to(network[ADAPTER].dtype))
    assert model.model_size() >= sum(tensor.nbytes for tensor in network.values())
    patched = model.clone()
    assert patched.add_patches({f"diffusion_model.{ADAPTER}": (torch.ones_like(network[ADAPTER]),)}, 0.5)


def predict(model, face_tokens: torch.Tensor, device: str, frames: int = 2) -> torch.Tensor:
    """The UNet for one condition with these face tokens."""
    config = model.model.model_config.unet_config
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(frames, 8, SIZE[0] // 8, SIZE[1] // 8, generator=generator).to(device)
    picture = torch.randn(1, 1, config["context_dim"], generator=generator)
    context = torch.cat([picture, face_tokens], 1).expand(frames, -1, -1).to(device)
    y = torch.ones(frames, config["adm_in_channels"], device=device)
    options = {"wrappers": model.wrappers, "uuids": ["a"]}
    with torch.inference_mode():
        network = model.model.diffusion_model
        time = torch.zeros(frames, device=device)
        return network(x, time, context=context, y=y, num_video_frames=frames, transformer_options=options)


def test_a_partly_loaded_model_gives_the_same(host: Host, monkeypatch) -> None:
    import comfy.model_management as mm

    free = 1 << 40
    monkeypatch.setattr(mm, "get_free_memory", lambda _device=None, both=False: (free, free) if both else free)
    model = host.run(loaders()["load"][0], **loaders()["load"][1])[0]
    encoder = host.module("host.models").parts_of(model).face_encoder
    rows = torch.from_numpy(face())[None], torch.ones(1, 1, encoder.model.fusion_model.proj_in.in_features)
    with torch.inference_mode():
        tokens = encoder.model(*rows)
        before = predict(model, tokens, "cpu")
        assert torch.equal(load_in_part(encoder, "cpu")(*rows), tokens)
        assert load_in_part(encoder, "meta")(*(row.to("meta") for row in rows)).device.type == "meta"
    load_in_part(model, "cpu")
    assert torch.equal(predict(model, tokens, "cpu"), before)
    load_in_part(model, "meta")
    assert predict(model, tokens, "meta").device.type == "meta"


@pytest.mark.parametrize("dtype", ["fp16", "fp8_e4m3fn"])
def test_weights_are_kept_as_chosen(host: Host, dtype: str) -> None:
    name, widgets = loaders()["load"]
    graph = stock_graph(pose_pictures(2)) | {"load": (name, widgets | {"weight_dtype": dtype})}
    result = host.queue(graph)
    assert result.error is None
    wanted = host.module("host.models").DTYPES[dtype]
    assert result.outputs["load"][0].model.diffusion_model.get_parameter(ADAPTER).dtype == wanted
    assert torch.isfinite(result.outputs["sampled"][0]["samples"]).all()


def test_parts_are_found_in_every_folder(host: Host, files: Path, tmp_path: Path, monkeypatch) -> None:
    for name, folder in (("unet", "deep/Animation"), ("pose_net", "Animation"), ("face_encoder", "other")):
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
        shutil.copy(files / "stableanimator" / f"{name}.safetensors", tmp_path / folder)
    give_files(host, monkeypatch, tmp_path)
    model = host.run("ChoreoLoadStableAnimator", weights="deep/Animation/unet.safetensors")[0]
    assert host.module("host.models").parts_of(model).face_encoder is not None
    (tmp_path / "other" / "face_encoder.safetensors").unlink()
    give_files(host, monkeypatch, tmp_path)
    host.fresh()
    error = host.queue({"x": ("ChoreoLoadStableAnimator", {"weights": "deep/Animation/unet.safetensors"})}).error
    check_sentence(error, "face encoder", "face_encoder")


def test_the_folders_of_the_older_pack_serve(host: Host, tmp_path: Path, monkeypatch) -> None:
    """Users' extra_model_paths.yaml may name them; nothing that it says is lost."""
    import folder_paths

    for folder in ("Animation", "antelopev2/antelopev2", "DWPose", "svd-xt/vae", "svd-xt/image_encoder"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "antelopev2" / "antelopev2" / "glintr100.onnx").touch()
    (tmp_path / "DWPose" / "yolox_l.onnx").touch()
    (tmp_path / "Animation" / "unet.pth").touch()
    registered = {"stable_animator": ([str(tmp_path)], set()), "insightface": (["/elsewhere"], {".onnx"})}
    monkeypatch.setattr(folder_paths, "folder_names_and_paths", folder_paths.folder_names_and_paths | registered)
    folder_paths.filename_list_cache.clear()
    host.module("host.folders").register()
    folder_paths.filename_list_cache.clear()
    assert folder_paths.get_folder_paths("stable_animator")[0] == str(tmp_path)
    assert folder_paths.get_folder_paths("insightface")[0] == "/elsewhere"

    def options(node_id: str, widget: str) -> list[str]:
        return next(i for i in host.node(node_id).define_schema().inputs if i.id == widget).options

    assert str(Path("antelopev2") / "glintr100.onnx") in options("ChoreoLoadFaceAnalyser", "recogniser")
    assert "yolox_l.onnx" in options("ChoreoLoadPoseDetector", "detector")
    assert str(Path("Animation") / "unet.pth") in options("ChoreoLoadStableAnimator", "weights")
    assert "svd-xt" in options("ChoreoLoadSVDParts", "folder")


def test_a_workflow_of_somebody_with_other_folders_runs(host: Host, files: Path, caplog) -> None:
    model = host.run("ChoreoLoadStableAnimator", weights="Animation\\unet.safetensors")[0]
    assert host.module("host.models").parts_of(model).system == "StableAnimator"
    assert "the only file of that name" in caplog.text
    error = host.queue({"x": ("ChoreoLoadStableAnimator", {"weights": "Animation/other.safetensors"})}).error
    check_sentence(error, "Animation/other.safetensors", "was not found")


def _without(part: str, path: Path) -> None:
    """Leave weights out of a file."""
    from safetensors import safe_open
    from safetensors.torch import save_file

    with safe_open(path, "pt") as file:
        weights = {key: file.get_tensor(key) for key in file.keys() if part not in key}  # noqa: SIM118
        metadata = file.metadata()
    save_file(weights, path, metadata)


FILES = {
    "no adapter": ("unet", partial(_without, ".processor."), "without the identity adapter"),
    "half an adapter": ("unet", partial(_without, "id_to_v"), "missing"),
    "pointer": ("unet", lambda p: p.write_bytes(b"version https://git-lfs.github.com/spec/v1\n"), "pointer"),
    "other encoder": ("face_encoder", lambda p: shutil.copy(p.with_name("pose_net.safetensors"), p), "a PoseNet"),
    "other PoseNet": ("pose_net", lambda p: shutil.copy(p.with_name("face_encoder.safetensors"), p), "face encoder"),
    "no PoseNet": ("pose_net", Path.unlink, "PoseNet"),
}


@pytest.mark.parametrize("case", FILES)
def test_weights_that_cannot_be_used(host: Host, files: Path, tmp_path: Path, monkeypatch, case: str) -> None:
    name, spoil, words = FILES[case]
    shutil.copytree(files, tmp_path, dirs_exist_ok=True)
    spoil(tmp_path / "stableanimator" / f"{name}.safetensors")
    give_files(host, monkeypatch, tmp_path)
    check_sentence(host.queue({"x": loaders()["load"]}).error, words)


def conditioned(**changed) -> dict:
    return loaders() | {"node": ("ChoreoStableAnimatorConditioning", clip(pose_pictures(3)) | changed)}


class Face:
    """A face whose identity has another size."""

    embedding = np.zeros(128, np.float32)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"face": Value(Face())}, "128 numbers, the MODEL needs 512"),
        ({"picture": Value(torch.rand(1, 64, 72, 3))}, "multiples of"),
        ({"poses": Value(torch.zeros(0, *SIZE, 3))}, "empty"),
        ({"poses": Value(torch.rand(2, 80, 80, 3))}, "80x80"),
        ({"pose_start": 0.6, "pose_end": 0.4}, "pose_start"),
    ],
    ids=["another recogniser", "size", "no poses", "pose size", "start after end"],
)
def test_input_that_cannot_work_is_explained(host: Host, changed: dict, words: str) -> None:
    check_sentence(host.queue(conditioned(**changed)).error, words)


def test_the_two_systems_are_not_mixed_up(host: Host) -> None:
    poses = pose_pictures(3)
    mimicmotion = mimicmotion_loaders() | {"load2": loaders()["load"], "parts2": loaders()["parts"]}
    inputs = mimicmotion_clip(poses) | {"model": ("load2", 0)}
    error = host.queue(mimicmotion | {"x": ("ChoreoMimicMotionConditioning", inputs)}).error
    check_sentence(error, "is StableAnimator, not MimicMotion", "Load MimicMotion")
    inputs = clip(poses) | {"model": ("load", 0), "vae": ("parts2", 0), "clip_vision": ("parts2", 1)}
    error = host.queue(mimicmotion | {"x": ("ChoreoStableAnimatorConditioning", inputs)}).error
    check_sentence(error, "is MimicMotion, not StableAnimator", "Load StableAnimator")
    graph = stock_graph(poses) | {"sampled": ("KSampler", ksampler("other"))}
    graph["other"] = mimicmotion_loaders()["load"]
    check_sentence(host.queue(graph).error, "PoseNet of another MODEL")


def test_the_published_files_are_taken_at_full_size(host: Host, tmp_path: Path, monkeypatch, caplog) -> None:
    import comfy.model_management as mm

    monkeypatch.setattr(mm, "unet_offload_device", lambda: torch.device("meta"))
    reader = host.module("model_loaders.stableanimator")
    for name in ("unet", "pose_net", "face_encoder"):
        (tmp_path / f"{name}.pth").touch()
    for name in ("model_loaders.stableanimator", "model_loaders.mimicmotion"):
        module = host.module(name)
        monkeypatch.setattr(module, "read_weights", lambda path: manifests.weights(f"stableanimator_{path.stem}"))
        monkeypatch.setattr(module, "read_config", lambda path: {})
    models = host.module("host.models")
    with torch.device("meta"), torch.inference_mode(), caplog.at_level(logging.INFO):
        model = models.stableanimator_of(reader.read_stableanimator(tmp_path))
    network = model.model.diffusion_model.state_dict()
    assert len(network) == 1428 + 32
    assert network[ADAPTER.replace(".1.1.", ".8.1.")].shape == (1280, 1024)
    assert not any("missing" in line or "unexpected" in line or "left over" in line for line in caplog.messages)
    assert models.size_multiple(model) == 64
    parts = models.parts_of(model, "StableAnimator")
    assert parts.window == 16
    assert len(parts.face_encoder.model.state_dict()) == len(manifests.weights("stableanimator_face_encoder"))


def test_the_published_decoder_is_taken_at_full_size(host: Host) -> None:
    parts = host.module("model_loaders.svd_keys")
    vae = {n: torch.zeros(t.shape) for n, t in manifests.weights("mimicmotion_svd_xt_1_1_vae").items()}
    state = parts.vae_to_ldm({name: tensor for name, tensor in vae.items() if name.startswith("decoder.")})
    stock = SimpleNamespace(first_stage_model=SimpleNamespace(state_dict=lambda: state))
    decoder = host.module("host.face_optimisation")._decoder_of(stock, torch.float16).state_dict()
    wanted = {n.removeprefix("decoder."): t.shape for n, t in vae.items() if n.startswith("decoder.")}
    assert {name: tensor.shape for name, tensor in decoder.items()} == wanted
