"""Loaders, decoding, and what MimicMotion's nodes say about input that cannot work."""

from __future__ import annotations

import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch

from .harness import Host, Value
from .svd_job import SIZE, clip, core_frames, image, loaders, picture, pose_pictures, relative
from .test_svd_sampling import ksampler, stock_graph


def latents(frames: int) -> torch.Tensor:
    return torch.randn(frames, 4, SIZE[0] // 8, SIZE[1] // 8, generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize("chunk", [3, 8])
def test_decoding_equals_the_core(host: Host, chunk: int) -> None:
    z = latents(10)
    latent = Value({"samples": z, "choreo_reference_frames": 1})
    images = host.queue(
        {
            "parts": loaders()["parts"],
            "images": ("ChoreoDecodeVideo", {"samples": latent, "vae": ("parts", 0), "chunk": chunk}),
        }
    ).outputs["images"][0]
    assert images.shape == (9, *SIZE, 3)
    difference = relative(images, core_frames(host, z * 0.18215, chunk))
    print(f"ComfyUI {host.version}: decoding in chunks of {chunk} differs from the core by {difference:.1e}")
    assert difference < 1e-3


def test_decoding_does_not_follow_free_memory(host: Host, monkeypatch) -> None:
    import comfy.model_management as mm

    vae = host.run("ChoreoLoadSVDParts", folder="tiny (built in)")[0]
    results = []
    for free in (1, 1 << 40):
        monkeypatch.setattr(mm, "get_free_memory", lambda *_args, free=free, **_more: free)
        results.append(host.run("ChoreoDecodeVideo", samples=Value({"samples": latents(9)}), vae=Value(vae))[0])
    assert torch.equal(*results)


def test_loaders_take_files(host: Host, tmp_path, monkeypatch) -> None:
    import folder_paths

    tiny = host.module("model_loaders.tiny").TINY_FOLDER
    shutil.copytree(tiny, tmp_path / "written")
    files = {"mimicmotion": tmp_path / "written", "diffusers": tmp_path / "written"}
    for key, folder in files.items():
        monkeypatch.setitem(folder_paths.folder_names_and_paths, key, ([str(folder)], {".safetensors"}))
    folder_paths.filename_list_cache.clear()
    model = host.run("ChoreoLoadMimicMotion", weights="MimicMotion_tiny.safetensors")[0]
    built_in = host.run("ChoreoLoadMimicMotion", weights="tiny (built in)")[0]
    for name, weight in built_in.model.state_dict().items():
        assert torch.equal(weight, model.model.state_dict()[name]), name
    assert host.run("ChoreoLoadSVDParts", folder="svd")[0].first_stage_model is not None
    (tmp_path / "written" / "MimicMotion_tiny.safetensors").unlink()
    host.fresh()
    folder_paths.filename_list_cache.clear()
    with pytest.raises(RuntimeError, match=r"MimicMotion_tiny\.safetensors"):
        host.run("ChoreoLoadMimicMotion", weights="MimicMotion_tiny.safetensors")


def test_a_unet_alone_finds_its_pose_net(host: Host, tmp_path, monkeypatch) -> None:
    import folder_paths
    from safetensors import safe_open
    from safetensors.torch import save_file

    host.module("model_loaders.untrained").write_untrained(tmp_path)
    with safe_open(tmp_path / "MimicMotion_tiny.safetensors", "pt") as file:
        weights, metadata = {name: file.get_tensor(name) for name in file.keys()}, file.metadata()  # noqa: SIM118
    for prefix, name in (("unet.", "deep/unet.safetensors"), ("pose_net.", "mimic_motion_pose_net.safetensors")):
        part = {key.removeprefix(prefix): tensor for key, tensor in weights.items() if key.startswith(prefix)}
        (tmp_path / "split" / name).parent.mkdir(parents=True, exist_ok=True)
        save_file(part, tmp_path / "split" / name, metadata)
    monkeypatch.setitem(
        folder_paths.folder_names_and_paths, "mimicmotion", ([str(tmp_path / "split")], {".safetensors"})
    )
    folder_paths.filename_list_cache.clear()
    model = host.run("ChoreoLoadMimicMotion", weights="deep/unet.safetensors")[0]
    found = host.module("host.models").parts_of(model).pose_net.model.state_dict()
    assert torch.equal(found["scale"], weights["pose_net.scale"])


@pytest.mark.parametrize("dtype", ["fp16", "bf16", "fp8_e4m3fn"])
def test_weights_are_kept_as_chosen(host: Host, dtype: str) -> None:
    graph = stock_graph(pose_pictures(4)) | {
        "load": ("ChoreoLoadMimicMotion", {"weights": "tiny (built in)", "weight_dtype": dtype})
    }
    result = host.queue(graph)
    assert result.error is None
    wanted = host.module("host.models").DTYPES[dtype]
    assert result.outputs["load"][0].model.diffusion_model.input_blocks[0][0].weight.dtype == wanted
    assert torch.isfinite(result.outputs["sampled"][0]["samples"]).all()


def test_poses_as_data_are_drawn(host: Host) -> None:
    poses_module = host.module("pose.poses")
    points = np.random.default_rng(0).random((3, 1, 134, 2))
    poses = poses_module.Poses(points, np.ones((3, 1, 134)), np.ones((3, 1), bool), SIZE, 15.0)
    drawn = list(host.module("pose.draw").draw_clip(poses, SIZE, "mimicmotion"))
    inputs = clip([picture(), picture()]) | {"poses": Value(poses)}
    del inputs["reference_pose"]
    graph = loaders() | {"condition": ("ChoreoMimicMotionConditioning", inputs)}
    as_data = host.queue(graph).outputs["condition"]
    as_pictures = host.queue(
        loaders() | {"condition": ("ChoreoMimicMotionConditioning", clip([drawn[0], *drawn]))}
    ).outputs["condition"]
    features = [found[0][0][1]["choreo_poses"].features for found in (as_data, as_pictures)]
    assert len(features[0]) == 4
    assert torch.equal(*features)


def test_fit_picture_follows_the_published_geometry(host: Host) -> None:
    fitted = host.run("ChoreoFitPicture", picture=image(picture()), resolution=128)[0]
    assert fitted.shape == (1, 128, 192, 3)
    assert host.run("ChoreoFitPicture", picture=image(picture()), width=80, height=64)[0].shape == (1, 64, 80, 3)


def conditioned(**changed) -> dict:
    return loaders() | {"node": ("ChoreoMimicMotionConditioning", clip(pose_pictures(3)) | changed)}


def big(height: int, width: int, frames: int = 1) -> Value:
    return Value(torch.rand(frames, height, width, 3))


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"picture": big(64, 72)}, "multiples of"),
        ({"picture": big(*SIZE, frames=2)}, "holds 2"),
        ({"poses": big(80, 80, frames=3)}, "80x80"),
        ({"poses": Value(torch.zeros(0, *SIZE, 3))}, "empty"),
        ({"reference_pose": big(*SIZE, frames=2)}, "one pose"),
        ({"pose_start": 0.6, "pose_end": 0.4}, "pose_start"),
    ],
    ids=["size", "two pictures", "pose size", "no poses", "two references", "start after end"],
)
def test_input_that_cannot_work_is_explained(host: Host, changed: dict, words: str) -> None:
    error = host.queue(conditioned(**changed)).error
    assert error is not None
    assert words in error


def test_latents_of_another_length_are_refused_before_sampling(host: Host) -> None:
    wrong = Value({"samples": torch.zeros(5, 4, SIZE[0] // 8, SIZE[1] // 8)})
    graph = stock_graph(pose_pictures(8)) | {"sampled": ("KSampler", ksampler("fused", latent_image=wrong))}
    result = host.queue(graph)
    assert "5 frames, the poses 8" in result.error


def test_models_of_another_family_are_refused(host: Host) -> None:
    import comfy.model_patcher

    device = torch.device("cpu")
    other = Value(comfy.model_patcher.ModelPatcher(torch.nn.Linear(1, 1), device, device))
    for node, inputs in (("ChoreoLatentFusion", {}), ("ChoreoMimicMotionConditioning", clip(pose_pictures(3)))):
        error = host.queue(loaders() | {"node": (node, inputs | {"model": other})}).error
        assert "Load MimicMotion" in error


def test_another_clip_vision_is_refused(host: Host) -> None:
    parts = host.module("model_loaders.tiny").read_tiny()[1]
    config = parts.image_encoder_config
    own, other = config["projection_dim"], config["projection_dim"] + 16
    weights = dict(parts.image_encoder) | {"visual_projection.weight": torch.zeros(other, config["hidden_size"])}
    changed = replace(parts, image_encoder=weights, image_encoder_config=config | {"projection_dim": other})
    clip_vision = host.module("host.svd_parts").host_clip_vision(changed)
    error = host.queue(conditioned(clip_vision=Value(clip_vision))).error
    assert f"(1, {other})" in error
    assert f"(1, {own})" in error


def test_an_empty_clip_is_not_decoded(host: Host) -> None:
    vae = host.run("ChoreoLoadSVDParts", folder="tiny (built in)")[0]
    latent = Value({"samples": latents(1), "choreo_reference_frames": 1})
    with pytest.raises(RuntimeError, match="holds no clip"):
        host.run("ChoreoDecodeVideo", samples=latent, vae=Value(vae))


def decoded(host: Host, z: torch.Tensor, **widgets: int) -> torch.Tensor:
    vae = host.run("ChoreoLoadSVDParts", folder="tiny (built in)")[0]
    return host.run("ChoreoDecodeVideo", samples=Value({"samples": z}), vae=Value(vae), **widgets)[0]


def test_tiles_and_overlaps_stay_near_the_whole(host: Host) -> None:
    z = torch.nn.functional.interpolate(latents(6), scale_factor=3, mode="bicubic")
    whole, tiled = decoded(host, z), decoded(host, z, tile=128, tile_overlap=64)
    frame_by_frame = decoded(host, z, chunk=1)
    assert tiled.shape == whole.shape
    assert (tiled - whole).abs().mean() < 0.02  # group normalisation sees a tile alone
    # Time is mixed all the same: it matters as much in tiles whether frames are decoded together.
    tiles_by_frame = decoded(host, z, tile=128, tile_overlap=64, chunk=1)
    mixing, mixing_in_tiles = ((a - b).abs().mean() for a, b in ((whole, frame_by_frame), (tiled, tiles_by_frame)))
    assert mixing > 0 and 0.5 < mixing_in_tiles / mixing < 2
    assert torch.equal(decoded(host, z, chunk=4, overlap=2)[:2], decoded(host, z, chunk=4)[:2])


def test_previews_show_the_middle_of_the_clip(host: Host) -> None:
    fusion = host.module("host.fusion")
    shown = []
    callback = fusion._previewing_the_middle(lambda step, x0, x, total: shown.append(x0[0, 0, 0, 0].item()))
    clip_now = torch.arange(9.0).view(9, 1, 1, 1)
    for step in range(3):
        callback(step, clip_now, clip_now, 3)
    assert shown == [4.0, 4.0, 4.0]
