"""Poses and latent fusion (MimicMotion, sections 3.2 and 3.4) as the host's own kinds of patches, for all systems.

Poses travel in CONDITIONING. A wrapper that belongs to the MODEL turns them, for one sampling run, into a patch behind
the network's first convolution, so nothing of a run stays on the MODEL. Latent fusion is a context handler.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import comfy.conds
import comfy.model_base
import comfy.model_management as mm
import torch
from comfy.context_windows import (
    ContextFuseMethod,
    ContextSchedule,
    IndexListContextHandler,
    IndexListContextWindow,
    create_prepare_sampling_wrapper,
)
from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import WrappersMP

from ..samplers.svd import PoseUse
from ..samplers.windows import check_window, window_weights, windows
from .identity import STRENGTHS
from .progress import tell

POSES = "choreo_poses"  # key in CONDITIONING
WRAPPER = "choreo"
MIMICMOTION, STABLEANIMATOR = "MimicMotion", "StableAnimator"  # as the nodes call them


@dataclass(frozen=True)
class PoseControl:
    """The poses of one conditioning.

    features: (frames, channels, h, w) half precision on the CPU; of MimicMotion, frame 0 is the reference.
    pose_net: what they were computed with; they mean something to the UNet it was trained with only.
    use: how strongly and in which steps they act.
    system: what the conditioning is for.
    identity: how strongly face tokens act that come with the poses.
    """

    features: torch.Tensor
    pose_net: ModelPatcher
    use: PoseUse = field(default_factory=PoseUse)
    system: str = MIMICMOTION
    identity: float = 1.0

    def entries(self) -> dict[str, Any]:
        """What goes into CONDITIONING."""
        return {POSES: self, "model_conds": {POSES: _ForItsModelOnly(self.system)}}


class _ForItsModelOnly(comfy.conds.CONDRegular):
    """Comes with poses, and refuses to be given to a network that would ignore them.

    The host hands every entry of model_conds to the network, whichever it is; a MODEL that knows poses takes this one
    out before.
    """

    def __init__(self, system: str) -> None:
        super().__init__(torch.zeros(1))
        self.system = system

    def process_cond(self, *_sizes: Any, **_more: Any) -> None:
        raise ValueError(
            f"This conditioning holds poses, which the MODEL of this sampler would ignore, as it is not {self.system}: "
            f"connect the MODEL of Load {self.system} to the sampler too (through Load Video LoRA or Latent Fusion as "
            "you like)."
        )


def install_poses(model: ModelPatcher, pose_net: ModelPatcher, system: str) -> None:
    """Let a MODEL (and its clones) follow the poses in its conditioning, if they come from its own PoseNet.

    system: what the MODEL is, MIMICMOTION or STABLEANIMATOR.
    """
    model.add_wrapper_with_key(WrappersMP.OUTER_SAMPLE, WRAPPER, partial(_sample_with_poses, pose_net, system))


def _sample_with_poses(  # noqa: PLR0917 - as the host calls it
    pose_net: ModelPatcher,
    system: str,
    executor: Any,
    noise: torch.Tensor,
    latent_image: torch.Tensor,
    sampler: Any,
    sigmas: torch.Tensor,
    denoise_mask: torch.Tensor | None = None,
    callback: Callable[..., None] | None = None,
    *args: Any,
    **kwargs: Any,
) -> torch.Tensor:
    guider = executor.class_obj
    controls = _taken_from(guider.conds)
    if controls:
        for control in controls.values():
            _check_pose_net(control.pose_net, pose_net, system)
            _check_lengths(control.features, noise)
        _patch_first(guider.model_options, PosePatch(controls))
        strengths = {key: control.identity for key, control in controls.items()}
        guider.model_options["transformer_options"][STRENGTHS] = strengths
        callback = _previewing_the_middle(callback)
    else:
        tell(f"{system} is sampled without poses; connect the conditioning of {system} Conditioning.")
    return executor(noise, latent_image, sampler, sigmas, denoise_mask, callback, *args, **kwargs)


def _taken_from(conds: Mapping[str, list[dict[str, Any]]]) -> dict[Any, PoseControl]:
    """The poses of every condition of a run, by its identifier; what refuses other networks is gone afterwards."""
    controls = {}
    for entry in (entry for entries in conds.values() for entry in entries):
        if POSES in entry:
            controls[entry["uuid"]] = entry[POSES]
            entry["model_conds"] = {key: cond for key, cond in entry["model_conds"].items() if key != POSES}
    return controls


def _check_pose_net(used: ModelPatcher, own: ModelPatcher, system: str) -> None:
    if used is own:
        return
    pairs = zip(used.model.state_dict().values(), own.model.state_dict().values(), strict=True)
    if not all(torch.equal(one.cpu(), other.cpu()) for one, other in pairs):
        raise ValueError(
            "The poses were prepared with the PoseNet of another MODEL than the sampler's: connect the MODEL of one "
            f"Load {system} to both, the conditioning and the sampler."
        )


def _check_lengths(features: torch.Tensor, noise: torch.Tensor) -> None:
    if len(features) != len(noise):
        raise ValueError(
            f"The latents have {len(noise)} frames, the poses {len(features)} (a reference frame counted); "
            "use the LATENT that comes from the same conditioning node."
        )
    if features.shape[-2:] != noise.shape[-2:]:
        sizes = [f"{8 * shape[-1]}x{8 * shape[-2]}" for shape in (noise.shape, features.shape)]
        raise ValueError(
            f"The latents are for a video of {sizes[0]}, the poses for one of {sizes[1]}; "
            "use the LATENT that comes from the same conditioning node."
        )


def _patch_first(model_options: dict[str, Any], patch: Callable[..., torch.Tensor]) -> None:
    """Put an input-block patch before all others, in options that live for one run."""
    patches = model_options["transformer_options"].setdefault("patches", {})
    patches["input_block_patch"] = [patch, *patches.get("input_block_patch", [])]


def _previewing_the_middle(callback: Callable[..., None] | None) -> Callable[..., None] | None:
    """A sampler's callback that is shown the middle of the clip, as hosts preview the first frame, here a still.

    The callback may keep the tensor as a result, so its frames are put in order when the picture is made.
    """
    if callback is None:
        return None

    def middle_first(step: int, x0: torch.Tensor, x: torch.Tensor, total_steps: int) -> None:
        shown = x0.roll(-(len(x0) // 2), 0)
        callback(step, shown, x, total_steps)
        shown.copy_(x0)

    return middle_first


class PosePatch:
    """Adds pose features to what the network's first convolution gives, in the rows of the conditions they belong to.

    controls: by the identifier that the host gives each condition of a run. Features of a window are on the device
    as long as the window stays the same.
    """

    def __init__(self, controls: Mapping[Any, PoseControl]) -> None:
        self.controls = controls
        self.kept: tuple[Any, torch.Tensor] | None = None

    def __call__(self, h: torch.Tensor, transformer_options: dict[str, Any]) -> torch.Tensor:
        """h (conditions * frames, channels, h, w) after an input block -> the same or a new tensor of its shape."""
        mm.throw_exception_if_processing_interrupted()
        if transformer_options["block"] != ("input", 0):
            return h
        rows = transformer_options["uuids"]
        schedule = transformer_options["sample_sigmas"]
        step, steps = step_of(transformer_options["sigmas"].max(), schedule), len(schedule) - 1
        active = [key in self.controls and self.controls[key].use.active(step, steps) for key in rows]
        if not any(active):
            return h
        chunks = h.chunk(len(rows))
        window = transformer_options.get("context_window")
        frames = tuple(range(len(chunks[0]))) if window is None else tuple(window.index_list)
        return torch.cat(
            [
                chunk + self._features(key, frames, chunk) if is_active else chunk
                for key, chunk, is_active in zip(rows, chunks, active, strict=True)
            ]
        )

    def _features(self, key: Any, frames: tuple[int, ...], like: torch.Tensor) -> torch.Tensor:
        wanted = (key, frames)
        if self.kept is None or self.kept[0] != wanted:
            self.kept = None
            control = self.controls[key]
            self.kept = (wanted, control.features[list(frames)].to(like) * control.use.strength)
        features = self.kept[1]
        if features.shape != like.shape:
            raise ValueError(
                f"The pose features have the shape {tuple(features.shape)}, but the network's first convolution gave "
                f"{tuple(like.shape)}; conditioning areas and other batch sizes cannot be combined with poses."
            )
        return features


def step_of(sigma: torch.Tensor, schedule: torch.Tensor) -> int:
    """The step, from 0, that a noise level belongs to, also between two of the schedule."""
    reached = int((schedule >= sigma.to(schedule) * (1 - 1e-4)).sum())
    return max(reached - 1, 0)


def fuse_latents(model: ModelPatcher, window: int, overlap: int) -> ModelPatcher:
    """A clone of a MODEL that predicts long clips window by window, fused as MimicMotion does.

    window, overlap in frames, the reference frame counted. The start noise repeats every `window` frames, as published.
    Raises ValueError for windows that cannot cover a clip, and for models that do not predict videos as SVD does.
    """
    check_window(window, overlap)
    if not isinstance(model.model, comfy.model_base.SVD_img2vid):
        raise ValueError("Latent fusion is for models made of Stable Video Diffusion; this MODEL is of another kind.")
    model = model.clone()
    model.model_options["context_handler"] = LatentFusionHandler(window, overlap)
    create_prepare_sampling_wrapper(model)
    model.remove_wrappers_with_key(WrappersMP.OUTER_SAMPLE, f"{WRAPPER}_noise")
    model.add_wrapper_with_key(WrappersMP.OUTER_SAMPLE, f"{WRAPPER}_noise", _sample_with_repeated_noise)
    return model


def _sample_with_repeated_noise(executor: Any, noise: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
    handler = executor.class_obj.model_options.get("context_handler")
    if isinstance(handler, LatentFusionHandler):
        noise = noise[torch.arange(len(noise)) % handler.context_length]
    return executor(noise, *args, **kwargs)


class LatentFusionHandler(IndexListContextHandler):
    """MimicMotion's windows and weights for the host's context windows."""

    def __init__(self, window: int, overlap: int) -> None:
        super().__init__(
            ContextSchedule(WRAPPER, lambda num_frames, _handler, _options: windows(num_frames, window, overlap)),
            ContextFuseMethod(WRAPPER, lambda length, **_: window_weights(length).tolist()),
            context_length=window,
            context_overlap=overlap,
        )

    def should_use_context(self, model: Any, conds: Any, x_in: torch.Tensor, *_rest: Any) -> bool:
        """Whether the clip is longer than a window."""
        return len(x_in) > self.context_length

    def set_step(self, timestep: torch.Tensor, model_options: dict[str, Any]) -> None:
        """Nothing: the windows are the same in every step (and older hosts fail here on SVD's timestep per frame)."""

    def get_context_windows(
        self, model: Any, x_in: torch.Tensor, model_options: dict[str, Any]
    ) -> list[IndexListContextWindow]:
        """The host's windows, indexed as every version of torch takes it."""
        found = super().get_context_windows(model, x_in, model_options)
        for window in found:
            window.__class__ = _FrameWindow
        return found


class _FrameWindow(IndexListContextWindow):
    """A window over the first dimension."""

    def get_tensor(self, full: torch.Tensor, device: Any = None, *_args: Any, **_kwargs: Any) -> torch.Tensor:
        return (full if len(full) == 1 else full[self.index_list]).to(device)

    def add_window(self, full: torch.Tensor, to_add: torch.Tensor, *_args: Any, **_kwargs: Any) -> torch.Tensor:
        full[self.index_list] += to_add
        return full
