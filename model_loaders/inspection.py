"""`choreo inspect`: what a weights file is, what is missing from it and what is surplus."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..networks.appearance import build_appearance
from ..networks.face_encoder import FusionFaceId
from ..networks.id_attention import build_id_unet
from ..networks.image_tower import CLIP_VIT_H_14, build_image_tower
from ..networks.pose_net import PoseNet
from ..networks.sd15_unet import SD15_UNET, build_controlnet
from ..networks.svd_unet import build_unet
from ..networks.video_vae import SVD_VAE, build_video_vae
from .assemble import differences, skeleton, without_prefix
from .ldm_keys import controlnet_to_diffusers
from .magicpose import KINDS, POSE_PREFIX, appearance_weights, unexplained
from .mimicmotion import config_of_unet, find_pose_net, window_by_name
from .recognise import recognise
from .sd15 import BUILDERS, TEXT_INNER, WHOLE, controlnet_names, parts_of
from .stableanimator import WINDOW, face_encoder_sizes, find_part
from .svd import CLIP_INNER, CLIP_PREFIX, VAE_PREFIX, clip_names_of
from .svd_keys import clip_to_transformers, unet_to_diffusers, vae_to_diffusers
from .weights import SUFFIXES, read_config, read_weights

Weights = Mapping[str, torch.Tensor]
CLIP_TOWERS = {"image tower": CLIP_INNER, "text encoder": TEXT_INNER}  # whose names depend on transformers' version


@dataclass(frozen=True)
class Inspection:
    """What one file holds.

    kind, title: as :class:`recognise.Content` has them.
    dtypes:      tensors per dtype, e.g. {"float16": 1447}.
    problems:    per network of the file what does not fit, in words; empty when all fits or when no network of ours
                 is meant to hold it.
    notes:       further facts worth knowing.
    """

    path: Path
    kind: str
    title: str
    num_tensors: int
    num_parameters: int
    num_bytes: int
    dtypes: Mapping[str, int]
    problems: tuple[str, ...]
    notes: tuple[str, ...]


def inspect(path: str | Path) -> list[Inspection]:
    """Inspect a weights file, or every one in a folder and the folders below; raises what :func:`read_weights` does."""
    path = Path(path)
    if not path.is_dir():
        return [_inspect_file(path)]
    files = sorted(file for file in path.rglob("*") if file.suffix.lower() in SUFFIXES)
    if not files:
        raise FileNotFoundError(f"{path} holds no weights, files ending in {', '.join(SUFFIXES)} were looked for.")
    return [_inspect_file(file) for file in files]


def _inspect_file(path: Path) -> Inspection:
    weights, config = read_weights(path), read_config(path)
    content = recognise(weights)
    return Inspection(
        path=path,
        kind=content.kind,
        title=content.title,
        num_tensors=len(weights),
        num_parameters=sum(tensor.numel() for tensor in weights.values()),
        num_bytes=path.stat().st_size,
        dtypes=Counter(str(tensor.dtype).removeprefix("torch.") for tensor in weights.values()),
        problems=tuple(_problems(content.kind, weights, config)),
        notes=tuple(_notes(content.kind, path, config, weights)),
    )


def _problems(kind: str, weights: Weights, config: Mapping[str, Any]) -> Iterator[str]:
    for what, build, part in _networks(kind, weights, config):
        module = skeleton(build)
        named = clip_names_of(module, part, CLIP_TOWERS[what]) if what in CLIP_TOWERS else part
        yield from (f"{what}: {problem}" for problem in differences(named, module.state_dict()))


def _networks(
    kind: str, weights: Weights, config: Mapping[str, Any]
) -> Iterator[tuple[str, Callable[[], nn.Module], Weights]]:
    """The networks a file should fill: name, builder, its part of the weights under our names."""
    unet = config_of_unet(config)
    if kind in ("mimicmotion", "svd_unet_prefixed", "svd_unet"):
        yield "UNet", partial(build_unet, unet), weights if kind == "svd_unet" else without_prefix(weights, "unet.")
    if kind == "svd_unet_ldm":
        bare = {name.removeprefix("model.diffusion_model."): tensor for name, tensor in weights.items()}
        yield "UNet", partial(build_unet, unet), unet_to_diffusers(bare, unet["layers_per_block"])
    if kind == "stableanimator_unet":
        yield "UNet", partial(build_id_unet, unet), weights
    if kind == "stableanimator_face_encoder":
        yield "face encoder", partial(FusionFaceId, **face_encoder_sizes(weights)), weights
    if kind in WHOLE:
        yield from _sd15_networks(kind, weights, config)
    if kind == "controlnet":
        yield "ControlNet", partial(build_controlnet, {**SD15_UNET, **config}), controlnet_names(weights)
    if kind in ("mimicmotion", "pose_net"):
        part = weights if kind == "pose_net" else without_prefix(weights, "pose_net.")
        yield "PoseNet", partial(PoseNet, len(part["final_proj.weight"])), part
    if kind == "svd":
        vae, clip = config.get("vae", SVD_VAE), config.get("image_encoder", CLIP_VIT_H_14)
        yield "VAE", partial(build_video_vae, vae), vae_to_diffusers(without_prefix(weights, VAE_PREFIX))
        tower = clip_to_transformers(without_prefix(weights, CLIP_PREFIX))
        yield "image tower", partial(build_image_tower, clip), tower
    if kind == "svd_vae":
        yield "VAE", partial(build_video_vae, config or SVD_VAE), weights
    if kind == "clip_vision" and ("hidden_size" in config or _is_vit_h(weights)):
        yield "image tower", partial(build_image_tower, config or CLIP_VIT_H_14), weights


def _sd15_networks(
    kind: str, weights: Weights, config: Mapping[str, Any]
) -> Iterator[tuple[str, Callable[[], nn.Module], Weights]]:
    """Those of Stable Diffusion 1.5, and of MagicPose where the file has them."""
    parts = parts_of(weights, config, Path())
    for name, part in parts.items():
        yield name.replace("_", " "), partial(BUILDERS[name], part.config), part.weights
    if kind in KINDS:
        unet = parts["unet"].config if "unet" in parts else {**SD15_UNET, **config.get("unet", {})}
        appearance = appearance_weights(weights, kind, unet["layers_per_block"])
        yield "appearance network", partial(build_appearance, unet), appearance
    if kind == "magicpose":
        pose = controlnet_to_diffusers(without_prefix(weights, POSE_PREFIX), unet["layers_per_block"])
        yield "pose ControlNet", partial(build_controlnet, unet), pose


def _is_vit_h(weights: Weights) -> bool:
    return any(
        name.endswith("embeddings.class_embedding") and len(tensor) == CLIP_VIT_H_14["hidden_size"]
        for name, tensor in weights.items()
    )


def _notes(kind: str, path: Path, config: Mapping[str, Any], weights: Weights) -> Iterator[str]:
    if kind in ("mimicmotion", "svd_unet_prefixed", "svd_unet"):
        source = "its configuration" if config.get("window") else "its name"
        yield f"default window {config.get('window') or window_by_name(path)} frames, by {source}"
    if kind in ("svd_unet_prefixed", "svd_unet"):
        yield _found("PoseNet", lambda: find_pose_net(path))
    if kind == "stableanimator_unet":
        yield f"default window {config.get('window', WINDOW)} frames"
        yield _found("PoseNet", lambda: find_part(path, "pose_net"))
        yield _found("face encoder", lambda: find_part(path, "face_encoder"))
    if kind in KINDS and (left := unexplained(weights)):
        yield f"{len(left)} tensors that MagicPose has no use for, e.g. {left[0]}"
    if kind == "magicpose_stage1":
        yield "needs a pose ControlNet, such as control_v11p_sd15_openpose.pth"
    if kind == "svd" and config.get("vae") is None:
        yield "used for its VAE and image tower; its UNet is not read"


def _found(what: str, find: Callable[[], Path]) -> str:
    try:
        return f"{what}: {find()}"
    except FileNotFoundError as error:
        return str(error)
