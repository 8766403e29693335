"""Where things run, how far they are, and whether to stop: the one door between the core and its host.

Headless, this is a plain torch device with progress on the terminal; a host such as ComfyUI puts its own
:class:`Runtime` in place with :func:`use`. Core code asks :func:`current` and never names a device itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, TypeVar

import torch

if TYPE_CHECKING:
    import numpy as np

T = TypeVar("T")


class Cancelled(Exception):
    """The user stopped the job."""


class Runtime:
    """Default runtime: one torch device, modules moved to it while they are in use.

    device: where networks compute, e.g. "cuda:0"; None picks CUDA, then MPS, then the CPU.
    dtype:  floating point type of the networks; None picks float16 on CUDA and float32 elsewhere.
    """

    def __init__(self, device: str | torch.device | None = None, dtype: torch.dtype | None = None) -> None:
        self.device = torch.device(device) if device is not None else _best_device()
        self.dtype = dtype or (torch.float16 if self.device.type == "cuda" else torch.float32)

    @contextmanager
    def on_device(self, *modules: torch.nn.Module, dtype: torch.dtype | None = None) -> Iterator[None]:
        """Modules are on :attr:`device` inside the block, after it back on the CPU; their dtype stays changed.

        dtype: None is :attr:`dtype`.
        """
        try:
            with_smaller_batches(
                lambda _: self._move(modules, dtype or self.dtype), [1], f"moving networks to {self.device}"
            )
            yield
        finally:
            for module in modules:
                module.to("cpu")
            self.free()

    @contextmanager
    def off_device(self, *modules: torch.nn.Module) -> Iterator[None]:
        """Modules that are on :attr:`device` wait on the CPU inside the block, to make room."""
        for module in modules:
            module.to("cpu")
        self.free()
        try:
            yield
        finally:
            self._move(modules)

    def _move(self, modules: Sequence[torch.nn.Module], dtype: torch.dtype | None = None) -> None:
        for module in modules:
            torch.nn.Module.to(module, self.device, dtype)  # diffusers' own `to` warns without cause

    def free(self) -> None:
        """Give memory that torch caches but nobody uses back to the device."""
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        elif self.device.type == "mps":
            torch.mps.empty_cache()

    def progress(self, stage: str, done: int, total: int) -> None:
        """Report that `done` of `total` units of a stage are finished; called often, must be cheap."""

    def preview(self, denoised: torch.Tensor) -> None:
        """Show the clip as it is now; denoised (frames, 4, h, w), scaled latents."""

    def show(self, picture: Callable[[], np.ndarray]) -> None:
        """Show what a stage is at, before its next report; called often, so the picture is made only where it is seen.

        picture: makes it, uint8 (H, W, 3) RGB.
        """

    def check_cancelled(self) -> None:
        """Raise :class:`Cancelled` (or the host's own exception) when the user wants to stop."""


def _best_device() -> torch.device:
    if torch.cuda.is_available():
        return torch.device("cuda")
    if torch.backends.mps.is_available():
        return torch.device("mps")
    return torch.device("cpu")


_current: ContextVar[Runtime | None] = ContextVar("choreo_runtime", default=None)


def current() -> Runtime:
    """The runtime in force; made with defaults at first use."""
    runtime = _current.get()
    if runtime is None:
        runtime = Runtime()
        _current.set(runtime)
    return runtime


@contextmanager
def use(runtime: Runtime) -> Iterator[Runtime]:
    """Put a runtime in force inside the block."""
    token = _current.set(runtime)
    try:
        yield runtime
    finally:
        _current.reset(token)


def with_smaller_batches(run: Callable[[int], T], batch_sizes: Sequence[int], what: str) -> T:
    """run(batch_size) with the first size that fits in memory; the sizes must not change the result.

    Raises MemoryError naming `what` when even the last size does not fit.
    """
    for batch_size in batch_sizes:
        try:
            return run(batch_size)
        except RuntimeError as error:
            if not _is_out_of_memory(error):
                raise
        current().free()  # behind the except block, so that the traceback has let go of its tensors
    tried = f", even with the smallest batch ({batch_sizes[-1]})" if len(batch_sizes) > 1 else ""
    raise MemoryError(
        f"Out of memory while {what}{tried}. "
        "Choose a smaller size or a shorter window, close other programs that use the GPU, or run on the CPU."
    )


def _is_out_of_memory(error: RuntimeError) -> bool:
    """Whether torch ran out of memory: on CUDA the error has a class of its own, on the CPU and MPS only words."""
    words = ("out of memory", "not enough memory", "can't allocate memory")
    return isinstance(error, torch.cuda.OutOfMemoryError) or any(word in str(error) for word in words)
