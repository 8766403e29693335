"""From the settings of a run to networks, data and a trainer."""

from __future__ import annotations

import json
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch

from ..datasets.clips import Clip, ClipSource
from ..datasets.open import PUPPETS, open_dataset
from ..datasets.reading import Reading
from ..model_loaders.assemble import assemble, without_prefix
from ..model_loaders.mimicmotion import MimicMotionNetworks, config_of_unet, load_mimicmotion
from ..model_loaders.recognise import not_what_was_expected, recognise
from ..model_loaders.svd import SVDParts, load_svd_parts
from ..model_loaders.tiny import load_tiny
from ..model_loaders.weights import read_config, read_weights
from ..networks.pose_net import PoseNet
from ..networks.svd_unet import build_unet
from ..pipelines.mimicmotion import Settings
from ..runtime import use
from .latent_cache import LatentCache
from .mimicmotion import MimicMotionTraining
from .samples import ENDLESS, Samples
from .settings import Loop, TrainMimicMotion
from .sigmas import LogNormal
from .step import Recipe
from .trainer import Trainer, make_accelerator, runtime_of
from .validation import Validation, validation_clips
from .windows import HandWindows

READING = Reading()


def train_mimicmotion(
    job: TrainMimicMotion, loop: Loop, reading: Reading = READING, source: ClipSource | None = None
) -> None:
    """Train MimicMotion; source: the data set, None opens the one that the job names, as `reading` says."""
    if loop.threads:
        torch.set_num_threads(loop.threads)
    accelerator = make_accelerator(loop)
    with use(runtime_of(accelerator)):
        torch.manual_seed(loop.seed)  # for fresh networks
        parts = load_tiny()[1] if str(job.svd) == "tiny" else load_svd_parts(job.svd)
        system = mimicmotion_system(job, loop, starting_networks(job), parts)
        system.check_size(job.size)
        options = asdict(reading)
        source = open_dataset(job.data, **options) if source is None else source
        loop.output.mkdir(parents=True, exist_ok=True)
        samples = _samples(job, loop, options, source=source, system=system, accelerator=accelerator)
        validate = None
        if loop.validate_every and accelerator.is_main_process:
            validate = Validation(system, _validation_clips(job, options), loop.output / "validation", loop.seed)
        settings = {**asdict(loop), **asdict(job), **options}
        Trainer(accelerator, system, samples, loop, settings=settings, validate=validate).run()


def _validation_clips(job: TrainMimicMotion, options: dict[str, Any]) -> list[Clip]:
    name = job.validate_data or job.data
    source = open_dataset(name, held_out=name == PUPPETS, **options)
    return validation_clips(source, job.validate_clips, job.validate_frames, job.size)


def mimicmotion_system(
    job: TrainMimicMotion, loop: Loop, networks: MimicMotionNetworks, parts: SVDParts
) -> MimicMotionTraining:
    """The system that a job describes."""
    if job.gradient_checkpointing:
        networks.unet.enable_gradient_checkpointing()
    recipe = Recipe(
        LogNormal(job.sigma_mean, job.sigma_std),
        job.dropout,
        job.augmentation,
        fps=job.fps_id,
        motion_bucket_id=job.motion_bucket_id,
        region_weight=job.hand_weight,
    )
    factor = 2 ** (len(parts.vae.config.block_out_channels) - 1)
    return MimicMotionTraining(
        networks,
        parts,
        HandWindows(job.frames, job.reference, factor, job.hand_threshold),
        recipe,
        lr=loop.lr,
        pose_net_lr=job.pose_net_lr,
        part=job.train,
        half=job.half,
        sampling=Settings(
            steps=job.validate_steps,
            window=job.frames,
            overlap=max(1, min(6, job.frames // 2)),
            fps_id=job.fps_id,
            motion_bucket_id=job.motion_bucket_id,
        ),
    )


def starting_networks(job: TrainMimicMotion) -> MimicMotionNetworks:
    """The networks that training begins with."""
    if job.weights is not None:
        return load_mimicmotion(job.weights, job.pose_net, window=job.frames)
    if job.config is not None:
        unet_config = config_of_unet(_json(job.config))
        return MimicMotionNetworks(build_unet(unet_config), PoseNet(unet_config["block_out_channels"][0]), job.frames)
    if job.pose_net is not None:
        return load_mimicmotion(job.unet, job.pose_net, window=job.frames)
    unet = _plain_unet(job.unet)
    return MimicMotionNetworks(unet, PoseNet(unet.config.block_out_channels[0]), job.frames)


def _plain_unet(path: Path) -> Any:
    """SVD's UNet of a file of its own, with or without the prefix `unet.`."""
    weights = read_weights(path)
    content = recognise(weights)
    if content.kind == "svd_unet_prefixed":
        weights = without_prefix(weights, "unet.")
    elif content.kind != "svd_unet":
        raise not_what_was_expected(path, content, "the weights of SVD's UNet")
    return assemble(partial(build_unet, config_of_unet(read_config(path))), weights, "SVD's UNet", path)


def _json(path: Path) -> dict[str, Any]:
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is not valid JSON ({error}).") from error
    if not isinstance(config, dict) or not ("unet" in config or "block_out_channels" in config):
        raise ValueError(f'{path} is no configuration of networks; {{"unet": {{...}}}} was expected.')
    return config


def _samples(
    job: TrainMimicMotion,
    loop: Loop,
    options: dict[str, Any],
    *,
    source: ClipSource,
    system: MimicMotionTraining,
    accelerator: Any,
) -> Samples:
    frames = max(job.clip_frames or 0, system.layout.clip_frames)
    if job.latent_cache is None:
        for module in system.frozen:
            module.to(accelerator.device)
        return Samples(source, system.layout, job.size, seed=loop.seed, frames=frames, clips=job.clips)
    clips = min(job.clips or len(source), len(source))
    if clips > ENDLESS:
        raise ValueError(f"{job.data} is endless: say with --clips how many clips --latent-cache should hold.")
    key = {"data": job.data, "size": job.size, "frames": frames, **options, **system.fingerprint()}
    cache = LatentCache(job.latent_cache, key)
    process, processes = accelerator.process_index, accelerator.num_processes
    cache.fill(source, system, job.size, clips, frames=frames, process=process, processes=processes)
    accelerator.wait_for_everyone()
    return Samples(source, system.layout, job.size, seed=loop.seed, cache=cache)
