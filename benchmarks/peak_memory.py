"""How much memory a block needs at most, above what was there before."""

from __future__ import annotations

import ctypes
import gc
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import torch

STATM = Path("/proc/self/statm")


class Peak:
    """megabytes: the peak above the start, filled in when the block ends; NaN where it cannot be measured."""

    megabytes: float = float("nan")


@contextmanager
def peak_memory(device: torch.device) -> Iterator[Peak]:
    """Watch GPU memory in use, or on the CPU the process's resident memory (Linux), inside the block."""
    peak = Peak()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        start = torch.cuda.memory_allocated(device)
        yield peak
        peak.megabytes = (torch.cuda.max_memory_allocated(device) - start) / 1e6
    elif STATM.exists():
        _trim()
        start = _resident()
        done, highest = threading.Event(), [start]

        def watch() -> None:
            while not done.wait(0.01):
                highest[0] = max(highest[0], _resident())

        watcher = threading.Thread(target=watch, daemon=True)
        watcher.start()
        try:
            yield peak
        finally:
            done.set()
            watcher.join()
        peak.megabytes = (highest[0] - start) / 1e6
    else:
        yield peak


def _trim() -> None:
    """Have the C library give freed memory back, so that the start counts only what is in use."""
    gc.collect()
    with suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)


def _resident() -> int:
    return int(STATM.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
