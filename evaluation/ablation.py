"""`choreo ablation`: what single settings are worth, as a Markdown table."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from ..datasets.open import PUPPETS
from ..media.files import complete_file
from ..pipelines.inputs import Detection
from ..pipelines.job import Weights
from ..pipelines.mimicmotion import Settings as Sampling
from .command import SEED, Evaluate, describe, load_system, sampling_words
from .protocol import evaluate
from .report import METRICS, Report
from .systems import MimicMotion

COLUMNS = ("psnr", "ssim", "pck_body", "jump")


@dataclass(frozen=True)
class Ablate:
    """Change one setting at a time and measure what it does, on the same clips with the same noise."""

    dataset: str = PUPPETS
    """As in `choreo evaluate`."""
    clips: int = 6
    """Clips to judge; the first ones of the data set."""
    frames: int = 24
    """Frames of each clip; above a window, or there are no borders to look at."""
    size: tuple[int, int] | None = None
    """Width and height; None is 576 1024, and 128 128 for the tiny model."""
    output: Path | None = None
    """Markdown file to write; the table is printed as well."""
    detection: Detection = field(default_factory=Detection)
    networks: Weights = field(default_factory=Weights)
    sampling: Sampling = field(default_factory=lambda: Sampling(seed=SEED))

    def job(self) -> Evaluate:
        """The evaluation that every row repeats."""
        return Evaluate(
            dataset=self.dataset,
            clips=self.clips,
            frames=self.frames,
            size=self.size,
            references=0,
            targets="none",
            detection=self.detection,
            networks=self.networks,
            sampling=self.sampling,
        )


@dataclass(frozen=True)
class Variant:
    """One row: its name, and what it does otherwise than the row that all are compared with."""

    name: str
    sampling: Sampling
    fusion: bool = True


def variants(base: Sampling) -> Iterator[Variant]:
    """The row that all others are compared with, and one for every change."""
    yield Variant(", ".join([*sampling_words(base), "latent fusion"]), base)
    yield Variant("no latent fusion", base, fusion=False)
    for steps, schedule in ((25, "karras"), (10, "ays")):
        other = replace(base, steps=steps, schedule=schedule, sampler="euler", sigmas=None)
        if other != base:
            yield Variant(sampling_words(other)[0], other)
    for strength in (0.0, 1.0):
        if strength != base.pose_strength:
            yield Variant(f"pose strength {strength:g}", replace(base, pose_strength=strength))
    for scale in (1.0, 2.0, 3.0):
        if (scale, scale) != (base.guidance_first, base.guidance_last):
            yield Variant(f"guidance {scale:g}", replace(base, guidance_first=scale, guidance_last=scale))


def run_ablation(ablation: Ablate) -> str:
    """Evaluate every variant, print each row when it is finished, write the file; returns the Markdown."""
    job = ablation.job()
    settings, source = job.settings(), job.source()
    loaded = load_system(job)
    about = describe(job, settings)
    titles = [Report(settings.threshold).title(name) for name in COLUMNS]
    lines = [f"{about['system']}; {about['data']}.", "", _row(["", *titles, "seconds a clip"]), _row(["---"] * 6)]
    print("\n".join(lines), flush=True)
    base = None
    with job.detector() as detector:
        for variant in variants(job.sampling):
            system = MimicMotion(loaded.networks, loaded.parts, variant.sampling, fusion=variant.fusion)
            report = evaluate(system, source, settings, detector, borders=system.borders)
            base = report if base is None else base
            cells = [cell(report, base, name) for name in COLUMNS]
            lines.append(_row([variant.name, *cells, f"{report.seconds:.1f}"]))
            print(lines[-1], flush=True)
    text = "\n".join(lines) + "\n"
    if ablation.output is not None:
        with complete_file(ablation.output) as temporary:
            temporary.write_text(text, encoding="utf-8")
    return text


def cell(report: Report, base: Report, metric: str) -> str:
    """Mean over the clips; and, unless it is the first row, the mean difference from it, clip by clip, ± its error."""
    form = METRICS[metric].format
    values, compared = (one.values("result", metric) for one in (report, base))
    if not len(values):
        return "-"
    text = f"{values.mean():{form}}"
    if report is base or len(values) != len(compared) or len(values) < 2:
        return text
    difference = values - compared
    error = difference.std(ddof=1) / math.sqrt(len(difference))
    return f"{text} ({np.mean(difference):+{form}} ± {error:{form}})"


def _row(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"
