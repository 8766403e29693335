"""Frames that do not depend on each other, some at a time: a context handler, so that any stock sampler does it.

Motion modules (AnimateDiff) need all frames of their window together; a MODEL that has some is left alone unless the
user names a number.
"""

from __future__ import annotations

import copy
from typing import Any

import comfy.model_management as mm
import torch
from comfy.context_windows import ContextHandlerABC, create_prepare_sampling_wrapper
from comfy.model_patcher import ModelPatcher

from ..runtime import with_smaller_batches

PREPARED = 8  # frames the host makes room for before it is known how many fit
MARGIN = 2.0  # the host's own 1.5, and what twice as many tokens to attend to need


def batch_frames(model: ModelPatcher, frames_at_once: int) -> ModelPatcher:
    """Let a MODEL predict frames_at_once frames together, 0 for as many as fit; the same MODEL.

    A motion module, or a context handler that is there already and none of these, decides itself, unless a number is
    named.
    """
    there = model.model_options.get("context_handler")
    others = model.injections or not (there is None or isinstance(there, FrameBatches))
    if frames_at_once or not others:
        model.model_options["context_handler"] = FrameBatches(frames_at_once)
        create_prepare_sampling_wrapper(model)
    return model


class FrameBatches(ContextHandlerABC):
    """Windows side by side; each gets its frames' part of the conditions and of the ControlNets' pictures."""

    dim = 0

    def __init__(self, frames_at_once: int) -> None:
        self.frames_at_once = frames_at_once
        self.context_length = frames_at_once or PREPARED  # what the host makes room for

    def should_use_context(
        self, model: Any, conds: Any, x_in: torch.Tensor, timestep: torch.Tensor, model_options: dict[str, Any]
    ) -> bool:
        """Whether the clip is longer than what goes through at once."""
        if not self.frames_at_once and model.current_patcher.injections:
            return False
        return len(x_in) > self._size(model, x_in)

    def _size(self, model: Any, x_in: torch.Tensor) -> int:
        if self.frames_at_once:
            return self.frames_at_once
        size, free = len(x_in), mm.get_free_memory(x_in.device)
        while size > 1 and model.memory_required([size, *x_in.shape[1:]]) * MARGIN > free:
            size = -(-size // 2)
        return size

    def get_resized_cond(self, cond_in: Any, x_in: torch.Tensor, window: Any, device: Any = None) -> list | None:
        """The conditions of some frames, the numbers in a window of the host's."""
        return _part(cond_in, window.index_list, len(x_in), {})

    def execute(  # noqa: PLR0917 - as the host calls it
        self,
        calc_cond_batch: Any,
        model: Any,
        conds: list[list[dict]],
        x_in: torch.Tensor,
        timestep: torch.Tensor,
        model_options: dict[str, Any],
    ) -> list[torch.Tensor]:
        """The predictions of all frames, for each of conds."""
        frames, sizes = len(x_in), [self._size(model, x_in)]
        while sizes[-1] > 1:
            sizes.append(-(-sizes[-1] // 2))

        def run(size: int) -> list[torch.Tensor]:
            found = []
            for first in range(0, frames, size):
                mm.throw_exception_if_processing_interrupted()
                numbers = list(range(first, min(first + size, frames)))
                controls: dict[int, Any] = {}
                parts = [_part(entries, numbers, frames, controls) for entries in conds]
                options = _with_numbers(model_options, numbers, frames)
                found.append(calc_cond_batch(model, parts, x_in[numbers], timestep[numbers], options))
            return [torch.cat(rows) for rows in zip(*found, strict=True)]

        return with_smaller_batches(run, sizes, f"predicting {sizes[0]} frames at once")


def _with_numbers(model_options: dict[str, Any], numbers: list[int], frames: int) -> dict[str, Any]:
    """Options that tell patches which frames a call has, under the name that packs around AnimateDiff agreed on."""
    told = {"ad_params": {"full_length": frames, "context_length": len(numbers), "sub_idxs": numbers}}
    return model_options | {"transformer_options": model_options["transformer_options"] | told}


def _part(entries: Any, numbers: list[int], frames: int, controls: dict[int, Any]) -> list[dict] | None:
    """What conditions say of some of the frames. controls: ControlNets that are cut already, by the whole ones."""
    if entries is None:
        return None

    def cut(value: Any) -> Any:
        if isinstance(value, torch.Tensor) and value.ndim and len(value) == frames:
            return value[numbers]
        if isinstance(getattr(value, "cond", None), torch.Tensor):
            return value._copy_with(cut(value.cond))
        return value

    parts = []
    for entry in entries:
        part = {key: cut(value) for key, value in entry.items()}
        part["model_conds"] = {key: cut(value) for key, value in entry.get("model_conds", {}).items()}
        if entry.get("control") is not None:
            part["control"] = _control_of(entry["control"], numbers, controls)
        parts.append(part)
    return parts


def _control_of(control: Any, numbers: list[int], controls: dict[int, Any]) -> Any:
    """A ControlNet with the pictures of some frames; the host repeats pictures from the first one on, if they end."""
    if control is None:
        return None
    if id(control) not in controls:
        part = copy.copy(control)
        part.cond_hint = part.extra_concat = None
        hint = control.cond_hint_original
        if isinstance(hint, torch.Tensor) and len(hint) > 1:
            part.cond_hint_original = hint[[number % len(hint) for number in numbers]]
        part.previous_controlnet = _control_of(control.previous_controlnet, numbers, controls)
        controls[id(control)] = part
    return controls[id(control)]
