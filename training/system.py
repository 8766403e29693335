"""What the training loop asks of a system: it knows clips, batches and losses only through this."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import nn

from ..datasets.clips import Clip

Rows = dict[str, torch.Tensor]


class Layout(Protocol):
    """How clips become samples; light, so that processes that only read data can have it."""

    @property
    def clip_frames(self) -> int:
        """Frames that a sample needs of a clip at least."""
        ...

    def rows(self, clip: Clip) -> Rows:
        """A clip as tensors on the CPU: row 0 is the reference, row 1 + f the frame f."""
        ...

    def take(self, rows: Rows, rng: np.random.Generator) -> Rows:
        """One sample out of the rows of a clip, raw or encoded; random choices from rng alone."""
        ...


class TrainingSystem(Protocol):
    """A system that can be trained."""

    module: nn.Module
    """Everything that is trained, as one module, so that every process sees every gradient."""
    frozen: Sequence[nn.Module]
    """The networks that encode."""
    layout: Layout

    def check_size(self, size: tuple[int, int]) -> None:
        """ValueError for a size (height, width) that the networks cannot have."""
        ...

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Groups for the optimiser, each with its learning rate and a name; only what is trained."""
        ...

    def fingerprint(self) -> dict[str, Any]:
        """What encoded rows depend on besides the clip; plain values."""
        ...

    def encode_rows(self, rows: Rows) -> Rows:
        """All rows of a clip as the frozen networks see them, on the CPU: what a latent cache keeps."""
        ...

    def encode_sample(self, sample: Rows, generator: torch.Generator) -> Rows:
        """A raw sample as the frozen networks see it."""
        ...

    def loss(
        self, module: nn.Module, batch: Rows, generators: list[torch.Generator]
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """The loss of a batch of encoded samples, and further numbers for the log.

        module: `self.module` as accelerate wrapped it; generators: one a sample, on the CPU.
        """
        ...

    def export(self, folder: Path, weights: Mapping[str, torch.Tensor]) -> None:
        """Write a state dict of `module` into a folder, as the files that loaders and hosts open."""
        ...

    def animate(self, weights: Mapping[str, torch.Tensor], clip: Clip, seed: int) -> Iterable[np.ndarray]:
        """The frames, uint8 (H, W, 3), that a state dict of `module` makes of a clip's reference and poses."""
        ...
