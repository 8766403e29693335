"""ArcFace's network: the published file at full size, torch files, and ONNX graphs in the forms exporters give them."""

from __future__ import annotations

import sys
import warnings

import numpy as np
import pytest
import torch
from choreo.model_loaders.arcface import load_arcface
from choreo.model_loaders.assemble import differences, skeleton
from choreo.networks.arcface import IRESNET_18, IResNet, iresnet_config
from safetensors.torch import save_file

from . import manifests

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
SMALL = {"layers": (2, 1, 3), "widths": (8, 12, 16), "stem": 8, "embedding": 10, "size": 32}


def random_iresnet(seed=0, **config):
    """Every weight random, those of the norms too."""
    torch.manual_seed(seed)
    network = IResNet(**config)
    with torch.no_grad():
        for name, values in network.state_dict().items():
            if name.endswith("running_var"):
                values.uniform_(0.5, 1.5)
            elif values.ndim == 1:
                values.normal_(0.3 if name.endswith("weight") else 0.0, 0.2)
    return network.eval()


class FromLevels(torch.nn.Module):
    """A network with its normalisation inside, as older exports have it."""

    def __init__(self, network, shift, factor):
        super().__init__()
        self.network, self.shift, self.factor = network, shift, factor

    def forward(self, x):
        return self.network((x - self.shift) * self.factor)


def export(network, path, size, folded=True, **options):
    mode = torch.onnx.TrainingMode.EVAL if folded else torch.onnx.TrainingMode.PRESERVE
    options = {"input_names": ["input.1"], "dynamic_axes": {"input.1": {0: "None"}}} | options
    if "dynamo" in torch.onnx.export.__code__.co_varnames:
        options["dynamo"] = False
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(network, (torch.zeros(1, 3, size, size),), str(path), training=mode, **options)
    return path


def embeddings(path, faces):
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: faces.numpy()})[0]


def kinds(path):
    return [node.op_type for node in onnx.load(path).graph.node]


def faces(size, seed=1):
    return torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def assert_same(network, path, size, given=None):
    x = faces(size)
    expected = embeddings(path, x if given is None else given(x))
    np.testing.assert_allclose(network(x).numpy(), expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())


def test_published_file_fits_at_full_size():
    weights = manifests.weights("stableanimator_glintr100_torch")
    assert iresnet_config(weights) == {
        "layers": (3, 13, 30, 3),
        "widths": (64, 128, 256, 512),
        "stem": 64,
        "embedding": 512,
        "size": 112,
    }
    assert differences(weights, skeleton(IResNet).state_dict()) == []


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("counters", [True, False])
def test_torch_files_load(tmp_path, suffix, counters):
    network = random_iresnet(**SMALL)
    state = {k: v for k, v in network.state_dict().items() if counters or not k.endswith("num_batches_tracked")}
    path = tmp_path / f"face{suffix}"
    torch.save(state, path) if suffix == ".pth" else save_file(state, path)
    loaded = load_arcface(path)
    x = faces(32)
    assert torch.equal(loaded(x), network(x))
    assert not loaded.training and not any(weight.requires_grad for weight in loaded.parameters())


@pytest.mark.parametrize("folded", [True, False])
def test_onnx_of_an_r18_gives_onnxruntimes_embeddings(tmp_path, folded):
    network = random_iresnet(layers=IRESNET_18, widths=(8, 16, 24, 32), stem=8)
    path = export(network, tmp_path / "glintr18.onnx", 112, folded)
    norms = kinds(path).count("BatchNormalization")
    assert norms == (8 + 2 if folded else 8 * 3 + 4 + 3)
    loaded = load_arcface(path)
    assert_same(loaded, path, 112)
    torch.testing.assert_close(loaded(faces(112)), network(faces(112)), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("folded", [True, False])
@pytest.mark.parametrize("options", [{}, {"do_constant_folding": False}, {"keep_initializers_as_inputs": True}])
def test_onnx_of_any_layers_and_exporter_options(tmp_path, folded, options):
    path = export(random_iresnet(2, **SMALL), tmp_path / "small.onnx", 32, folded, **options)
    loaded = load_arcface(path)
    assert iresnet_config(loaded.state_dict()) == SMALL
    assert_same(loaded, path, 32)


def test_equal_tensors_that_the_exporter_shares(tmp_path):
    torch.manual_seed(3)
    path = export(IResNet(**SMALL).eval(), tmp_path / "fresh.onnx", 32, folded=False)
    assert "Identity" in kinds(path)
    assert_same(load_arcface(path), path, 32)


@pytest.mark.parametrize("factor", [1 / 127.5, 0.0078125])
def test_onnx_with_its_normalisation_inside(tmp_path, factor):
    path = export(FromLevels(random_iresnet(4, **SMALL), 127.5, factor), tmp_path / "levels.onnx", 32)
    assert kinds(path)[:3].count("Sub") == 1
    assert_same(load_arcface(path), path, 32, lambda x: x * 127.5 + 127.5)


def test_norms_of_another_epsilon(tmp_path):
    network = random_iresnet(5, **SMALL)
    for part in network.modules():
        if isinstance(part, (torch.nn.BatchNorm2d, torch.nn.BatchNorm1d)):
            part.eps = 0.1
    path = export(network, tmp_path / "epsilon.onnx", 32, folded=False)
    assert_same(load_arcface(path), path, 32)


def test_what_is_no_iresnet_is_refused(tmp_path):
    path = tmp_path / "other.pth"
    torch.save({"layer1.0.conv1.weight": torch.zeros(1)}, path)
    with pytest.raises(ValueError, match="is something unknown, the weights of ArcFace"):
        load_arcface(path)
    state = random_iresnet(**SMALL).state_dict()
    del state["layer2.0.bn3.bias"]
    torch.save(state, path)
    with pytest.raises(ValueError, match=r"1 missing \(layer2\.0\.bn3\.bias\)"):
        load_arcface(path)
    plain = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU(), torch.nn.Conv2d(4, 4, 3))
    with pytest.raises(ValueError, match="is not an IResNet: PRelu was expected for prelu, the graph has Relu"):
        load_arcface(export(plain, tmp_path / "plain.onnx", 16))
    shifted = FromLevels(random_iresnet(**SMALL), 100.0, 0.01)
    with pytest.raises(ValueError, match="levels less 100"):
        load_arcface(export(shifted, tmp_path / "shifted.onnx", 32))


def test_broken_and_missing_onnx_files_are_explained(tmp_path, monkeypatch):
    with pytest.raises(FileNotFoundError, match="not found"):
        load_arcface(tmp_path / "none.onnx")
    whole = export(random_iresnet(**SMALL), tmp_path / "whole.onnx", 32).read_bytes()
    (tmp_path / "half.onnx").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="fetch it again"):
        load_arcface(tmp_path / "half.onnx")
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ImportError, match="package `onnx` is needed"):
        load_arcface(tmp_path / "whole.onnx")
