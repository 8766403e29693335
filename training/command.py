"""From the settings of a run to networks, data and a trainer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any, TypeVar

import torch

from ..datasets.clips import Clip, ClipSource
from ..datasets.open import has_held_out, open_dataset
from ..datasets.reading import Reading
from ..model_loaders.catalogue import require_file
from ..model_loaders.magicpose import MagicPoseNetworks
from ..model_loaders.mimicmotion import MimicMotionNetworks
from ..model_loaders.sd15 import SD15Parts
from ..model_loaders.stableanimator import StableAnimatorNetworks
from ..model_loaders.svd import SVDParts, load_svd_parts
from ..model_loaders.tiny import FACE_FILE, RECOGNISER_FILE, TINY_FOLDER, load_tiny
from ..pipelines import mimicmotion, stableanimator
from ..pipelines.magicpose import MagicPoseSettings
from ..quirks import CLEAN
from ..runtime import use
from .faces import LargestFace
from .latent_cache import LatentCache
from .magicpose import MagicPoseTraining, PairLayout, PairRecipe
from .mimicmotion import MimicMotionTraining
from .samples import ENDLESS, Mixed, Samples
from .settings import Job, Loop, SVDJob, TrainMagicPose, TrainMimicMotion, TrainStableAnimator
from .sigmas import LogNormal
from .stableanimator import RECIPE, Identify, StableAnimatorTraining
from .starts import magicpose_start, mimicmotion_start, stableanimator_start
from .step import Recipe
from .system import TrainingSystem
from .trainer import Trainer, make_accelerator, runtime_of
from .validation import Validation, validation_clips
from .windows import FaceWindows, HandWindows

SettingsT = TypeVar("SettingsT", bound=mimicmotion.Settings)
READING = Reading()
STABLEANIMATOR_READING = Reading(rate=4, style="stableanimator")
MAGICPOSE_READING = Reading(rate=1, style="classic")
MAGICPOSE_LOOP = Loop(warmup=0, weight_decay=0.0)


def train_mimicmotion(
    job: TrainMimicMotion, loop: Loop, reading: Reading = READING, source: ClipSource | None = None
) -> None:
    """Train MimicMotion; source: the data set, None opens the one that the job names, as `reading` says."""

    def system(_per_step: int) -> MimicMotionTraining:
        parts = _svd_parts(job)
        return mimicmotion_system(job, loop, mimicmotion_start(job), parts)

    _train(job, loop, reading, source, system)


def train_stableanimator(
    job: TrainStableAnimator,
    loop: Loop,
    reading: Reading = STABLEANIMATOR_READING,
    source: ClipSource | None = None,
    identify: Identify | None = None,
) -> None:
    """Train StableAnimator; source as of :func:`train_mimicmotion`; identify: None opens the networks of the job."""

    def system(per_step: int) -> StableAnimatorTraining:
        parts = _svd_parts(job)
        faces = _face_networks(job) if identify is None else identify
        return stableanimator_system(job, loop, stableanimator_start(job), parts, identify=faces, per_step=per_step)

    _train(job, loop, reading, source, system)


def train_magicpose(
    job: TrainMagicPose,
    loop: Loop = MAGICPOSE_LOOP,
    reading: Reading = MAGICPOSE_READING,
    source: ClipSource | None = None,
) -> None:
    """Train MagicPose; source as of :func:`train_mimicmotion`. ValueError for a validation of stage 1."""
    if job.stage == 1 and loop.validate_every:
        raise ValueError("Stage 1 has no poses to validate with: leave out --validate-every.")

    def system(_per_step: int) -> MagicPoseTraining:
        return magicpose_system(job, loop, *magicpose_start(job))

    _train(job, loop, reading, source, system)


def _train(
    job: Job,
    loop: Loop,
    reading: Reading,
    source: ClipSource | None,
    make_system: Callable[[int], TrainingSystem],
) -> None:
    if loop.threads:
        torch.set_num_threads(loop.threads)
    accelerator = make_accelerator(loop)
    with use(runtime_of(accelerator)):
        torch.manual_seed(loop.seed)  # for fresh networks
        per_step = loop.batch * loop.accumulate * accelerator.num_processes
        system = make_system(per_step)
        for size in job.data_sets.values():
            system.check_size(size)
        options = asdict(replace(reading, min_frames=max(reading.min_frames, job.read_frames)))
        sources = [open_dataset(name, **options) if source is None else source for name in job.data_sets]
        loop.output.mkdir(parents=True, exist_ok=True)
        parts = [
            _samples(job, loop, options, name, source=each, system=system, accelerator=accelerator)
            for name, each in zip(job.data_sets, sources, strict=True)
        ]
        samples = parts[0] if len(parts) == 1 else Mixed(parts, per_step, loop.seed)
        validate = None
        if loop.validate_every and accelerator.is_main_process:
            validate = Validation(
                system, _validation_clips(job, asdict(reading)), loop.output / "validation", loop.seed
            )
        settings = {**asdict(loop), **asdict(job), **asdict(reading)}
        Trainer(accelerator, system, samples, loop, settings=settings, validate=validate).run()


def _validation_clips(job: Job, options: dict[str, Any]) -> list[Clip]:
    name = job.validate_data or job.data
    source = open_dataset(name, held_out=has_held_out(name), **options)
    return validation_clips(source, job.validate_clips, job.validate_frames, job.size)


def mimicmotion_system(
    job: TrainMimicMotion, loop: Loop, networks: MimicMotionNetworks, parts: SVDParts
) -> MimicMotionTraining:
    """The system that a job describes."""
    recipe = Recipe(
        LogNormal(job.sigma_mean, job.sigma_std),
        job.dropout,
        job.augmentation,
        fps=job.fps_id,
        motion_bucket_id=job.motion_bucket_id,
        region_weight=job.hand_weight,
    )
    return MimicMotionTraining(
        _checkpointing(job, networks),
        parts,
        HandWindows(job.frames, job.reference, _latent_factor(parts), job.hand_threshold),
        recipe,
        lr=loop.lr,
        pose_net_lr=job.pose_net_lr,
        part=job.train,
        half=job.half,
        sampling=_sampling(job, mimicmotion.Settings),
    )


def stableanimator_system(
    job: TrainStableAnimator,
    loop: Loop,
    networks: StableAnimatorNetworks,
    parts: SVDParts,
    *,
    identify: Identify,
    per_step: int = 1,
) -> StableAnimatorTraining:
    """The system that a job describes; per_step: samples of an optimiser step."""
    recipe = replace(
        RECIPE,
        dropout=job.dropout,
        noise_aug=job.augmentation,
        fps=job.fps_id,
        motion_bucket_id=job.motion_bucket_id,
        region_weight=job.face_weight,
        quirks=RECIPE.quirks if job.dropped == "picture" else CLEAN,
    )
    return StableAnimatorTraining(
        _checkpointing(job, networks),
        parts,
        FaceWindows(job.frames, job.reference, _latent_factor(parts)),
        identify,
        recipe,
        lr=loop.lr,
        pose_net_lr=job.pose_net_lr,
        face_encoder_lr=job.face_encoder_lr,
        unet_part=job.unet_part,
        strata=per_step,
        half=job.half,
        sampling=_sampling(job, stableanimator.Settings),
    )


def magicpose_system(
    job: TrainMagicPose, loop: Loop, networks: MagicPoseNetworks, parts: SD15Parts
) -> MagicPoseTraining:
    """The system that a job describes."""
    if job.gradient_checkpointing:
        for network in (networks.unet, networks.appearance, networks.controlnet):
            if network is not None:
                network.enable_gradient_checkpointing()
    return MagicPoseTraining(
        networks,
        parts,
        PairLayout(job.reference, job.read_frames),
        PairRecipe(job.pose_dropout, job.noisy_reference),
        lr=loop.lr,
        part=job.train,
        fix_hint=job.fix_hint,
        half=job.half,
        sampling=MagicPoseSettings(steps=job.validate_steps),
    )


def _checkpointing(job: SVDJob, networks: Any) -> Any:
    if job.gradient_checkpointing:
        networks.unet.enable_gradient_checkpointing()
    return networks


def _svd_parts(job: SVDJob) -> SVDParts:
    return load_tiny()[1] if str(job.svd) == "tiny" else load_svd_parts(job.svd)


def _latent_factor(parts: SVDParts) -> int:
    return 2 ** (len(parts.vae.config.block_out_channels) - 1)


def _sampling(job: SVDJob, settings: type[SettingsT]) -> SettingsT:
    return settings(
        steps=job.validate_steps,
        window=job.frames,
        overlap=max(1, min(6, job.frames // 2)),
        fps_id=job.fps_id,
        motion_bucket_id=job.motion_bucket_id,
    )


def _face_networks(job: TrainStableAnimator) -> LargestFace:
    """The networks that a job names: "tiny", a path, or a name in the models folders."""
    files = []
    for name, tiny in ((job.face_detector, FACE_FILE), (job.face_recogniser, RECOGNISER_FILE)):
        files.append(TINY_FOLDER / tiny if name == "tiny" else require_file(name))
    return LargestFace(*files)


def _samples(
    job: Job,
    loop: Loop,
    options: dict[str, Any],
    name: str,
    *,
    source: ClipSource,
    system: TrainingSystem,
    accelerator: Any,
) -> Samples:
    """Samples of one of the job's data sets."""
    size, clips = job.data_sets[name], min(job.clips or len(source), len(source))
    if clips > ENDLESS and (job.latent_cache is not None or job.more_data is not None):
        asks = "the latent cache should hold" if job.latent_cache is not None else "to take turns with"
        raise ValueError(f"{name} is endless: say with --clips how many clips {asks}.")
    if job.latent_cache is None:
        for module in system.frozen:
            module.to(accelerator.device)
        return Samples(source, system.layout, size, seed=loop.seed, frames=job.read_frames, clips=job.clips)
    key = {"data": name, "size": size, "frames": job.read_frames, **options, **system.fingerprint()}
    cache = LatentCache(job.latent_cache, key)
    process, processes = accelerator.process_index, accelerator.num_processes
    cache.fill(source, system, size, clips, frames=job.read_frames, process=process, processes=processes)
    accelerator.wait_for_everyone()
    return Samples(source, system.layout, size, seed=loop.seed, cache=cache)
