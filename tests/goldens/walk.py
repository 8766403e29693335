"""Recompute golden cases and compare every output by its rule."""

from __future__ import annotations

import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from .cases import Case
from .registry import find_runner
from .rules import check, describe

PASS, FAIL, NO_RUNNER = "PASS", "FAIL", "NO RUNNER"


@dataclass(frozen=True)
class Result:
    """What came of one case."""

    status: str
    name: str
    max_abs: float = 0.0
    tolerance: str = ""
    problems: tuple[str, ...] = ()

    def __str__(self) -> str:
        line = f"{self.status:<9} {self.name}"
        if self.status != NO_RUNNER:
            line += f"  max_abs={self.max_abs:.3g}  tolerance={self.tolerance}"
        return "\n".join([line, *(f"          {problem}" for problem in self.problems)])


def find_cases(folder: Path, topics: Sequence[str] = ()) -> Iterator[Case]:
    """The cases of a golden folder in order of name; files that only hold weights are passed over."""
    for path in sorted(folder.glob("*/*.safetensors")):
        if not topics or path.parent.name in topics:
            case = Case(path)
            if case.is_case:
                yield case


def run_case(case: Case) -> Result:
    """Recompute one case."""
    run = find_runner(case.name)
    if run is None:
        return Result(NO_RUNNER, case.name)
    try:
        with torch.no_grad():
            outputs = run(case)
    except Exception as error:  # a runner that crashes is a failed case, not the end of the walk
        last = traceback.extract_tb(error.__traceback__)[-1]
        problem = f"{type(error).__name__}: {error} ({Path(last.filename).name}:{last.lineno})"
        return Result(FAIL, case.name, float("nan"), "-", (problem,))
    outputs = {name if name.startswith("in_out.") else f"out.{name}": value for name, value in outputs.items()}
    worst, problems, rules = 0.0, [], []
    for name, recorded in case.expected.items():
        rule = case.tolerance(name)
        if rule.get("rule") == "skip":
            continue
        rules.append(describe(rule))
        if name not in outputs:
            problems.append(f"{name}: missing")
            continue
        x, y = _float64(outputs[name]), _float64(recorded)
        difference = float(np.abs(x - y).max()) if x.shape == y.shape and y.size else 0.0
        worst = max(worst, difference)
        if not check(rule, x, y):
            shapes = "" if x.shape == y.shape else f", shape {x.shape} instead of {y.shape}"
            problems.append(f"{name}: max_abs={difference:.3g}, not {describe(rule)}{shapes}")
    tolerance = " ".join(sorted(set(rules))) or "skip"
    return Result(FAIL if problems else PASS, case.name, worst, tolerance, tuple(problems))


def _float64(value: object) -> np.ndarray:
    if isinstance(value, torch.Tensor):
        return value.detach().cpu().to(torch.float64).numpy()
    return np.asarray(value, dtype=np.float64)
