"""Input that cannot work gives one sentence that a user of ComfyUI can act on; unusual input that can work does."""

from __future__ import annotations

import errno
import json
import re
import shutil
from copy import copy
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ..make_media import impulses, make_sound, make_video, rotate_by_flag
from .clips import ONE, detector, frames, images, poses
from .clips import SIZE as CLIP_SIZE
from .harness import Host, Value
from .svd_job import SIZE, TINY, clip, loaders, picture, pose_pictures
from .test_svd_sampling import stock_graph

EXTRACT = "ChoreoExtractPoses"
COMMANDS = re.compile(r"\bchoreo [a-z]|python -m|--\w")


def check_sentence(error: str | None, *words: str) -> None:
    assert error is not None
    assert "\n" not in error
    assert not COMMANDS.search(error), error
    for word in words:
        assert word in error, error


@pytest.fixture
def model_folder(host: Host, tmp_path: Path, monkeypatch) -> Path:
    """A models folder for MimicMotion and for SVD's parts, with the tiny model's files in it."""
    import folder_paths

    host.module("model_loaders.untrained").write_untrained(tmp_path)
    suffixes = {".safetensors", ".pth", ".ckpt"}
    for key in ("mimicmotion", "diffusers"):
        monkeypatch.setitem(folder_paths.folder_names_and_paths, key, ([str(tmp_path)], suffixes))
    folder_paths.filename_list_cache.clear()
    return tmp_path


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _save(path: Path, names: list[str]) -> None:
    from safetensors.torch import save_file

    save_file({name: torch.zeros(1) for name in names}, path)


def _as_pth(path: Path) -> None:
    torch.save({"unet.conv_in.weight": torch.zeros(200_000)}, path)
    _cut(path)


def _unet_alone(path: Path) -> None:
    from safetensors import safe_open
    from safetensors.torch import save_file

    with safe_open(path.with_name("MimicMotion_tiny.safetensors"), "pt") as file:
        unet = {key: file.get_tensor(key) for key in file.keys() if key.startswith("unet.")}  # noqa: SIM118
    save_file(unet, path)


FILES = {
    "pointer": ("m.safetensors", lambda p: p.write_bytes(b"version https://git-lfs.github.com/spec/v1\n"), "pointer"),
    "web page": ("m.safetensors", lambda p: p.write_bytes(b"<!DOCTYPE html><html></html>"), "web page"),
    "empty": ("m.safetensors", lambda p: p.touch(), "empty"),
    "cut off": ("MimicMotion_tiny.safetensors", _cut, "truncated"),
    "cut off pth": ("m.pth", _as_pth, "truncated"),
    "ControlNet": ("m.safetensors", lambda p: _save(p, ["input_hint_block.0.weight"]), "a ControlNet"),
    "LoRA": ("m.safetensors", lambda p: _save(p, ["unet.x.lora_A.weight"]), "a LoRA"),
    "SD 1": (
        "m.safetensors",
        lambda p: _save(
            p, ["model.diffusion_model.input_blocks.0.0.weight", "cond_stage_model.transformer.text_model.x"]
        ),
        "Stable Diffusion 1",
    ),
    "UNet alone": ("alone.safetensors", _unet_alone, "UNet without its PoseNet"),
}


@pytest.mark.parametrize("case", FILES)
def test_weights_that_cannot_be_used(host: Host, model_folder: Path, case: str) -> None:
    name, spoil, words = FILES[case]
    spoil(model_folder / name)
    run = host.queue({"x": ("ChoreoLoadMimicMotion", {"weights": name})})
    check_sentence(run.error, words, name)


def test_svd_parts_that_cannot_be_used(host: Host, model_folder: Path) -> None:
    weights = next((model_folder / "svd" / "vae").glob("*.safetensors"))
    _save(weights, ["encoder.down_blocks.0.x", "decoder.up_blocks.0.x"])
    check_sentence(host.queue({"x": ("ChoreoLoadSVDParts", {"folder": "svd"})}).error, "a picture VAE", weights.name)
    weights.unlink()
    host.fresh()
    check_sentence(host.queue({"x": ("ChoreoLoadSVDParts", {"folder": "svd"})}).error, "holds none of")
    shutil.rmtree(model_folder / "svd")
    check_sentence(host.queue({"x": ("ChoreoLoadSVDParts", {"folder": "svd"})}).error, "was not found", "press R")


def test_files_that_were_never_there_are_named_with_their_addresses(host: Host) -> None:
    nodes = {
        "ChoreoLoadMimicMotion": ({"weights": "MimicMotion_1-1.pth"}, "huggingface.co/tencent/MimicMotion."),
        "ChoreoLoadPoseDetector": (
            {"detector": "yolox_l.onnx", "pose_model": "dw-ll_ucoco_384.onnx"},
            "yolox_l.onnx and dw-ll_ucoco_384.onnx were not found in",
        ),
        "ChoreoLoadSVDParts": ({"folder": "stable-video-diffusion-img2vid-xt-1-1"}, "accepting the licence"),
    }
    for node, (widgets, words) in nodes.items():
        error = host.queue({"x": (node, widgets)}).error
        check_sentence(error, words, str(host.folder / "models"), "https://huggingface.co/", "press R")
    # the host says it once for each input that the check names
    assert host.queue({"x": ("ChoreoLoadMimicMotion", {"weights": "MimicMotion_1-1.pth"})}).error.count("https") == 1


def as_video(path: Path) -> Value:
    from comfy_api.latest import InputImpl

    return Value(InputImpl.VideoFromFile(str(path)))


def _bytes(content: bytes):
    def write(path: Path) -> None:
        path.write_bytes(content)

    return write


VIDEOS = {
    "no frames": ("v.mp4", _bytes(b""), "empty"),
    "no video": ("v.mp4", _bytes(b"nothing of the kind" * 100), "not a video that can be read"),
    "only sound": ("v.m4a", lambda p: make_sound(p, impulses(1, [0.5])), "only sound"),
    "cut off": ("v.mp4", lambda p: _cut(make_video(p)), "cut off"),
    "gone": ("v.mp4", lambda p: None, "does not exist"),
}


@pytest.mark.parametrize("case", VIDEOS)
def test_videos_that_cannot_be_read(host: Host, tmp_path: Path, case: str) -> None:
    name, make, words = VIDEOS[case]
    make(tmp_path / name)
    run = host.queue({"x": (EXTRACT, {"frames": as_video(tmp_path / name), "detector": detector(host)})})
    check_sentence(run.error, name)
    assert re.search(words, run.error), run.error


def test_videos_are_turned_as_their_flag_says(host: Host, tmp_path: Path) -> None:
    upright = frames(2)
    path = make_video(tmp_path / "v.mp4", num_frames=2, picture=lambda i: np.rot90(upright[i]).copy())
    rotate_by_flag(path, (0, 1, -1, 0))  # a quarter turn clockwise when shown
    found = host.run(EXTRACT, frames=as_video(path), detector=detector(host))[0]
    assert found.size == CLIP_SIZE


def test_a_varying_rate_keeps_the_speed_of_motion(host: Host, tmp_path: Path) -> None:
    times = [Fraction(n, 10) for n in (0, 1, 4, 5)]
    path = make_video(tmp_path / "v.mp4", times, fps=10, picture=lambda i: frames(4)[i])
    found = host.run(EXTRACT, frames=as_video(path), detector=detector(host))[0]
    assert (len(found), found.fps) == (6, 10.0)
    assert np.array_equal(found.points[1], found.points[3])


def test_pictures_of_every_kind_become_the_same_picture(host: Host) -> None:
    pixels = picture()
    folder = host.folder / "input"
    Image.fromarray(pixels).save(folder / "plain.png")
    Image.fromarray(np.dstack([pixels, np.full(SIZE, 255, np.uint8)])).save(folder / "alpha.png")
    turned = Image.Exif()
    turned[0x0112] = 6  # shown after a quarter turn clockwise
    Image.fromarray(np.rot90(pixels).copy()).save(folder / "turned.png", exif=turned)
    results = [
        host.queue(
            {
                "load": ("LoadImage", {"image": name}),
                "fit": ("ChoreoFitPicture", {"picture": ("load", 0), "width": SIZE[1], "height": SIZE[0]}),
            }
        ).outputs["fit"][0]
        for name in ("plain.png", "alpha.png", "turned.png")
    ]
    assert results[0].shape == (1, *SIZE, 3)
    assert torch.equal(results[0], results[1])
    assert torch.equal(results[0], results[2])


def conditioned(**changed) -> dict:
    return loaders() | {"node": ("ChoreoMimicMotionConditioning", clip(pose_pictures(3)) | changed)}


def test_one_pixel_is_not_animated(host: Host) -> None:
    dot = Value(torch.zeros(1, 1, 1, 3))
    check_sentence(host.queue(conditioned(picture=dot, poses=Value(torch.zeros(2, 1, 1, 3)))).error, "1x1 pixels")
    check_sentence(host.queue({"x": ("ChoreoFitPicture", {"picture": dot})}).error, "1x1 pixels")


def test_poses_of_a_picture_of_another_size_are_brought_to_this_one(host: Host) -> None:
    found = poses(host, frames(2, (ONE,)))
    assert found.value.size != SIZE
    result = host.queue(conditioned(poses=found))
    assert result.error is None
    assert len(result.outputs["node"][2]["samples"]) == 3


@pytest.mark.parametrize(
    ("window", "overlap", "words"),
    [(1, 1, "window"), (4, 4, "overlap"), (4, 9, "overlap")],
)
def test_windows_that_cannot_cover_a_clip(host: Host, window: int, overlap: int, words: str) -> None:
    widgets = {"window": window, "overlap": overlap}
    fused = {"load": loaders()["load"], "x": ("ChoreoLatentFusion", {"model": ("load", 0), **widgets})}
    check_sentence(host.queue(fused).error, words)
    boxed = loaders() | {"x": ("ChoreoMimicMotionSampler", clip(pose_pictures(3), **widgets))}
    check_sentence(host.queue(boxed).error, words)


def test_a_vae_of_another_family_is_refused(host: Host) -> None:
    from comfy.ldm.modules.diffusionmodules.model import Decoder

    vae = host.run("ChoreoLoadSVDParts", folder=TINY)[0]
    flux, picture_vae = copy(vae), copy(vae)
    flux.latent_channels = 16
    picture_vae.first_stage_model = torch.nn.Module()
    picture_vae.first_stage_model.decoder = Decoder(
        ch=32, out_ch=3, ch_mult=(1,), num_res_blocks=1, attn_resolutions=[], in_channels=3, resolution=8, z_channels=4
    )
    latent = Value({"samples": torch.zeros(3, 4, 8, 8)})
    for other, words in ((flux, "16 latent channels"), (picture_vae, "single pictures")):
        check_sentence(host.queue(conditioned(vae=Value(other))).error, words, "VAE of SVD")
        decode = {"x": ("ChoreoDecodeVideo", {"samples": latent, "vae": Value(other)})}
        check_sentence(host.queue(decode).error, words, "VAE of SVD")


def test_a_full_disk_loses_nothing_that_was_there(host: Host, monkeypatch) -> None:
    found = poses(host, frames(1))
    before = host.run("ChoreoSavePoses", poses=found, filename_prefix="full/disk")[0]
    content = Path(before).read_bytes()

    def full(*_content: object, **_how: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    host.fresh()
    monkeypatch.setattr(Path, "write_text", full)
    run = host.queue({"x": ("ChoreoSavePoses", {"poses": found, "filename_prefix": "full/disk"})})
    check_sentence(run.error, "No space left on device", "were not saved")
    assert [path.name for path in Path(before).parent.iterdir()] == [Path(before).name]
    assert Path(before).read_bytes() == content


@pytest.mark.parametrize("fits", [4, 0], ids=["a smaller batch fits", "nothing fits"])
def test_too_little_memory_for_pose_features(host: Host, monkeypatch, fits: int) -> None:
    network = host.module("networks.pose_net").PoseNet
    forward, tried = network.forward, []

    def limited(self, pixels: torch.Tensor) -> torch.Tensor:
        tried.append(len(pixels))
        if len(pixels) > fits:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory.")
        return forward(self, pixels)

    graph = loaders() | {"node": ("ChoreoMimicMotionConditioning", clip(pose_pictures(6)))}
    wanted = host.queue(graph).outputs["node"][0][0][1]["choreo_poses"].features
    host.fresh()
    monkeypatch.setattr(network, "forward", limited)
    result = host.queue(graph)
    if fits:
        found = result.outputs["node"][0][0][1]["choreo_poses"].features
        assert max(tried) > fits
        torch.testing.assert_close(found, wanted, rtol=1e-2, atol=1e-3)
    else:
        check_sentence(result.error, "Out of memory while computing pose features")


def test_poses_that_are_no_poses(host: Host) -> None:
    (host.folder / "input" / "other.json").write_text(json.dumps({"hello": 1}))
    check_sentence(host.queue({"x": ("ChoreoLoadPoses", {"file": "other.json"})}).error, "other.json")
    (host.folder / "input" / "broken.json").write_text('[{"people": [')
    check_sentence(host.queue({"x": ("ChoreoLoadPoses", {"file": "broken.json"})}).error, "broken.json")


def test_a_clip_without_anybody_can_go_on_or_stop(host: Host) -> None:
    graph = {
        "find": (EXTRACT, {"frames": Value(images(frames(2, empty=[0, 1]))), "detector": detector(host)}),
        "pick": ("ChoreoPickPerson", {"poses": ("find", 0)}),
        "fill": ("ChoreoFillGaps", {"poses": ("pick", 0)}),
    }
    check_sentence(host.queue(graph).error, "No person")


def test_a_stock_sampler_gets_the_latents_it_needs(host: Host) -> None:
    graph = stock_graph(pose_pictures(4))
    graph["sampled"][1]["latent_image"] = Value({"samples": torch.zeros(4, 4, 4, 4)})
    check_sentence(host.queue(graph).error, "use the LATENT that comes from the same conditioning node")
