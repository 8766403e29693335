"""Opening ONNX files: providers, what a file is, and errors in plain words."""

from __future__ import annotations

import logging
import re
import warnings
from importlib import metadata

import numpy as np
import onnxruntime
import pytest
import torch
from choreo.pose import onnx_models
from choreo.pose.onnx_kinds import ARCFACE, DWPOSE, SCRFD, YOLO_NAS, YOLOX, recognise
from choreo.pose.onnx_models import available_providers, open_model

from .figures import DETECTOR, FACE_DETECTOR, POSE_NETWORK, RECOGNISER

CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"
RealSession = onnxruntime.InferenceSession


@pytest.fixture(autouse=True)
def fresh_reports(monkeypatch):
    monkeypatch.setattr(onnx_models, "_reported", set())


@pytest.fixture
def machine(monkeypatch):
    """Make the machine look as if it had these providers, packages and GPU; sessions still run on the CPU."""
    asked = {}

    def session(path, options, providers):
        asked["providers"], asked["options"] = providers, options
        return RealSession(path, options, providers=[CPU])

    def pretend(providers=(CPU,), packages=(), gpu=False):
        def distribution(name):
            if name not in packages:
                raise metadata.PackageNotFoundError(name)

        monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: list(providers))
        monkeypatch.setattr(onnxruntime, "InferenceSession", session)
        monkeypatch.setattr(onnxruntime, "preload_dlls", lambda: asked.update(preloaded=True), raising=False)
        monkeypatch.setattr(onnx_models.metadata, "distribution", distribution)
        monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
        return asked

    return pretend


@pytest.mark.parametrize(
    ("path", "kind"),
    [(DETECTOR, YOLOX), (POSE_NETWORK, DWPOSE), (FACE_DETECTOR, SCRFD), (RECOGNISER, ARCFACE)],
)
def test_networks_are_recognised_by_their_shapes(path, kind):
    with open_model(path, "cpu", expect=kind) as model:
        assert model.kind is kind
        assert model.provider == "cpu"


def test_yolo_nas_is_told_from_scrfd_by_its_outputs_and_type():
    inputs = {"input": (1, 3, 640, 640)}
    outputs = {"num": (1, 1), "boxes": (1, None, 4), "scores": (1, None), "classes": (1, None)}
    assert recognise(inputs, outputs, ["tensor(uint8)"]) is YOLO_NAS
    assert recognise(inputs, outputs, ["tensor(float)"]) is None


def test_free_sides_are_none():
    with open_model(POSE_NETWORK, "cpu") as model:
        assert model.inputs == {"input": (None, 3, 384, 288)}
        assert list(model.outputs) == ["simcc_x", "simcc_y"]


def test_wrong_network_says_what_it_is_and_what_is_needed():
    with pytest.raises(
        ValueError, match=r"tiny_glintr100\.onnx is an ArcFace .* but a YOLOX .* or a YOLO-NAS .* needed"
    ):
        open_model(RECOGNISER, "cpu", expect=(YOLOX, YOLO_NAS))


def test_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"No ONNX file at .*yolox_l\.onnx"):
        open_model(tmp_path / "yolox_l.onnx")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:7860\nsize 216746733\n", "Git-LFS pointer"),
        (b"<!doctype html><html></html>", "web page"),
        (b"", "empty"),
        (b"PK\x03\x04 something else entirely", "not an ONNX network, its download is incomplete"),
        (RECOGNISER.read_bytes()[:100_000], "download is incomplete"),
        (DETECTOR.read_bytes()[:-200], "download is incomplete"),
    ],
    ids=["lfs", "html", "empty", "other", "half", "tail missing"],
)
def test_files_that_are_no_network(tmp_path, content, message):
    path = tmp_path / "dw-ll_ucoco_384.onnx"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message) as error:
        open_model(path, "cpu")
    assert str(path) in str(error.value)


def test_unknown_provider_lists_the_known_ones():
    with pytest.raises(ValueError, match="must be one of auto, tensorrt, cuda"):
        open_model(DETECTOR, "gpu")


def test_available_providers_have_plain_names(machine):
    machine([CUDA, "AzureExecutionProvider", CPU])
    assert available_providers() == ["cuda", "cpu"]


def test_plain_cpu_machine_is_no_warning_and_is_logged_once(machine, caplog):
    machine()
    with warnings.catch_warnings(), caplog.at_level(logging.INFO):
        warnings.simplefilter("error")
        open_model(DETECTOR)
        open_model(POSE_NETWORK)
    assert [record.message for record in caplog.records] == ["onnxruntime runs networks on cpu"]


@pytest.mark.parametrize(
    ("provider", "what", "message"),
    [
        ("cuda", {}, r"no cuda provider \(it has cpu\).*uninstall every onnxruntime package"),
        ("auto", {"packages": ["onnxruntime-gpu"]}, "another onnxruntime package lies over it"),
        ("auto", {"gpu": True}, "has a GPU, but the installed onnxruntime was built without"),
        ("cuda", {"providers": [CUDA, CPU], "gpu": True}, "could not start cuda and uses cpu.*cuDNN 9"),
        ("auto", {"providers": [CUDA, CPU], "gpu": True}, "could not start cuda and uses cpu.*cuDNN 9"),
    ],
)
def test_fall_back_to_the_cpu_is_one_warning_or_with_strict_an_error(machine, provider, what, message):
    machine(**what)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        open_model(DETECTOR, provider)
        open_model(POSE_NETWORK, provider)
    assert [entry.category for entry in caught] == [RuntimeWarning]
    assert re.search(message, str(caught[0].message))
    with pytest.raises(RuntimeError, match=message):
        open_model(DETECTOR, provider, strict=True)


def test_cuda_build_without_any_gpu_uses_the_cpu_without_trying(machine, monkeypatch):
    asked = machine([CUDA, CPU])
    monkeypatch.setattr(torch.version, "cuda", None)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert open_model(DETECTOR).provider == "cpu"
    assert [name for name, _ in asked["providers"]] == [CPU]


def test_cuda_is_asked_for_with_its_options_and_torchs_libraries(machine):
    asked = machine([CUDA, CPU], gpu=True)
    with pytest.warns(RuntimeWarning):
        open_model(DETECTOR, "cuda")
    name, options = asked["providers"][0]
    assert name == CUDA and options["cudnn_conv_algo_search"] == "HEURISTIC"
    assert asked["providers"][-1][0] == CPU
    assert asked["preloaded"]


def test_directml_runs_without_memory_patterns(machine):
    asked = machine(["DmlExecutionProvider", CPU])
    with pytest.warns(RuntimeWarning):
        open_model(DETECTOR, "directml")
    assert not asked["options"].enable_mem_pattern


def test_closed_network_says_so():
    with open_model(DETECTOR, "cpu") as model:
        pass
    with pytest.raises(ValueError, match=r"tiny_yolox_l\.onnx was closed"):
        model.run(np.zeros((1, 3, 640, 640), np.float32))


class Failing:
    def __init__(self, message):
        self.message = message

    def run(self, names, inputs):
        raise RuntimeError(self.message)


def test_out_of_memory_becomes_torchs_error_and_other_errors_stay(monkeypatch):
    monkeypatch.delattr(torch, "OutOfMemoryError", raising=False)  # as before torch 2.5
    with open_model(DETECTOR, "cpu") as model:
        model._session = Failing("BFCArena::AllocateRawInternal Failed to allocate memory for requested buffer")
        with pytest.raises(torch.cuda.OutOfMemoryError, match=r"tiny_yolox_l\.onnx ran out of memory on cpu"):
            model.run(np.zeros(1))
        model._session = Failing("Got invalid dimensions for input")
        with pytest.raises(RuntimeError, match="invalid dimensions"):
            model.run(np.zeros(1))
