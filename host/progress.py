"""The core's runtime inside ComfyUI: its device, its progress bar on the node, its stop button."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from typing import TypeVar

import comfy.model_management as mm
import torch
from comfy.utils import ProgressBar

from ..runtime import Runtime, current, use

T = TypeVar("T")
_INTERVAL = 0.05  # seconds between two reports; each is a message to the browser


class HostRuntime(Runtime):
    """A runtime for one execution of a node."""

    def __init__(self) -> None:
        device = mm.get_torch_device()
        super().__init__(device, torch.float16 if mm.should_use_fp16(device) else torch.float32)
        self._bar = ProgressBar(1)
        self._last = 0.0

    def progress(self, stage: str, done: int, total: int) -> None:
        """Move the node's progress bar."""
        now = time.monotonic()
        if done >= total or now - self._last >= _INTERVAL:
            self._last = now
            self._bar.update_absolute(done, total)

    def check_cancelled(self) -> None:
        """Raise the host's own exception when the user pressed stop."""
        mm.throw_exception_if_processing_interrupted()

    def free(self) -> None:
        """Give memory back to the device."""
        mm.soft_empty_cache()


def on_host() -> AbstractContextManager[Runtime]:
    """The core runs on the host inside the block; every node's `execute` that takes time has one."""
    return use(HostRuntime())


def followed(items: Iterable[T], stage: str, total: int) -> Iterator[T]:
    """The items one by one, with the progress bar and the stop button of the runtime in force."""
    for done, item in enumerate(items, start=1):
        current().check_cancelled()
        yield item
        current().progress(stage, done, max(done, total))
