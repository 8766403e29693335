"""MagicPose for the host: its networks as MODEL, CONTROL_NET, CLIP and VAE, and what its samplers are given."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import comfy.model_management as mm
import numpy as np
import torch
from comfy.model_patcher import ModelPatcher

from ..conditioning.magicpose import fit_picture, to_hint
from ..conditioning.picture import check_picture, check_size, to_signed
from ..model_loaders.magicpose import MagicPoseWeights, read_magicpose
from .appearance import Appearance, apply_appearance, as_writer, check_control, text_width
from .codecs import LATENT_CHANNELS, SCALE, encode_picture
from .models import size_multiple
from .sd15 import host_clip, host_controlnet, host_unet, host_vae


@dataclass(frozen=True)
class Loaded:
    """MagicPose's networks; files of stage 1 have no ControlNet."""

    model: ModelPatcher
    appearance: ModelPatcher
    control_net: Any | None
    clip: Any
    vae: Any


def load_magicpose(path: str | Path, dtype: str = "default") -> Loaded:
    """Load a checkpoint in any published layout.

    dtype: one of DTYPES, how weights of the two UNets are kept; "default" is what the host finds best for the device.
    Raises what :func:`.model_loaders.magicpose.read_magicpose` raises, and ValueError for other networks.
    """
    return loaded(read_magicpose(path), dtype)


def loaded(found: MagicPoseWeights, dtype: str = "default") -> Loaded:
    """The host's networks with MagicPose's weights, as :func:`load_magicpose`."""
    return Loaded(
        host_unet(found.unet, dtype),
        as_writer(host_unet(found.appearance, dtype, head=found.unet)),
        None if found.controlnet is None else host_controlnet(found.controlnet),
        host_clip(found.text_encoder),
        host_vae(found.vae),
    )


def encode_reference(model: ModelPatcher, vae: Any, picture: np.ndarray) -> torch.Tensor:
    """Latents (1, 4, h, w), not scaled, on the CPU: the mode of the VAE's posterior.

    picture: uint8 (H, W, 3) RGB. Raises ValueError for sizes that do not fit the MODEL, and for other VAEs.
    """
    check_picture(picture)
    check_size(*picture.shape[:2], size_multiple(model))
    pixels = torch.from_numpy(np.ascontiguousarray(picture)).permute(2, 0, 1)[None]
    return encode_picture(vae, to_signed(pixels), video=False)


@dataclass(frozen=True)
class Conditioned:
    """What samplers take: MODEL, CONDITIONING twice, and a LATENT with a frame a pose."""

    model: ModelPatcher
    positive: list
    negative: list
    latent: dict[str, Any]


def condition(
    model: ModelPatcher,
    appearance: Appearance,
    control_net: Any,
    texts: tuple[list, list],
    pose_pictures: Iterable[np.ndarray],
    *,
    pose_strength: float = 1.0,
    frames_at_once: int = 0,
) -> Conditioned:
    """Condition a MODEL on an appearance and on poses, as Apply Appearance and the stock Apply ControlNet do.

    texts: positive and negative CONDITIONING. pose_pictures: uint8 RGB; those of another size than the reference are
    cut and resized as published.
    Raises ValueError for networks that do not belong together, and when there are no poses.
    """
    model = apply_appearance(model, appearance, frames_at_once)
    check_control(control_net, text_width(model))
    height, width = (SCALE * side for side in appearance.latents.shape[-2:])
    fitted = (fit_picture(pose, (height, width), f"Pose picture {k}") for k, pose in enumerate(pose_pictures))
    hints = [to_hint([pose]) for pose in fitted]
    if not hints:
        raise ValueError("MagicPose needs at least one pose, got none.")
    shape = (len(hints), LATENT_CHANNELS, height // SCALE, width // SCALE)
    latent = {"samples": torch.zeros(shape, device=mm.intermediate_device())}
    return Conditioned(model, *with_control(texts, control_net, torch.cat(hints), pose_strength), latent)


def with_control(conditionings: Iterable[list], control_net: Any, hint: torch.Tensor, strength: float) -> list[list]:
    """Each CONDITIONING with a ControlNet behind those it has; entries that had the same get the same.

    hint: (n, 3, H, W) in [0, 1]. Strength 0 leaves the ControlNet out.
    """
    chained: dict[int, Any] = {}

    def control_behind(before: Any) -> Any:
        if id(before) not in chained:
            control = control_net.copy().set_cond_hint(hint, strength)
            chained[id(before)] = control.set_previous_controlnet(before)
        return chained[id(before)]

    if strength == 0:
        return list(conditionings)
    return [
        [
            [text, more | {"control": control_behind(more.get("control")), "control_apply_to_uncond": False}]
            for text, more in entries
        ]
        for entries in conditionings
    ]
