"""Encoded clips on the disk, so that a step is nothing but the networks that are trained."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from pathlib import Path
from typing import Any

import torch

from ..datasets.clips import ClipSource
from ..runtime import current
from .system import Rows, TrainingSystem


class LatentCache:
    """One safetensors file a clip, in a folder named after everything that its content depends on.

    folder: holds any number of caches; key: what tells this one apart, plain values.
    """

    def __init__(self, folder: Path, key: dict[str, Any]) -> None:
        text = json.dumps(key, sort_keys=True, indent=2)
        self.folder = folder / hashlib.sha256(text.encode()).hexdigest()[:16]
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "key.json").write_text(text + "\n", encoding="utf-8")
        self._limit: int | None = None

    def path(self, index: int) -> Path:
        """The file of a clip."""
        return self.folder / f"{index:07d}.safetensors"

    def indices(self) -> list[int]:
        """The clips that are there, in order; after :meth:`fill` only those it was asked for."""
        found = sorted(int(path.stem) for path in self.folder.glob("*.safetensors"))
        return [index for index in found if self._limit is None or index < self._limit]

    def read(self, index: int) -> Rows:
        """The encoded rows of a clip, mapped from the disk."""
        from safetensors.torch import load_file

        return load_file(self.path(index))

    def write(self, index: int, rows: Rows) -> None:
        """Keep the encoded rows of a clip; the file appears whole or not at all."""
        from safetensors.torch import save_file

        partial = self.path(index).with_suffix(f".{os.getpid()}.partial")
        save_file({name: tensor.contiguous() for name, tensor in rows.items()}, partial)
        partial.replace(self.path(index))

    def fill(
        self,
        source: ClipSource,
        system: TrainingSystem,
        size: tuple[int, int],
        clips: int,
        *,
        frames: int,
        process: int = 0,
        processes: int = 1,
    ) -> None:
        """Encode what is missing of the first `clips` clips; of several processes each its share.

        Clips that the data set refuses are reported and left out. Call :meth:`indices` when every process is done.
        """
        self._limit = clips
        missing = [index for index in range(process, clips, processes) if not self.path(index).is_file()]
        runtime = current()
        if not missing:
            return
        for module in system.frozen:
            module.to(runtime.device)
        runtime.progress("encoding clips", 0, len(missing))
        for done, index in enumerate(missing, 1):
            runtime.check_cancelled()
            try:
                rows = system.layout.rows(source.clip(index, frames, size))
            except ValueError as error:
                logging.warning("Clip %d is left out: %s", index, error)
                continue
            with torch.no_grad():
                self.write(index, system.encode_rows(rows))
            runtime.progress("encoding clips", done, len(missing))
        for module in system.frozen:
            module.to("cpu")
