"""Counting the bytes of all tensors that live at the same time; on the meta device at any size, without memory."""

from __future__ import annotations

import weakref
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class LiveBytes(TorchDispatchMode):
    """Inside the block: `now` and `peak` bytes of tensors that were made there; weights of the modules do not count."""

    def __init__(self, *modules: torch.nn.Module) -> None:
        super().__init__()
        self.now = self.peak = 0
        weights = (weight for module in modules for weight in (*module.parameters(), *module.buffers()))
        self.sizes = {weight.untyped_storage()._cdata: 0 for weight in weights}

    def __torch_dispatch__(
        self, function: Any, types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run an operation and count what it made."""
        out = function(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            storage = tensor.untyped_storage() if isinstance(tensor, torch.Tensor) else None
            if storage is not None and storage._cdata not in self.sizes:
                self.sizes[storage._cdata] = storage.nbytes()
                self.now += storage.nbytes()
                self.peak = max(self.peak, self.now)
                weakref.finalize(storage, self._drop, storage._cdata)
        return out

    def _drop(self, key: int) -> None:
        self.now -= self.sizes.pop(key)
