"""The numbers of an evaluation: means with standard errors, a table, targets, JSON."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np

from ..media.files import complete_file
from .appearance import diagonal_rows

ROWS = {"result": "result", "copied": "reference copied", "truth": "truth"}


@dataclass(frozen=True)
class Metric:
    """One line of the table: its title, with {} for the threshold of PCK, and its number format."""

    title: str
    format: str = ".3f"


METRICS = {
    "psnr": Metric("PSNR (dB)", ".2f"),
    "ssim": Metric("SSIM", ".4f"),
    "l1": Metric("L1 (0..1)", ".4f"),
    "lpips": Metric("LPIPS", ".4f"),
    "lpips_vgg": Metric("LPIPS (VGG)", ".4f"),
    "disco_ssim": Metric("SSIM of DisCo", ".4f"),
    "disco_l1": Metric("L1 of DisCo", ".2e"),
    "wrapped_psnr": Metric("wrapped PSNR of DisCo", ".2f"),
    "disco_lpips": Metric("LPIPS of DisCo", ".4f"),
    "fid": Metric("FID", ".2f"),
    "fvd": Metric("FVD", ".2f"),
    "change": Metric("error of change (0..1)", ".5f"),
    "pck_body": Metric("PCK@{} body"),
    "pck_hands": Metric("PCK@{} hands"),
    "pck_face": Metric("PCK@{} face"),
    "found": Metric("frames with a person"),
    "faces": Metric("likeness of faces"),
    "jump": Metric("jump at window borders", ".5f"),
}


@dataclass(frozen=True)
class ClipScores:
    """What was measured on one clip: `values[row][metric]`, see ROWS and METRICS; what is missing was not measured."""

    index: int
    name: str
    frames: int
    seconds: float
    values: dict[str, dict[str, float]]


@dataclass(frozen=True)
class Targets:
    """What a trained system must reach; the comparisons guard against measures that see nothing."""

    psnr_gain: float = 4.0
    """dB above the reference copied, at least."""
    pck: float = 0.8
    """PCK of the body in the result, at least."""
    copied_pck: float = 0.4
    """PCK of the body with the reference copied, below."""
    truth_pck: float = 0.95
    """PCK of the body in the true frames, above."""


@dataclass
class Report:
    """All numbers of an evaluation.

    threshold: of PCK. clips: what was measured. skipped: why clips were left out. notes: sentences for the reader.
    sets: what is measured on all clips together, `sets[row][metric]`.
    colours: likeness of results (rows) and references (columns), see `appearance.py`, or None.
    about: what was evaluated and how, line by line.
    """

    threshold: float
    clips: list[ClipScores] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    sets: dict[str, dict[str, float]] = field(default_factory=dict)
    colours: np.ndarray | None = None
    about: dict[str, str] = field(default_factory=dict)

    def values(self, row: str, metric: str) -> np.ndarray:
        """What was measured on each clip, without the clips on which it was not."""
        found = [clip.values[row][metric] for clip in self.clips if metric in clip.values.get(row, {})]
        return np.array(found, dtype=np.float64)

    def mean(self, row: str, metric: str) -> tuple[float, float]:
        """Mean over the clips and its standard error, s / sqrt(n) with n - 1 in s; NaN for what is not there.

        What is measured on all clips together is its own mean, without an error.
        """
        if metric in self.sets.get(row, {}):
            return self.sets[row][metric], math.nan
        values = self.values(row, metric)
        error = values.std(ddof=1) / math.sqrt(len(values)) if len(values) > 1 else math.nan
        return float(values.mean()) if len(values) else math.nan, float(error)

    @property
    def seconds(self) -> float:
        """Mean seconds that the system took for a clip."""
        return float(np.mean([clip.seconds for clip in self.clips]))

    def table(self) -> str:
        """The measures as lines of text, one a metric that was measured, one column a row of ROWS."""
        lines = [f"{'':<24}" + "".join(f"{title:>20}" for title in ROWS.values())]
        for name in METRICS:
            cells = [self.cell(row, name) for row in ROWS]
            if any(cells):
                lines.append(f"{self.title(name):<24}" + "".join(f"{cell or '-':>20}" for cell in cells))
        if self.colours is not None:
            lines += ["", "likeness of colours, results down, references across (best is nearest to 0):"]
            lines += ["  " + " ".join(f"{value:6.3f}" for value in row) for row in self.colours]
        return "\n".join(lines)

    def title(self, metric: str) -> str:
        """What a metric is called in tables."""
        return METRICS[metric].title.format(f"{self.threshold:g}")

    def cell(self, row: str, metric: str) -> str:
        """Mean and standard error as text, "" for what was not measured."""
        mean, error = self.mean(row, metric)
        if math.isnan(mean):
            return ""
        text = f"{mean:{METRICS[metric].format}}"
        return text if math.isnan(error) else f"{text} ± {error:{METRICS[metric].format}}"

    def checks(self, targets: Targets) -> list[tuple[bool, str]]:
        """For every target whether it is reached, with the numbers in words; what was not measured is not reached."""
        gain = self.mean("result", "psnr")[0] - self.mean("copied", "psnr")[0]
        pck = {row: self.mean(row, "pck_body")[0] for row in ROWS}
        name = f"PCK@{self.threshold:g}"
        checks = [
            (gain >= targets.psnr_gain, f"PSNR {gain:+.2f} dB over reference copied (>= {targets.psnr_gain:g})"),
            (pck["result"] >= targets.pck, f"{name} {pck['result']:.3f} (>= {targets.pck:g})"),
            (pck["copied"] < targets.copied_pck, f"copied {pck['copied']:.3f} (< {targets.copied_pck:g})"),
            (pck["truth"] > targets.truth_pck, f"truth {pck['truth']:.3f} (> {targets.truth_pck:g})"),
        ]
        if self.colours is None:
            return [*checks, (False, "colours not compared")]
        right, total = diagonal_rows(self.colours), len(self.colours)
        return [*checks, (right == total, f"colours {right} of {total} on the diagonal")]

    def summary(self, targets: Targets | None) -> tuple[bool, str]:
        """Whether the targets are reached (True without any), and all numbers that matter in one line."""
        if targets is None:
            cells = {self.title(name): self.cell("result", name) for name in METRICS}
            return True, ", ".join(f"{title} {cell}" for title, cell in cells.items() if cell)
        checks = self.checks(targets)
        reached = all(right for right, _ in checks)
        said = "; ".join(text if right else f"MISSED: {text}" for right, text in checks)
        return reached, f"Targets {'reached' if reached else 'missed'}: {said}"

    def save(self, path: Path, targets: Targets | None) -> None:
        """Write everything as JSON; what is not a number becomes null."""
        reached, summary = self.summary(targets)
        content = {
            **asdict(self),
            "means": {
                row: {name: mean for name in METRICS if not math.isnan((mean := self.mean(row, name))[0])}
                for row in ROWS
            },
            "colours": None if self.colours is None else self.colours.tolist(),
            "targets": None if targets is None else {**asdict(targets), "reached": reached},
            "summary": summary,
        }
        with complete_file(path) as temporary:
            text = json.dumps(_finite(content), indent=1, ensure_ascii=False, allow_nan=False)
            temporary.write_text(text + "\n", encoding="utf-8")


def _finite(value: object) -> object:
    """The same nest of dicts and lists with None for NaN and infinity."""
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
