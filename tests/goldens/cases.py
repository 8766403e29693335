"""One golden file: inputs, weights and recorded outputs of a published implementation."""

from __future__ import annotations

import json
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open


class Case:
    """A golden case `<folder>/<topic>/<case>.safetensors`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.topic = path.parent.name
        self.name = f"{self.topic}/{path.stem}"
        with safe_open(path, framework="pt") as file:
            self.metadata: dict[str, str] = file.metadata() or {}

    def _read(self, prefix: str, path: Path | None = None) -> dict[str, torch.Tensor]:
        with safe_open(path or self.path, framework="pt") as file:
            return {key[len(prefix) :]: file.get_tensor(key) for key in list(file.keys()) if key.startswith(prefix)}

    @property
    def is_case(self) -> bool:
        return self.metadata.get("kind", "case") == "case"

    @property
    def onnx_folder(self) -> Path:
        """The folder of the tiny ONNX networks of this golden set."""
        return self.path.parent.parent / "pose" / "onnx"

    @cached_property
    def config(self) -> dict:
        return json.loads(self.metadata.get("config", "{}"))

    @cached_property
    def tensors(self) -> dict[str, torch.Tensor]:
        """The inputs as stored: name without `in.` -> tensor; tables `in_out.<name>` keep their full name."""
        return self._read("in.") | {f"in_out.{name}": t for name, t in self._read("in_out.").items()}

    @cached_property
    def arrays(self) -> dict[str, np.ndarray]:
        """:attr:`tensors` as numpy arrays."""
        return {name: tensor.numpy() for name, tensor in self.tensors.items()}

    @cached_property
    def expected(self) -> dict[str, torch.Tensor]:
        """Recorded outputs under their full names, `out.…` and `in_out.…`."""
        outputs = {f"out.{name}": t for name, t in self._read("out.").items()}
        return outputs | {name: t for name, t in self.tensors.items() if name.startswith("in_out.")}

    def tolerance(self, full_name: str) -> dict:
        tolerances = json.loads(self.metadata.get("tolerances", "{}"))
        return tolerances.get(full_name) or tolerances.get("default") or {"rule": "no tolerance recorded"}

    def sibling(self, name: str) -> Case:
        """Another file of the same folder, by its name with or without `.safetensors`."""
        return Case(self.path.parent / f"{name.removesuffix('.safetensors')}.safetensors")

    def weights(self, module: str | None = None) -> dict[str, torch.Tensor]:
        """float32 weights, key -> tensor: of one module as the config places it, or all this case can see."""
        if module is not None and module in self.config.get("weights_from", {}):
            return self.sibling(self.config["weights_from"][module]).weights()
        if module is not None and module in self.config.get("weights", {}):
            file, _, prefix = self.config["weights"][module].partition(":")
            full = "w." + prefix.removeprefix("w.")
            return {k: t.float() for k, t in self._read(full, self.sibling(file).path).items()}
        found: dict[str, torch.Tensor] = {}
        for file in json.loads(self.metadata.get("weights_files", "[]")):
            found |= self._read("w.", self.sibling(file).path)
        return {key: tensor.float() for key, tensor in (found | self._read("w.")).items()}
