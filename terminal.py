"""The runtime of the command line: progress bars, stage times, and Ctrl-C."""

from __future__ import annotations

import sys
import time

import torch
from tqdm import tqdm

from .runtime import Runtime


class TerminalRuntime(Runtime):
    """Shows the progress of each stage on stderr and remembers how long it took.

    times: stage -> seconds between the first and the last report of the stage.
    """

    def __init__(self, device: str | None = None, dtype: torch.dtype | None = None) -> None:
        super().__init__(device, dtype)
        self.times: dict[str, float] = {}
        self._bars: dict[str, tqdm] = {}
        self._last = time.perf_counter()

    def progress(self, stage: str, done: int, total: int) -> None:
        """Move the bar of a stage; time since the last report of any stage counts for this one."""
        now = time.perf_counter()
        self.times[stage] = self.times.get(stage, 0.0) + now - self._last
        self._last = now
        bar = self._bars.get(stage)
        if bar is None:
            bar = self._bars[stage] = tqdm(desc=stage, total=total or None, file=sys.stderr, disable=None)
        bar.total = total or None
        bar.update(done - bar.n)
        if total and done >= total:
            bar.close()

    def close(self) -> None:
        """Close the bars that are still open."""
        for bar in self._bars.values():
            bar.close()

    def summary(self) -> str:
        """One line a stage with its seconds."""
        rows = [f"  {stage:<24}{seconds:8.1f} s" for stage, seconds in self.times.items()]
        return "\n".join([*rows, f"  {'total':<24}{sum(self.times.values()):8.1f} s"])
