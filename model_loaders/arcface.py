"""ArcFace's network from a torch file or from the ONNX file of antelopev2 (`glintr100.onnx`)."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import torch

from ..networks.arcface import IResNet, iresnet_config
from .arcface_onnx import weights_of_onnx
from .assemble import assemble, skeleton
from .recognise import not_what_was_expected, recognise
from .weights import read_weights

COUNTER = ".num_batches_tracked"  # of every norm; means nothing outside training


def load_arcface(path: str | Path) -> IResNet:
    """ArcFace's network from `glintr100_torch.pth` (or another file of an IResNet), or from an ONNX file of one.

    On the CPU, in eval mode, without gradients for its weights. Reading ONNX needs the package `onnx`.
    Raises FileNotFoundError, ValueError for anything else than a whole IResNet, ImportError without `onnx`.
    """
    path = Path(path)
    weights = weights_of_onnx(path) if path.suffix.lower() == ".onnx" else _read_torch_file(path)
    build = partial(IResNet, **iresnet_config(weights))
    counters = {key: torch.tensor(0) for key in skeleton(build).state_dict() if key.endswith(COUNTER)}
    return assemble(build, counters | weights, "ArcFace's network", path)


def _read_torch_file(path: Path) -> dict[str, torch.Tensor]:
    weights = read_weights(path)
    content = recognise(weights)
    if content.kind != "arcface" or not iresnet_config(weights):
        raise not_what_was_expected(path, content, "the weights of ArcFace (glintr100_torch.pth, or glintr100.onnx)")
    return weights
