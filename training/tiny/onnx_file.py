"""Small trained networks as ONNX files, through torch's exporter."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn

OPSET = 13


class Affine(nn.Module):
    """X -> scale * x + bias, two numbers."""

    def __init__(self, scale: float, bias: float) -> None:
        super().__init__()
        self.scale, self.bias = scale, bias

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Any shape."""
        return x * self.scale + self.bias


def layer(inputs: int, outputs: int, stride: int = 1, dilation: int = 1) -> tuple[nn.Module, nn.Module]:
    """A 3 x 3 convolution that keeps the size, or divides it by its stride, and a ReLU."""
    return nn.Conv2d(inputs, outputs, 3, stride, padding=dilation, dilation=dilation), nn.ReLU()


def write_onnx(
    network: nn.Module,
    example: torch.Tensor,
    path: Path,
    inputs: str,
    outputs: Sequence[str],
    *,
    free_batch: bool,
    free_size: bool = False,
) -> None:
    """Write a network of one input, and check the file.

    example: an input of the right shape; inputs, outputs: their names; free_batch: batches of any size; free_size:
    pictures of any size, and as many rows of the outputs.
    """
    import onnx

    axes = {name: {0: "batch"} for name in [inputs, *outputs]} if free_batch else {}
    if free_size:
        axes = {inputs: {2: "height", 3: "width"}, **{name: {0: "rows"} for name in outputs}}
    with warnings.catch_warnings():
        # The newer exporter needs a package more, and these networks have nothing that the older one cannot say.
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.onnx.export(
            network,
            (example,),
            path,
            dynamo=False,
            opset_version=OPSET,
            input_names=[inputs],
            output_names=list(outputs),
            dynamic_axes=axes,
        )
    onnx.checker.check_model(path)
