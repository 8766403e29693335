"""What users of the page see while a node runs: pictures with the progress, and warnings on the node itself."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from .clips import SIZE, detector, frames, images
from .harness import Host, Value
from .svd_job import clip, loaders, pose_pictures

EXTRACT = "ChoreoExtractPoses"


@pytest.fixture
def texts(host: Host, monkeypatch) -> list[tuple[str, str, str]]:
    """(text, node, client): what the server would show on nodes."""
    sent: list[tuple[str, str, str]] = []
    page = SimpleNamespace(client_id="page", send_progress_text=lambda *message: sent.append(message))
    monkeypatch.setitem(sys.modules, "server", SimpleNamespace(PromptServer=SimpleNamespace(instance=page)))
    return sent


def shown(run, node: str) -> list[tuple[str, torch.Tensor, int]]:
    return [preview for name, _, _, preview in run.progress if name == node and preview is not None]


def test_extraction_shows_what_it_finds(host: Host) -> None:
    pictures = frames(3)
    run = host.queue({"x": (EXTRACT, {"frames": Value(images(pictures)), "detector": detector(host)})})
    kind, picture, largest = shown(run, "x")[0]
    assert (kind, picture.size) == ("JPEG", SIZE[::-1])
    assert largest >= 256
    assert (np.asarray(picture) != pictures[0]).any(axis=-1).mean() > 0.005  # the skeleton over the frame


def test_decoding_shows_frames(host: Host) -> None:
    latent = Value({"samples": torch.zeros(4, 4, 8, 8)})
    graph = {"parts": loaders()["parts"], "x": ("ChoreoDecodeVideo", {"samples": latent, "vae": ("parts", 0)})}
    run = host.queue(graph)
    (_, picture, _) = shown(run, "x")[-1]
    assert np.abs(np.asarray(picture) / 255 - run.outputs["x"][0][-1].numpy()).max() < 0.01


def test_sampling_shows_the_middle_of_the_clip_to_the_end(host: Host, monkeypatch) -> None:
    import latent_preview

    seen = []

    def previewer(*_device_and_format: object) -> SimpleNamespace:
        return SimpleNamespace(decode_latent_to_preview_image=lambda _kind, x0: seen.append(x0[0].clone()))

    monkeypatch.setattr(latent_preview, "get_previewer", previewer)
    graph = loaders() | {"x": ("ChoreoMimicMotionSampler", clip(pose_pictures(5), steps=2))}
    result = host.queue(graph).outputs["x"][0]["samples"]
    assert len(seen) == 2
    ends = [(seen[-1] * (1 / 0.18215) - frame).abs().max().item() for frame in result]
    assert int(np.argmin(ends)) == 2


def test_a_fall_back_to_the_cpu_is_said_on_the_node_every_time(host: Host, texts: list, caplog) -> None:
    import onnxruntime

    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this onnxruntime has CUDA")
    prompt = {"x": (EXTRACT, {"frames": Value(images(frames(1))), "detector": detector(host, "cuda")})}
    for times in (1, 2):
        host.fresh()
        assert host.queue(prompt).error is None
        assert len(texts) == times
        text, node, client = texts[-1]
        assert "no cuda provider" in text
        assert (node, client) == ("x", "page")
        assert caplog.text.count("no cuda provider") == times


def test_warnings_of_one_run_stand_together(host: Host, texts: list) -> None:
    progress = host.module("host.progress")
    with progress.on_host() as runtime:
        runtime.warn("One thing.")
        runtime.warn("Another.")
        runtime.warn("One thing.")
    assert texts == []  # no node is running
    clip_with_gap = Value(images(frames(3, empty=[1])))
    host.queue({"x": (EXTRACT, {"frames": clip_with_gap, "detector": detector(host)})})
    assert [text for text, *_ in texts] == ["Nobody was found in 1 of 3 frames (frames 1)."]


def test_warnings_of_others_are_left_alone(host: Host, texts: list) -> None:
    import warnings

    progress = host.module("host.progress")
    with pytest.warns(RuntimeWarning, match="somebody else"), progress.on_host():
        warnings.warn_explicit("somebody else", RuntimeWarning, "/elsewhere/pack.py", 1)
    assert texts == []
