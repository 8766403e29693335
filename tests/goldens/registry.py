"""Which function recomputes which golden cases."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Mapping
from typing import Any

from .cases import Case

Runner = Callable[[Case], Mapping[str, Any]]
_runners: dict[str, Runner] = {}


def runner(*prefixes: str) -> Callable[[Runner], Runner]:
    """Register a function for every case whose `<topic>/<case>` starts with a prefix.

    The function takes a :class:`Case` and returns its outputs: the name without `out.` (or the full name of an
    `in_out.` table) -> tensor, array or number.
    """

    def register(function: Runner) -> Runner:
        for prefix in prefixes:
            if prefix in _runners:
                raise ValueError(f"two runners for the prefix {prefix!r}")
            _runners[prefix] = function
        return function

    return register


def find_runner(name: str) -> Runner | None:
    """The runner with the longest prefix of `<topic>/<case>`."""
    _load_runners()
    prefixes = [prefix for prefix in _runners if name.startswith(prefix)]
    return _runners[max(prefixes, key=len)] if prefixes else None


def _load_runners() -> None:
    package = __name__.rpartition(".")[0]
    for module in pkgutil.iter_modules(importlib.import_module(package).__path__):
        if module.name.startswith("run_"):
            importlib.import_module(f"{package}.{module.name}")
