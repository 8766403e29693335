"""The command line as users meet it: what it prints, its exit status, and one sentence for every mistake."""

from __future__ import annotations

import builtins
import io
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from choreo import __main__ as entry
from choreo import cli
from choreo.media.pictures import save_picture
from choreo.model_loaders.untrained import write_untrained
from choreo.pipelines import job as job_module
from choreo.pose.openpose_json import save_json
from choreo.terminal import BETWEEN, TerminalRuntime, usable_device
from PIL import Image
from safetensors.torch import save_file

from .figures import draw
from .make_media import impulses, make_sound, make_video
from .pose_clips import clip

ANIMATE = "animate --model tiny --size 64 64 --steps 1 --reference me.png"


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("cli")
    save_picture(folder / "me.png", draw((96, 96), []))
    save_picture(folder / "pixel.png", np.zeros((1, 1, 3), np.uint8))
    make_video(folder / "dance.mp4", num_frames=2, fps=10, picture=lambda _: draw((96, 96), []))
    make_sound(folder / "song.m4a", impulses(0.5, [0.1]))
    save_json(folder / "poses.json", clip([[(100.0 + 9 * f, 100.0, 120.0)] for f in range(2)], fps=10.0))
    (folder / "empty.mp4").write_bytes(b"")
    (folder / "text.mp4").write_text("hello", encoding="utf-8")
    (folder / "cut.mp4").write_bytes((folder / "dance.mp4").read_bytes()[:600])
    (folder / "bad.json").write_text("{nope", encoding="utf-8")
    (folder / "pointer.pth").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:1\n", encoding="utf-8")
    (folder / "page.pth").write_text("<!DOCTYPE html><html></html>", encoding="utf-8")
    write_untrained(folder / "w")
    unet = folder / "w" / "MimicMotion_tiny.safetensors"
    (folder / "cut.safetensors").write_bytes(unet.read_bytes()[:5000])
    save_file({"lora_up.weight": torch.zeros(2)}, folder / "lora.safetensors")
    save_file({f"unet.{k}.weight": torch.zeros(1) for k in ("conv_in", "down_blocks.0")}, folder / "unet.safetensors")
    return folder


@pytest.fixture
def run(folder, monkeypatch, capsys):
    """run(arguments) -> (exit status, stdout, stderr); nothing may be left behind by a mistake."""
    monkeypatch.chdir(folder)
    monkeypatch.delenv("CHOREO_MODELS", raising=False)
    monkeypatch.setenv("HOME", str(folder.parent / "home"))

    def command(arguments: str):
        before = {path for path in folder.rglob("*") if path.is_file()}
        status = cli.main(arguments.split())
        said = capsys.readouterr()
        if status:
            assert {path for path in folder.rglob("*") if path.is_file()} == before
        return status, said.out, said.err

    return command


MISTAKES = {
    "--video nope.mp4": "The driving clip nope.mp4 does not exist.",
    "--poses nope": "The driving clip nope does not exist.",
    "--video dance.mp4 --reference nope.png": "The picture nope.png does not exist.",
    "--video dance.mp4 --reference pixel.png": "is only 1x1 pixels",
    "--video dance.mp4 --reference dance.mp4": "dance.mp4 is not a picture that can be read",
    "--video dance.mp4 --reference-pose nope.json": "The reference pose nope.json does not exist",
    "--video dance.mp4 --reference-pose detect": "No person was found in the reference picture",
    "--video dance.mp4": "No person was found in any of the 2 frames",
    "--video empty.mp4": "empty.mp4 is empty",
    "--video text.mp4": "text.mp4 is not a video that can be read",
    "--video cut.mp4": "cut.mp4 ",
    "--video song.m4a": "song.m4a has no video stream (only sound)",
    "--video dance.mp4 --poses poses.json": "one of the two",
    "": "one of the two",
    "--poses bad.json": "bad.json is not JSON",
    "--poses poses.json --size 70 64": "multiples of 64",
    "--poses poses.json --window 1": "window must hold at least 2 frames",
    "--poses poses.json --window 6 --overlap 6": "overlap (6) must be smaller than the window (6)",
    "--poses poses.json --overlap 16": "overlap (16) must be smaller than the window (16)",
    "--poses poses.json --steps 0": "steps must be at least 1",
    "--poses poses.json --seed -1": "seed must be a whole number",
    "--poses poses.json --guidance-first nan": "guidance_first",
    "--poses poses.json --fps 0": "fps must be above 0",
    "--poses poses.json --duration nan": "duration must be above 0",
    "--poses poses.json --start 99": "No frame is left",
    "--poses poses.json --max-frames 0": "max_frames must be 1 or more",
    "--poses poses.json --person 3 --people tracked": "There is no person number 3",
    "--poses poses.json --output noext": "end its name in",
    "--poses poses.json --output w": "end its name in",
    "--poses poses.json --output me.png/a.mp4": "me.png",
    "--video dance.mp4 --output dance.mp4": "is to be written, but it is read",
    "--poses poses.json --device nonsense": "There is no device 'nonsense' here; there is ",
}


@pytest.mark.parametrize(("arguments", "words"), MISTAKES.items())
def test_a_mistake_is_one_sentence(run, arguments, words):
    status, _, said = run(f"{ANIMATE} {arguments}")
    last = said.strip().splitlines()[-1]
    assert status == 1 and last.startswith("choreo: ") and words in last
    assert not re.search(r"Traceback|Errno|Error:|tyro", said)


@pytest.mark.parametrize(
    ("file", "words"),
    [
        ("missing.pth", "missing.pth was not found; looked in"),
        ("pointer.pth", "is a Git-LFS pointer"),
        ("page.pth", "is a web page"),
        ("cut.safetensors", "is truncated"),
        ("lora.safetensors", "is a LoRA, MimicMotion weights were expected"),
        ("unet.safetensors", "is a UNet without its PoseNet"),
    ],
)
def test_weights_that_are_no_weights(run, file, words):
    status, _, said = run(f"animate --weights {file} --svd w/svd --reference me.png --poses poses.json --size 64 64")
    assert status == 1 and words in said.strip().splitlines()[-1]


def test_own_weights_animate_and_every_stage_is_timed(run, folder, monkeypatch):
    monkeypatch.setattr("choreo.terminal.SHORTEST", 0.0)  # however fast the machine is
    weights = "--weights w/MimicMotion_tiny.safetensors --svd w/svd"
    status, out, said = run(
        f"animate {weights} --reference me.png --poses poses.json --size 64 64 --steps 1 --output o/a.mp4 --device cpu"
    )
    assert status == 0, said
    assert "Wrote o/a.mp4" in out
    assert sorted(path.name for path in (folder / "o").iterdir()) == ["a.mp4", "a_side_by_side.mp4"]
    for stage in ("loading networks", "sampling", "decoding", "total"):
        assert re.search(rf"^  {stage} +\d+\.\d s$", out, re.MULTILINE), stage


def test_pictures_of_every_kind_are_taken(run, folder):
    upright = draw((96, 64), [])
    Image.fromarray(np.dstack([upright, np.full((96, 64), 99, np.uint8)])).save(folder / "alpha.png")
    Image.fromarray(np.full((96, 64), 30000, np.uint16)).save(folder / "deep.png")
    turned = Image.fromarray(np.rot90(upright).copy())
    exif = turned.getexif()
    exif[0x0112] = 6
    turned.save(folder / "turned.jpg", exif=exif)
    for name in ("alpha.png", "deep.png", "turned.jpg"):
        status, _, said = run(f"{ANIMATE} --reference {name} --poses poses.json --output o/{name}.mp4 --max-frames 1")
        assert status == 0, said


def test_stopping_is_no_error_and_summarises(run, monkeypatch):
    def stop(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(job_module, "generate", stop)
    monkeypatch.setattr("choreo.terminal.SHORTEST", 0.0)
    status, out, said = run(f"{ANIMATE} --poses poses.json")
    assert status == 130 and said.endswith("Stopped.\n") and "loading networks" in out


def test_unknown_options_leave_with_usage(run):
    with pytest.raises(SystemExit) as left:
        cli.main(["animate", "--nonsense"])
    assert left.value.code == 2
    with pytest.raises(SystemExit) as left:
        cli.main([])
    assert left.value.code == 0


def test_inspect(run):
    status, out, _ = run("inspect w")
    assert status == 0 and "a full MimicMotion checkpoint" in out and "float16" in out and "SVD VAE" in out
    assert "window 16" in out and "missing" not in out
    status, out, _ = run("inspect unet.safetensors")
    assert status == 0 and "missing" in out and "without its PoseNet" in out
    assert run("inspect nope.pth")[0] == 1


def test_models_version_and_download(run):
    status, out, _ = run("models")
    assert status == 0 and "yolox_l.onnx" in out and "FrancisRing/StableAnimator" in out
    assert run("--version")[1].startswith("choreo ")
    status, _, said = run("download nonsense")
    assert status == 1 and "is not known; known are" in said


@pytest.mark.parametrize("package", ["tyro", "torch"])
def test_a_missing_package_is_explained(monkeypatch, capsys, package):
    real = builtins.__import__

    def without(name, *rest):
        if name == "cli":
            raise ModuleNotFoundError(f"No module named '{package}'", name=package)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    assert entry.main() == 1
    said = capsys.readouterr().err
    assert f"needs the Python package {package}" in said and "comfyui-choreo[cli]" in said


def test_a_module_runs_from_anywhere(tmp_path):
    command = [sys.executable, "-P", "-m", "choreo", "animate", "--reference", "a.png", "--video", "b.mp4"]
    finished = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert finished.returncode == 1 and finished.stderr == "choreo: The driving clip b.mp4 does not exist.\n"


def test_times_belong_to_their_stage(monkeypatch):
    clock = iter([0.0, 5.0, 7.0, 8.0, 11.0])
    monkeypatch.setattr("choreo.terminal.time.perf_counter", lambda: next(clock))
    runtime = TerminalRuntime("cpu")
    for report in (("loading", 0, 1), ("loading", 1, 1), ("sampling", 1, 2), ("sampling", 2, 2)):
        runtime.progress(*report)
    runtime.close()
    assert runtime.times == {BETWEEN: 5.0, "loading": 2.0, "sampling": 4.0}
    assert runtime.summary().splitlines()[-1].split() == ["total", "11.0", "s"]


def test_a_log_file_gets_the_time_left(monkeypatch):
    said = io.StringIO()
    monkeypatch.setattr(sys, "stderr", said)
    clock = iter([0.0, 0.0, 10.0, 40.0, 50.0])
    monkeypatch.setattr("choreo.terminal.time.perf_counter", lambda: next(clock))
    runtime = TerminalRuntime("cpu")
    for done in (0, 1, 4, 5):
        runtime.progress("sampling", done, 10)
    assert said.getvalue().splitlines() == ["sampling: 4 of 10, about 01:00 left"]


def test_devices():
    assert usable_device("cpu").type == "cpu"
    for name in ("nonsense", "cuda:99", "meta"):
        with pytest.raises(ValueError, match="device"):
            usable_device(name)
