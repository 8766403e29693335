"""The weights of an IResNet out of its ONNX graph, found by the graph's structure and never by its names.

Exporters rename everything, fold norms into the convolution before them, and share equal tensors. What is left is the
order of the layers: from the picture on, every convolution, norm, PReLU and product is followed to the next.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..networks.arcface import EPSILON

SILENT = ("Identity", "Dropout", "Flatten", "Reshape", "Cast")  # on the way of the picture: nothing to learn from
SHAPING = ("Identity", "Unsqueeze", "Squeeze", "Reshape", "Cast")  # between a stored weight and where it is used
LEVELS = 127.5  # a network that takes levels of 0 to 255 begins with (x - 127.5) times something
Weights = dict[str, torch.Tensor]


def weights_of_onnx(path: Path) -> Weights:
    """The weights of an ONNX file of an IResNet, float32, under the names of :class:`..networks.arcface.IResNet`.

    A norm that the exporter folded into a convolution becomes one that adds the convolution's bias and does nothing
    else. A network that begins by bringing levels of 0 to 255 to [-1, 1] is brought to take [-1, 1] itself.
    Raises ValueError naming the layer where the graph is not an IResNet's, ImportError without the package `onnx`.
    """
    return _Walk(path).weights()


class _Walk:
    """Goes through the graph from its input, layer by layer."""

    def __init__(self, path: Path) -> None:
        graph = _read_graph(path)
        self.path = path
        self.makers = {output: node for node in graph.node for output in node.output}
        self.constants = {tensor.name: tensor for tensor in graph.initializer}
        self.users: dict[str, list[Any]] = {}
        for node in graph.node:
            for name in dict.fromkeys(node.input):
                self.users.setdefault(name, []).append(node)
        self.start = next(value.name for value in graph.input if value.name not in self.constants)
        self.found: Weights = {}

    def weights(self) -> Weights:
        at, scale = self._levels()
        node, at = self._take(at, "Conv", "the first convolution")
        at = self._convolution("conv1", "bn1", node, at)
        self.found["conv1.weight"] *= scale
        at = self._prelu("prelu", at)
        stage = block = 0
        while self._is_block(at):
            stage, block = (stage + 1, 0) if self._shortcut(at) is not None else (stage, block + 1)
            at = self._block(f"layer{stage}.{block}.", at)
        at = self._norm("bn2", at)
        at = self._product(at)
        self._norm("features", at)
        return self.found

    # --- the layers ---------------------------------------------------------------------------------------------

    def _levels(self) -> tuple[str, float]:
        """Where the network proper begins, and what its first convolution has to be multiplied by."""
        at, shift, scale = self.start, 0.0, 1.0
        while (node := self._only(at)).op_type in ("Sub", "Mul", "Div", "Add"):
            value = float(self._constant_input(node).reshape(-1)[0])
            if node.op_type in ("Mul", "Div"):
                scale *= value if node.op_type == "Mul" else 1 / value
            elif scale == 1:
                shift += value if node.op_type == "Sub" else -value
            at = node.output[0]
        if at != self.start and shift != LEVELS:
            raise ValueError(f"{self.path} begins with levels less {shift:g}; only less {LEVELS} can be converted.")
        return at, 1.0 if at == self.start else LEVELS * scale

    def _block(self, prefix: str, at: str) -> str:
        """One residual block; the tensor after it."""
        start = at
        node, at = self._take(at, "BatchNormalization", f"the first norm of {prefix}")
        self._keep_norm(prefix + "bn1", node)
        node, at = self._take(at, "Conv", f"the first convolution of {prefix}")
        at = self._convolution(prefix + "conv1", prefix + "bn2", node, at)
        at = self._prelu(prefix + "prelu", at)
        node, at = self._take(at, "Conv", f"the second convolution of {prefix}")
        at = self._convolution(prefix + "conv2", prefix + "bn3", node, at)
        shortcut = self._shortcut(start)
        if shortcut is not None:
            self._convolution(prefix + "downsample.0", prefix + "downsample.1", shortcut, shortcut.output[0])
        _node, at = self._take(at, "Add", f"the sum at the end of {prefix}")
        return at

    def _convolution(self, name: str, norm: str, node: Any, at: str) -> str:
        """Keep a convolution and the norm behind it, which may have been folded into it."""
        weight = self._constant(node.input[1])
        bias = self._constant(node.input[2]) if len(node.input) > 2 and node.input[2] else None
        self.found[name + ".weight"] = torch.from_numpy(weight)
        following = self._next(at)
        # the norm of the next block has the shortcut beside it; the one that belongs to a convolution is alone
        if bias is None and len(following) == 1 and following[0].op_type == "BatchNormalization":
            self._keep_norm(norm, following[0])
            return following[0].output[0]
        self._keep_folded(norm, np.zeros(len(weight), np.float32) if bias is None else bias)
        return at

    def _prelu(self, name: str, at: str) -> str:
        node, at = self._take(at, "PRelu", name)
        self.found[name + ".weight"] = torch.from_numpy(self._constant(node.input[1]).reshape(-1))
        return at

    def _norm(self, name: str, at: str) -> str:
        node, at = self._take(at, "BatchNormalization", name)
        self._keep_norm(name, node)
        return at

    def _product(self, at: str) -> str:
        node = self._only(at)
        if node.op_type == "Gemm":
            weight, bias = (self._constant(name) for name in node.input[1:3])
            weight = weight if _attribute(node, "transB", 0) else weight.T
            at = node.output[0]
        else:
            node, at = self._take(at, "MatMul", "the last product")
            weight = self._constant_input(node).T
            node, at = self._take(at, "Add", "the bias of the last product")
            bias = self._constant_input(node)
        self.found |= {"fc.weight": torch.from_numpy(weight.copy()), "fc.bias": torch.from_numpy(bias)}
        return at

    def _keep_norm(self, name: str, node: Any) -> None:
        scale, bias, mean, var = (self._constant(value) for value in node.input[1:5])
        epsilon = _attribute(node, "epsilon", 1e-5)
        parts = {"weight": scale, "bias": bias, "running_mean": mean, "running_var": var + (epsilon - EPSILON)}
        self.found |= {f"{name}.{part}": torch.from_numpy(values.astype(np.float32)) for part, values in parts.items()}

    def _keep_folded(self, name: str, bias: np.ndarray) -> None:
        ones = torch.ones(len(bias))
        self.found |= {name + ".weight": ones, name + ".bias": torch.from_numpy(bias)}
        self.found |= {name + ".running_mean": torch.zeros(len(bias)), name + ".running_var": ones - EPSILON}

    # --- the graph ----------------------------------------------------------------------------------------------

    def _is_block(self, at: str) -> bool:
        """Whether a residual block begins here: its norm has a shortcut or the sum beside it."""
        return len(self._next(at)) == 2

    def _shortcut(self, at: str) -> Any:
        """The convolution beside the norm that a block begins with; None where the shortcut is empty."""
        return next((node for node in self._next(at) if node.op_type == "Conv"), None)

    def _next(self, at: str) -> list[Any]:
        """The nodes that use a tensor, behind those that change nothing."""
        found: list[Any] = []
        for node in self.users.get(at, []):
            if node.op_type != "Shape":  # of older exports, on the way to a Reshape
                found += self._next(node.output[0]) if node.op_type in SILENT else [node]
        return found

    def _only(self, at: str) -> Any:
        following = self._next(at)
        if len(following) != 1:
            kinds = ", ".join(node.op_type for node in following) or "nothing"
            raise ValueError(f"{self.path} is not an IResNet: {kinds} follow where one layer was expected.")
        return following[0]

    def _take(self, at: str, kind: str, what: str) -> tuple[Any, str]:
        """The node of a kind that comes next, and the tensor it makes."""
        for node in self._next(at):
            if node.op_type == kind:
                return node, node.output[0]
        kinds = ", ".join(node.op_type for node in self._next(at)) or "the end"
        raise ValueError(f"{self.path} is not an IResNet: {kind} was expected for {what}, the graph has {kinds}.")

    def _constant(self, name: str) -> np.ndarray:
        """A weight as a float32 array; its shape may have been changed on the way to where it is used."""
        from onnx import numpy_helper

        if name in self.constants:
            return numpy_helper.to_array(self.constants[name]).astype(np.float32)
        node = self.makers.get(name)
        if node is not None and node.op_type == "Constant":
            return numpy_helper.to_array(node.attribute[0].t).astype(np.float32)
        if node is not None and node.op_type == "Transpose":
            return self._constant(node.input[0]).transpose(_attribute(node, "perm", None))
        if node is not None and node.op_type in SHAPING:
            return self._constant(node.input[0])
        raise ValueError(f"{self.path} is not an IResNet with its weights: {name} is computed, not stored.")

    def _constant_input(self, node: Any) -> np.ndarray:
        """The stored one of the inputs of a sum, a difference or a product of two."""
        for name in node.input:
            with suppress(ValueError):
                return self._constant(name)
        raise ValueError(f"{self.path} is not an IResNet: {node.op_type} of two computed tensors.")


def _attribute(node: Any, name: str, default: Any) -> Any:
    from onnx import helper

    return next((helper.get_attribute_value(given) for given in node.attribute if given.name == name), default)


def _read_graph(path: Path) -> Any:
    try:
        import onnx
    except ImportError as error:
        raise ImportError(
            f"To read the weights of {path.name} the package `onnx` is needed: install it (python -m pip install "
            "onnx), or take glintr100_torch.pth."
        ) from error
    if not path.is_file():
        raise FileNotFoundError(f"{path} was not found (looked in {path.absolute().parent}).")
    try:
        return onnx.load(path).graph
    except Exception as error:
        if type(error).__name__ != "DecodeError":  # of protobuf, which has no business here
            raise
        raise ValueError(f"{path} is not an ONNX file, or its download is incomplete: fetch it again.") from error
