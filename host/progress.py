"""The core's runtime inside ComfyUI: its device, the node's progress bar, pictures and messages, the stop button."""

from __future__ import annotations

import logging
import re
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import comfy.model_management as mm
import numpy as np
import torch
from comfy.cli_args import args
from comfy.utils import ProgressBar
from comfy_execution.utils import get_executing_context
from PIL import Image

from ..runtime import Runtime, current, use

T = TypeVar("T")
PACK = Path(__file__).parents[1]
_INTERVAL = 0.05  # seconds between two reports; each is a message to the browser
_PICTURE_INTERVAL = 0.5  # seconds between two pictures


class HostRuntime(Runtime):
    """A runtime for one execution of a node."""

    def __init__(self) -> None:
        device = mm.get_torch_device()
        super().__init__(device, torch.float16 if mm.should_use_fp16(device) else torch.float32)
        self._bar = ProgressBar(1)
        self._reported = self._shown = 0.0
        self._picture: tuple[str, Image.Image, int] | None = None
        self._warnings: list[str] = []

    def progress(self, stage: str, done: int, total: int) -> None:
        """Move the node's progress bar, with a picture when there is a new one."""
        now = time.monotonic()
        if done >= total or self._picture or now - self._reported >= _INTERVAL:
            self._reported = now
            self._bar.update_absolute(done, total, self._picture)
            self._picture = None

    def show(self, picture: Callable[[], np.ndarray]) -> None:
        """Keep a picture for the next report."""
        now = time.monotonic()
        if now - self._shown >= _PICTURE_INTERVAL:
            self._shown = now
            self._picture = ("JPEG", Image.fromarray(picture()), args.preview_size)

    def warn(self, message: str) -> None:
        """Say something in the log and on the node, beside what was said before."""
        if message not in self._warnings:
            self._warnings.append(message)
            tell(message, " ".join(self._warnings))

    def check_cancelled(self) -> None:
        """Raise the host's own exception when the user pressed stop."""
        mm.throw_exception_if_processing_interrupted()

    def free(self) -> None:
        """Give memory back to the device."""
        mm.soft_empty_cache()


@contextmanager
def on_host() -> Iterator[Runtime]:
    """The core runs on the host inside the block; every node's `execute` that takes time has one.

    What the core warns about is said at the node, where users of the page look; a terminal they may not have.
    """
    runtime = HostRuntime()
    with use(runtime), warnings.catch_warnings():
        warnings.filterwarnings("always", category=RuntimeWarning, module=re.escape(__package__.rpartition(".")[0]))
        elsewhere = warnings.showwarning

        def show(message: Warning | str, category: type[Warning], filename: str, *more: Any) -> None:
            if PACK in Path(filename).parents:
                runtime.warn(str(message))
            else:
                elsewhere(message, category, filename, *more)

        warnings.showwarning = show
        yield runtime


def tell(message: str, on_node: str | None = None) -> None:
    """Warn the user: in the host's log, and as a text on the node that is executed (`on_node`, if it is another)."""
    logging.warning("Choreo: %s", message)
    module = sys.modules.get("server")  # not imported here: nodes also run where there is no page
    server, context = getattr(getattr(module, "PromptServer", None), "instance", None), get_executing_context()
    if server is not None and context is not None:
        server.send_progress_text(on_node or message, context.node_id, server.client_id)


def followed(items: Iterable[T], stage: str, total: int) -> Iterator[T]:
    """The items one by one, with the progress bar and the stop button of the runtime in force."""
    for done, item in enumerate(items, start=1):
        current().check_cancelled()
        yield item
        current().progress(stage, done, max(done, total))
