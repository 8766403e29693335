"""`choreo evaluate`: a system on a data set, from files to a table, a report and an exit status."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from typing import Any, ClassVar, Literal

from ..conditioning.picture import check_size
from ..datasets.clips import ClipSource
from ..datasets.open import PUPPETS, has_held_out, open_dataset
from ..model_loaders.catalogue import require_file
from ..model_loaders.tiny import DETECTOR_FILE, POSE_FILE, TINY_FOLDER
from ..pipelines.inputs import Detection
from ..pipelines.job import TINY_SAMPLING, Weights
from ..pipelines.mimicmotion import Settings as Sampling
from ..pipelines.mimicmotion import size_multiple
from ..pose.detect import PoseDetector
from ..runtime import current
from ..samplers.windows import check_window
from .distributions import WINDOW, Distributions, FrameFeatures, VideoFeatures
from .examples import Examples
from .faces import Embed, recogniser
from .ledger import Ledger
from .metrics import Lpips
from .protocol import Measure, Settings, evaluate
from .report import Report, Targets
from .systems import MimicMotion

log = logging.getLogger(__name__)

SEED = 1


@dataclass(frozen=True)
class Evaluate:
    """Judge a system on a data set; exit status 0 when the targets are reached."""

    dataset: str = PUPPETS
    """"puppets" (drawn characters that are never trained on), or a folder in one of the layouts of docs/datasets.md."""
    clips: int = 32
    """Clips to judge; the first ones of the data set."""
    frames: int = 24
    """Frames of each clip."""
    size: tuple[int, int] | None = None
    """Width and height; None is 576 1024, and 128 128 for the tiny model."""
    references: int = 8
    """Reference pictures that are animated with one motion, to see whether each keeps its colours; 0 for none."""
    fusion: bool = True
    """Fuse overlapping windows; without it the clip is made in pieces of one window each."""
    lpips: bool = False
    """Download the weights of LPIPS where they are missing; it is measured without this when they are there."""
    vgg: Path | None = None
    """VGG-16 for LPIPS as published tables have it: torchvision's vgg16-397923af.pth; takes the package lpips too."""
    inception: Path | None = None
    """Network for FID: inception-2015-12-05.pt, or another TorchScript network of pictures."""
    i3d: Path | None = None
    """Network for FVD: i3d_torchscript.pt, or another TorchScript network of 16 frames."""
    arcface: Path | None = None
    """Network for the likeness of faces: antelopev2's glintr100.onnx, or another of its kind."""
    targets: Literal["default", "none"] = "default"
    """What decides on the exit status; "none" only measures."""
    output: Path | None = None
    """Folder for report.json, videos and pictures; an evaluation that was broken off goes on from what is there."""
    examples: int = 4
    """Clips that are written as video and picture."""
    detection: Detection = field(default_factory=Detection)
    networks: Weights = field(default_factory=Weights)
    sampling: Sampling = field(default_factory=lambda: Sampling(seed=SEED))

    STYLE: ClassVar[str] = "mimicmotion"
    SIZES: ClassVar[dict[str, tuple[int, int]]] = {"mimicmotion": (576, 1024), "tiny": (128, 128)}  # width, height

    def settings(self) -> Settings:
        """The protocol's part; ValueError for what cannot work."""
        width, height = self.size or self.SIZES[self.networks.model]
        return Settings(self.clips, self.frames, (height, width), self.sampling.seed, self.references)

    def source(self) -> ClipSource:
        """The data set; the part that is held out, where it has one."""
        held_out = has_held_out(self.dataset)
        return open_dataset(self.dataset, held_out=held_out, seed=self.sampling.seed, style=self.STYLE)

    def system(self, networks: Any, parts: Any) -> MimicMotion:
        """The networks as the protocol wants them; ValueError when they do not suit the settings."""
        system = MimicMotion(networks, parts, self.sampling, fusion=self.fusion)
        check_window(system.window, system.settings.overlap)
        return system

    def sampling_words(self) -> list[str]:
        """How frames are made, for people."""
        return [*sampling_words(self.sampling), "latent fusion" if self.fusion else "no latent fusion"]

    def measures(self) -> dict[str, Measure]:
        """Measures of pictures that take weights, as far as these are there; FileNotFoundError for a named file."""
        found = {"lpips": Lpips()} if self.lpips or Lpips.ready() else {}
        if self.vgg is not None:
            vgg = require_file(self.vgg, self.networks.folders)
            found |= {"lpips_vgg": Lpips(vgg), "disco_lpips": Lpips(vgg, unsigned=True)}
        return found

    def distributions(self) -> Distributions:
        """Measures of all clips together, as far as their networks are named."""
        named = {"fid": (FrameFeatures, self.inception), "fvd": (VideoFeatures, self.i3d)}
        return Distributions(
            {
                name: features(require_file(path, self.networks.folders))
                for name, (features, path) in named.items()
                if path is not None
            }
        )

    @contextmanager
    def faces(self) -> Iterator[Embed | None]:
        """What knows faces; None when it is not named. FileNotFoundError when it is not there."""
        if self.arcface is None:
            yield None
            return
        with recogniser(require_file(self.arcface, self.networks.folders), self.detection.provider) as embed:
            yield embed

    @contextmanager
    def detector(self) -> Iterator[PoseDetector | None]:
        """What finds the poses again; None, with a word about it, without its files when no target needs it."""
        detection = own_detector(self.detection, self.networks)
        if self.targets == "none" and not detection.available(self.networks.folders):
            log.warning("PCK is not measured: %s or %s was not found.", detection.detector, detection.pose_model)
            yield None
            return
        with detection.open(self.networks.folders) as opened:
            yield opened


@dataclass(frozen=True)
class EvaluateTiny(Evaluate):
    """Judge the embedded tiny model on a data set; exit status 0 when the targets are reached."""

    sampling: Sampling = field(default_factory=lambda: replace(TINY_SAMPLING, seed=SEED))


def own_detector(detection: Detection, networks: Weights) -> Detection:
    """The tiny model brings its own detector, unless another one is named."""
    usual = Detection()
    if networks.model != "tiny" or detection.detector != usual.detector or detection.pose_model != usual.pose_model:
        return detection
    return replace(detection, detector=DETECTOR_FILE, pose_model=POSE_FILE, provider="cpu")


def load_system(job: Evaluate) -> Any:
    """The networks of a job as a system; ValueError when size or windows do not suit them."""
    networks, parts = job.networks.load()
    system = job.system(networks, parts)
    check_size(*job.settings().size, size_multiple(networks, parts))
    return system


def run_evaluation(job: Evaluate) -> tuple[bool, str]:
    """Evaluate, print the protocol and its numbers, write the files; whether targets are reached, and a summary."""
    settings, source = job.settings(), job.source()
    targets = Targets() if job.targets == "default" else None
    measures, distributions = job.measures(), job.distributions()
    system = load_system(job)
    ledger = Ledger(None if job.output is None else job.output / f"unfinished-{_fingerprint(job)}.jsonl")
    if ledger.values:
        log.info("Going on with an evaluation that was broken off; %d parts are finished.", len(ledger.values))
    about = describe(job, settings)
    print("\n".join(f"{name + ':':<12}{text}" for name, text in about.items()), flush=True)
    more: dict[str, Any] = {} if job.output is None else {"show": Examples(job.output, job.examples)}
    with job.detector() as detector, job.faces() as faces:
        more |= {"measures": measures, "distributions": distributions, "faces": faces, "borders": system.borders}
        report = evaluate(system, source, settings, detector, ledger=ledger, **more)
    report.about.update(about)
    report.notes += weights_notes(measures, distributions, faces=faces is not None)
    _print(report)
    if job.output is not None:
        report.save(job.output / "report.json", targets)
        ledger.drop()
        print(f"Wrote {job.output / 'report.json'}")
    return report.summary(targets)


def weights_notes(measures: Mapping[str, Measure], distributions: Distributions, *, faces: bool) -> list[str]:
    """What is not measured for want of weights, and on how much the rest was."""
    notes = []
    if "lpips" not in measures:
        notes.append("LPIPS is not measured: it takes the package lpips, and --lpips to download its weights.")
    names = {"disco_lpips": "LPIPS of DisCo (--vgg)", "fid": "FID (--inception)", "fvd": "FVD (--i3d)"}
    missing = [text for name, text in names.items() if name not in {*measures, *distributions.extractors}]
    missing += [] if faces else ["likeness of faces (--arcface)"]
    if missing:
        notes.append(f"Not measured, as no file of weights is named: {', '.join(missing)}.")
    for name, count in distributions.counts().items():
        what = {"fid": "frames", "fvd": f"windows of {WINDOW} frames"}[name]
        notes.append(
            f"{name.upper()} is of {count} {what}; it falls with their number, so only equal ones can be compared."
            if count > 1
            else f"{name.upper()} is not measured: it takes 2 or more {what}."
        )
    return notes


def describe(job: Evaluate, settings: Settings) -> dict[str, str]:
    """The protocol in words, for the reader of the numbers."""
    height, width = settings.size
    networks = job.networks
    held_out = ", held out" if has_held_out(job.dataset) else ""
    return {
        "system": networks.model if networks.model == "tiny" else f"{networks.model} ({networks.weights})",
        "sampling": ", ".join(job.sampling_words()),
        "data": f"{job.dataset}{held_out}: {settings.clips} clips x {settings.frames} frames, {width}x{height}, "
        f"seed {settings.seed}",
        "measures": "per frame against the truth in floating point, mean over a clip, then mean over clips ± standard "
        f"error; PCK@{settings.threshold:g} of poses found again, against the true keypoints (docs/evaluation.md)",
        "detector": own_detector(job.detection, networks).pose_model,
    }


def sampling_words(sampling: Sampling) -> tuple[str, str, str]:
    """(sampler with noise levels and steps, guidance, pose strength) for people."""
    levels = "own noise levels" if sampling.sigmas else {"karras": "Karras", "ays": "AYS"}[sampling.schedule]
    sampler = f"Euler, {levels}" if sampling.sampler == "euler" else "AnimateLCM"
    guidance = f"guidance {sampling.guidance_first:g}"
    if sampling.guidance_last != sampling.guidance_first:
        guidance += f" to {sampling.guidance_last:g}"
    steps = len(sampling.noise_levels()) - 1
    return f"{sampler}, {steps} steps", guidance, f"pose strength {sampling.pose_strength:g}"


def _print(report: Report) -> None:
    print("\n" + report.table() + f"\n\n{report.seconds:.1f} seconds a clip")
    for line in (*report.notes, *(f"Left out: {reason}" for reason in report.skipped)):
        print(line)


def _fingerprint(job: Evaluate) -> str:
    """Eight letters that differ between jobs whose numbers may differ, also when a file was made anew."""
    paths = list(TINY_FOLDER.rglob("*")) if job.networks.model == "tiny" else list(job.networks.paths() or ())
    files = [path for path in (*paths, Path(job.dataset)) if path is not None and path.exists()]
    stamps = sorted((str(path), path.stat().st_mtime_ns, path.stat().st_size) for path in files)
    what = replace(job, output=None, targets="none", lpips=job.lpips or Lpips.ready())
    return sha256(repr((what, stamps, str(current().device), current().dtype)).encode()).hexdigest()[:8]
