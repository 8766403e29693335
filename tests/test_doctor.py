"""The report of `choreo doctor`, on machines where things are there, missing or broken."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from choreo import doctor
from choreo.model_loaders.untrained import write_untrained
from choreo.runtime import Runtime, use


@pytest.fixture(autouse=True)
def _machine_without_models(tmp_path, monkeypatch):
    monkeypatch.delenv("CHOREO_MODELS", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    with use(Runtime("cpu", torch.float32)):
        yield


@pytest.fixture
def models(tmp_path) -> Path:
    """A models folder with a readable MimicMotion, and SVD by name."""
    write_untrained(tmp_path / "tiny")
    folder = tmp_path / "mine"
    (folder / "stable-video-diffusion-img2vid-xt").mkdir(parents=True)
    name = "MimicMotionMergedUnet_1-0-fp16.safetensors"
    (tmp_path / "tiny" / "MimicMotion_tiny.safetensors").rename(folder / name)
    return folder


def line(report: str, start: str) -> str:
    return next(each.strip() for each in report.splitlines() if each.strip().startswith(start))


def test_a_machine_without_weights_is_told_what_to_get():
    report = doctor.report()
    assert torch.__version__ in line(report, "torch ")
    assert line(report, "networks would run on") == "networks would run on cpu in float32"
    assert "cpu" in line(report, "providers:")
    assert line(report, "tiny model:") == "tiny model: yes"
    verdict = line(report, "MimicMotion: no")
    assert "MimicMotion_1-1.pth is missing. Get it here: https://" in verdict
    assert "stable-video-diffusion-img2vid-xt-1-1 is missing" in verdict
    assert "yolox_l.onnx is missing" in line(report, "poses from videos: no")
    assert "model_state-110000.th is missing. Get it here: " in line(report, "MagicPose: no")
    assert "cannot be told" not in report


def test_files_are_found_and_recognised(models):
    (models / "mimic_motion_pose_net.safetensors").write_bytes(b"")
    (models / "MimicMotion_1.pth").write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    report = doctor.report([models])
    assert "MimicMotion" in line(report, "MimicMotionMergedUnet_1-0").split("; ")[1]
    assert "cannot be read" in line(report, "MimicMotion_1.pth")
    (models / "MimicMotion_1.pth").unlink()
    assert "windows of 16 frames" in line(doctor.report([models]), "MimicMotion: yes")


def test_a_unet_without_its_pose_net_does_not_run(models):
    assert "needs its PoseNet" in line(doctor.report([models]), "MimicMotion: no")


def test_missing_and_broken_packages_are_lines(monkeypatch, tmp_path):
    (tmp_path / "av.py").write_text("raise OSError('libavcodec is missing\\nat length')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "av", raising=False)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    report = doctor.report()
    assert line(report, "av ") == "av is broken: OSError: libavcodec is missing"
    assert line(report, "onnxruntime ").startswith("onnxruntime is not installed")
    assert any("cannot be told" in each for each in report.splitlines())
    assert line(report, "tiny model:")


def test_a_gpu_is_told_the_largest_window(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _index: "A card")
    monkeypatch.setattr(doctor, "free_memory", lambda device: 11 * 10**9 if device.type == "cuda" else None)
    with use(SimpleNamespace(device=torch.device("cuda:0"), dtype=torch.float16)):
        report = doctor.report()
    assert line(report, "cuda:0:") == "cuda:0: A card, 11.0 GB free"
    assert line(report, "cpu:").endswith("free memory unknown")
    assert "72 frames at 576x1024" in line(report, "windows of")
    frames = int(line(report, "the largest window").split(" is ")[1].split()[0])
    assert 72 < frames < 90
