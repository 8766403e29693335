"""The comparison rules of golden files; `goldens/README.md` of a golden folder defines them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

Rule = dict


def check(rule: Rule, x: np.ndarray, y: np.ndarray) -> bool:
    """Whether the computed x agrees with the recorded y (both float64) by a rule; unknown rules fail."""
    if rule.get("rule") == "skip":
        return True
    if x.shape != y.shape:
        return False
    if "all" in rule:
        return all(check(part, x, y) for part in rule["all"])
    compare = RULES.get(rule.get("rule", ""))
    if compare is None or np.isnan(x).any():
        return False
    return y.size == 0 or bool(compare(rule, x, y))


def _close(rule: Rule, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return (x == y) | (np.abs(x - y) <= rule["atol"] + rule["rtol"] * np.abs(y))


def _cosine(rule: Rule, x: np.ndarray, y: np.ndarray) -> bool:
    norms = np.linalg.norm(x, axis=-1) * np.linalg.norm(y, axis=-1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return bool((np.sum(x * y, axis=-1) / norms >= rule["min"]).all())


RULES: dict[str, Callable[[Rule, np.ndarray, np.ndarray], bool]] = {
    "equal": lambda rule, x, y: (x == y).all(),
    "close": lambda rule, x, y: _close(rule, x, y).all(),
    "close_max": lambda rule, x, y: np.abs(x - y).max() <= rule["abs"] + rule["rel"] * np.abs(y).max(),
    "mostly_close": lambda rule, x, y: _close(rule, x, y).mean() >= rule["fraction"],
    "l1": lambda rule, x, y: np.abs(x - y).sum() <= rule["rel"] * np.abs(y).sum(),
    "mean_abs": lambda rule, x, y: np.abs(x - y).mean() <= rule["max"],
    "cosine": _cosine,
}


def describe(rule: Rule) -> str:
    """A rule in a few characters, for the report."""
    if "all" in rule:
        return "+".join(describe(part) for part in rule["all"])
    values = ",".join(f"{value:g}" for value in rule.values() if isinstance(value, (int, float)))
    return f"{rule.get('rule', '?')}({values})"
