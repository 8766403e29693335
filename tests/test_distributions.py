"""FID, FVD and LPIPS with networks of their own, against their definitions."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from choreo.evaluation import metrics
from choreo.evaluation.command import Evaluate, weights_notes
from choreo.evaluation.distributions import Distributions, FrameFeatures, VideoFeatures, frechet_distance
from choreo.evaluation.metrics import Lpips
from choreo.evaluation.protocol import Settings, evaluate
from choreo.runtime import Runtime, use
from torch import nn

from .test_evaluate import SIZE, Figures, copies


@pytest.fixture(autouse=True)
def on_the_cpu():
    with use(Runtime("cpu", torch.float32)):
        yield


def by_matrices(found: np.ndarray, true: np.ndarray) -> float:
    """The distance as the paper writes it, by eigenvalues of the product of covariances."""
    one, other = (np.cov(features, rowvar=False) for features in (found, true))
    root = np.sqrt(np.abs(np.linalg.eigvals(one @ other).real)).sum()
    return float(((found.mean(0) - true.mean(0)) ** 2).sum() + np.trace(one) + np.trace(other) - 2 * root)


@pytest.mark.parametrize("number", [5, 40])
def test_frechet_distance_of_few_and_of_many_features(number: int) -> None:
    rng = np.random.default_rng(0)
    found, true = rng.normal(0, 1, (number, 12)), rng.normal(0.5, 2, (30, 12))
    assert frechet_distance(found, true) == pytest.approx(by_matrices(found, true), rel=1e-6)
    assert frechet_distance(found, found[::-1]) == pytest.approx(0, abs=1e-9)
    assert frechet_distance(found, found + 3) == pytest.approx(12 * 9)
    assert np.isnan(frechet_distance(found[:1], true))


class Means(nn.Module):
    """Mean colours, times what the numbers say."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.flatten(2).mean(-1)


class Nvidia(nn.Module):
    """As NVIDIA's Inception: what is wanted lies inside."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = Means()

    def forward(self, x: torch.Tensor, return_features: bool = False) -> torch.Tensor:
        return self.layers(x) * 1000


class I3d(nn.Module):
    """As the published script: it would scale, and give logits."""

    def forward(
        self, x: torch.Tensor, rescale: bool = True, resize: bool = True, return_features: bool = False
    ) -> torch.Tensor:
        if rescale or resize or not return_features:
            return x.mean() * 1000 + torch.zeros(len(x), 400)
        return x.flatten(3).mean(-1).flatten(1)


def script(network: nn.Module, path: Path) -> Path:
    torch.jit.script(network).save(str(path))
    return path


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_networks_are_shown_frames_as_published(tmp_path: Path) -> None:
    frames = np.full((18, 20, 30, 3), (0, 128, 255), np.uint8)
    found = FrameFeatures(script(Nvidia(), tmp_path / "a.pt"))(frames)
    np.testing.assert_allclose(found, np.tile([-1, 0, 127 / 128], (18, 1)), atol=1e-6)
    np.testing.assert_array_equal(found, FrameFeatures(script(Means(), tmp_path / "b.pt"))(frames))
    frames = np.arange(18, dtype=np.uint8)[:, None, None, None] + np.zeros((18, 20, 30, 3), np.uint8)
    found = VideoFeatures(script(I3d(), tmp_path / "c.pt"))(frames)
    assert found.shape == (3, 3 * 16)
    np.testing.assert_allclose(found[:, :16], (np.arange(3)[:, None] + np.arange(16)) / 127.5 - 1, atol=1e-6)
    assert len(VideoFeatures(tmp_path / "c.pt")(frames[:15])) == 0


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_what_is_no_network_is_said_in_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "weights.pt").write_bytes(b"nothing")
    with pytest.raises(ValueError, match=r"weights\.pt is no TorchScript network, which FID needs"):
        FrameFeatures(tmp_path / "weights.pt")
    with pytest.raises(FileNotFoundError, match=r"nowhere\.pt was not found"):
        Evaluate(inception=Path("nowhere.pt")).distributions()
    torch.save({"features.0.bias": torch.zeros(2)}, tmp_path / "vgg.pth")
    with pytest.raises(ValueError, match="is not torchvision's VGG-16"):
        metrics._fill_vgg(nn.ModuleDict({"slice1": nn.Sequential(nn.Conv2d(3, 2, 1))}), tmp_path / "vgg.pth")


def colours(frames: np.ndarray) -> np.ndarray:
    return frames.mean(axis=(1, 2)).astype(np.float32)


def test_distances_are_of_all_clips_together_and_survive_an_interruption(tmp_path: Path) -> None:
    from choreo.evaluation.ledger import Ledger

    settings = Settings(clips=3, frames=2, size=SIZE, references=0)
    distributions = Distributions({"fid": colours, "fvd": lambda frames: colours(frames)[2:]})
    report = evaluate(copies, Figures(), settings, distributions=distributions, ledger=Ledger(tmp_path / "a.jsonl"))
    clips = [Figures().clip(index, 2, SIZE) for index in range(3)]
    true = np.concatenate([colours(clip.frames) for clip in clips])
    copied = np.concatenate([colours(np.stack(2 * [clip.reference])) for clip in clips])
    assert report.sets["result"]["fid"] == pytest.approx(frechet_distance(copied, true)) and true.shape == (6, 3)
    assert report.sets["copied"] == report.sets["result"] and "FID" in report.table()
    assert report.mean("result", "fid")[0] == report.sets["result"]["fid"] and "FVD" not in report.table()
    again = Distributions({"fid": lambda frames: pytest.fail("a clip was judged again"), "fvd": colours})
    resumed = evaluate(copies, Figures(), settings, distributions=again, ledger=Ledger(tmp_path / "a.jsonl"))
    assert resumed.sets == report.sets
    notes = " ".join(weights_notes({}, distributions, faces=False))
    assert "LPIPS of DisCo (--vgg)" in notes and "FID is of 6 frames" in notes and "FVD is not measured" in notes


def test_vgg_of_a_file_is_shown_pictures_in_both_ranges(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    class Network(nn.Module):
        def __init__(self, **options) -> None:
            assert options == {"net": "vgg", "pnet_rand": True, "verbose": False}
            super().__init__()
            self.net = nn.ModuleDict({"slice1": nn.Sequential(nn.Conv2d(3, 1, 1))})

        def forward(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
            return (self.net["slice1"][0](a) - b[:, :1]).mean().view(1, 1, 1, 1)

    weights = {"features.0.weight": torch.ones(1, 3, 1, 1), "features.0.bias": torch.full((1,), 5.0)}
    torch.save(weights | {"classifier.0.bias": torch.zeros(1)}, tmp_path / "vgg.pth")
    monkeypatch.setitem(sys.modules, "lpips", SimpleNamespace(LPIPS=Network))
    monkeypatch.setattr(metrics, "find_spec", lambda name: SimpleNamespace(name=name))
    white = np.full((1, 4, 5, 3), 255, np.uint8)
    assert Lpips(tmp_path / "vgg.pth")(white * 0, white) == pytest.approx(5 - 3 - 1)
    assert Lpips(tmp_path / "vgg.pth", unsigned=True)(white * 0, white) == pytest.approx(5 - 0 - 1)
