"""Small chains of layers that torch trains and ONNX files hold: one list of layers says both."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn


class Chain(nn.Module):
    """Layers one after the other.

    ("pool", k), ("conv", in, out, kernel, stride, dilation), ("relu",), ("affine", scale, bias)
    """

    def __init__(self, layers: Sequence[tuple]) -> None:
        super().__init__()
        self.layers = list(layers)
        self.convolutions = nn.ModuleList(
            nn.Conv2d(i, o, k, stride, padding=dilation * (k // 2), dilation=dilation)
            for kind, *numbers in layers
            if kind == "conv"
            for i, o, k, stride, dilation in [numbers]
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, C, H, W) -> (N, C', H', W')."""
        convolutions = iter(self.convolutions)
        for kind, *numbers in self.layers:
            if kind == "conv":
                x = next(convolutions)(x)
            elif kind == "relu":
                x = torch.relu(x)
            elif kind == "pool":
                x = nn.functional.avg_pool2d(x, numbers[0])
            else:
                x = x * numbers[0] + numbers[1]
        return x


class Graph:
    """Collects nodes and weights of an ONNX file; every method returns the name of its output."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.weights: list[Any] = []

    def constant(self, values: np.ndarray) -> str:
        """A weight; float arrays are stored as float32."""
        from onnx import numpy_helper

        values = np.asarray(values)
        values = values.astype(np.float32) if values.dtype.kind == "f" else values
        self.weights.append(numpy_helper.from_array(values, f"w{len(self.weights)}"))
        return self.weights[-1].name

    def node(self, kind: str, *inputs: str, output: str | None = None, **attributes: Any) -> str:
        """One operator with one output."""
        from onnx import helper

        output = output or f"t{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [output], **attributes))
        return output

    def chain(self, chain: Chain, x: str) -> str:
        """The layers of a trained chain."""
        convolutions = iter(chain.convolutions)
        for kind, *numbers in chain.layers:
            if kind == "conv":
                layer = next(convolutions)
                weights = [self.constant(part.detach().numpy()) for part in (layer.weight, layer.bias)]
                sides = {
                    name: list(getattr(layer, key)) for name, key in (("strides", "stride"), ("dilations", "dilation"))
                }
                x = self.node("Conv", x, *weights, pads=[*layer.padding, *layer.padding], **sides)
            elif kind == "relu":
                x = self.node("Relu", x)
            elif kind == "pool":
                x = self.node("AveragePool", x, kernel_shape=2 * numbers, strides=2 * numbers)
            else:
                x = self.node("Mul", x, self.constant(np.array(float(numbers[0]))))
                x = self.node("Add", x, self.constant(np.array(float(numbers[1]))))
        return x

    def save(self, path: Path, inputs: dict[str, list], outputs: dict[str, list]) -> None:
        """Write the file; inputs and outputs: name -> shape, with a name for a free side."""
        import onnx
        from onnx import TensorProto, helper

        def infos(values: dict[str, list]) -> list:
            return [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in values.items()]

        graph = helper.make_graph(self.nodes, path.stem, infos(inputs), infos(outputs), self.weights)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
        onnx.checker.check_model(model)
        path.write_bytes(model.SerializeToString())
