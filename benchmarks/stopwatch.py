"""Seconds per stage: of the process on the CPU, so that others on the machine do not count; of the clock on a GPU."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager

import torch


class Stopwatch:
    """`with stopwatch("stage"):` adds up the seconds of a stage in :attr:`seconds`."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        """Time the block as part of a stage."""
        start = _now()
        yield
        self.seconds[stage] += _now() - start


def _now() -> float:
    if not torch.cuda.is_available():
        return time.process_time()
    torch.cuda.synchronize()
    return time.perf_counter()
