"""The runtime of the command line: progress with the time left, stage times, and a device that exists."""

from __future__ import annotations

import sys
import time

import torch
from tqdm import tqdm

from .runtime import Runtime

BETWEEN = "between stages"
SHORTEST = 0.05  # seconds of a stage that is listed; less would read 0.0
LOG_EVERY = 30.0  # seconds between lines where no bar can be shown, as in the log of a cluster job


class TerminalRuntime(Runtime):
    """Shows the progress of each stage on stderr and remembers how long it took.

    A stage that reports 0 done begins then; any other begins when the stage before it ended.
    times: stage -> seconds.
    Raises ValueError for a device that is not there.
    """

    def __init__(self, device: str | None = None, dtype: torch.dtype | None = None) -> None:
        super().__init__(None if device is None else usable_device(device), dtype)
        self.times: dict[str, float] = {}
        self._stage = ""
        self._bar: tqdm | None = None
        self._last = self._began = self._said = time.perf_counter()

    def progress(self, stage: str, done: int, total: int) -> None:
        """Move the bar of a stage, or where there is no terminal write a line now and then."""
        now = time.perf_counter()
        name = stage if done else BETWEEN
        self.times[name] = self.times.get(name, 0.0) + now - self._last
        if stage != self._stage or done == 0:
            self.close()
            self._stage, self._began, self._said = stage, now if done == 0 else self._last, self._last
            self._bar = tqdm(desc=stage, total=total or None, initial=done, file=sys.stderr, disable=None)
        self._last = now
        self._bar.total = total or None
        self._bar.update(done - self._bar.n)
        if self._bar.disable and done and now - self._said > LOG_EVERY:
            self._said = now
            left = tqdm.format_interval((now - self._began) / done * max(total - done, 0))
            print(f"{stage}: {done} of {total}, about {left} left", file=sys.stderr, flush=True)

    def close(self) -> None:
        """Close the bar that is still open."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def summary(self) -> str:
        """One line a stage with its seconds; "" when nothing was done."""
        rows = [f"  {stage:<24}{seconds:8.1f} s" for stage, seconds in self.times.items() if seconds >= SHORTEST]
        return "\n".join([*rows, f"  {'total':<24}{sum(self.times.values()):8.1f} s"]) if rows else ""


def usable_device(name: str) -> torch.device:
    """A torch device by its name; ValueError with the names that work here when it does not."""
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError, ImportError):
        there = [f"cuda:{i}" for i in range(torch.cuda.device_count())]
        there += ["mps"] if torch.backends.mps.is_available() else []
        raise ValueError(f"There is no device {name!r} here; there is {', '.join([*there, 'cpu'])}.") from None
    if device.type == "meta":
        raise ValueError("The device 'meta' computes nothing; choose another one.")
    return device
