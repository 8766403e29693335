"""python -m tests.host.environment run tests.host.memory_modes: the demo in every memory mode of the host, as a table.

A machine without a GPU gives the host no choice: it runs everything on the CPU and ignores the mode. Here it is made
to take the CPU for a card, with as much free memory as is said, so that its own rules decide which weights are loaded
and which stay behind and come along for each call. What that costs on a real card is not measured by this.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from unittest import mock

import torch

from .harness import Host, open_host
from .make_workflows import load_extras, object_info, path_of
from .test_workflows import run
from .ui_workflow import to_api

PLENTY, LITTLE = 1 << 40, 1 << 20  # bytes of free memory
MODES: dict[str, tuple[str | None, int]] = {  # name: state of the host (None: the CPU), free memory
    "--cpu": (None, PLENTY),
    "default (--normalvram)": ("NORMAL_VRAM", PLENTY),
    "--highvram": ("HIGH_VRAM", PLENTY),
    "--lowvram": ("LOW_VRAM", PLENTY),
    "--lowvram, 1 MB free": ("LOW_VRAM", LITTLE),
    "--novram": ("NO_VRAM", PLENTY),
}


@dataclass(frozen=True)
class Outcome:
    """The frames of the demo, seconds, and how many bytes of the UNet's weights were loaded of all."""

    frames: torch.Tensor
    seconds: float
    loaded: int
    size: int


@contextmanager
def memory_mode(mode: str) -> Iterator[None]:
    """The host's memory manager in this mode, with nothing loaded."""
    import comfy.model_management as mm

    state, free = MODES[mode]
    mm.unload_all_models()
    if state is None:
        yield
        return

    def free_memory(_device: Any = None, torch_free_too: bool = False) -> Any:
        return (free, free) if torch_free_too else free

    with (
        mock.patch.object(mm, "vram_state", mm.VRAMState[state]),
        mock.patch.object(mm, "is_device_cpu", lambda _device: False),
        mock.patch.object(mm, "get_free_memory", free_memory),
    ):
        yield
    mm.unload_all_models()


def run_demo(host: Host, mode: str, max_frames: int = 23) -> Outcome:
    """The shipped demo, from nothing, in one mode."""
    prompt = to_api(json.loads(path_of("choreo_tiny_demo").read_text(encoding="utf-8")), object_info(host))
    for node in prompt.values():
        if node["class_type"] == "ChoreoExtractPoses":
            node["inputs"]["max_frames"] = max_frames
    host.fresh()
    with memory_mode(mode):
        start = time.perf_counter()
        result = run(host, prompt)
        seconds = time.perf_counter() - start
        if result.error is not None:
            raise RuntimeError(f"{mode}: {result.error}")
        model, frames = (
            next(result.outputs[key][0] for key, node in prompt.items() if node["class_type"] == wanted)
            for wanted in ("ChoreoLoadMimicMotion", "ChoreoDecodeVideo")
        )
        return Outcome(frames, seconds, model.loaded_size(), model.model_size())


def table(host: Host) -> str:
    """Markdown."""
    lines = ["| mode | UNet's weights loaded | seconds | frames |", "|---|---|---|---|"]
    first: Outcome | None = None
    for mode in MODES:
        outcome = run_demo(host, mode)
        first = first or outcome
        difference = (outcome.frames - first.frames).abs().max().item()
        same = "the same" if difference == 0 else f"differ by up to {difference:.1g}"
        share = f"{100 * outcome.loaded / outcome.size:.0f} %"
        lines.append(f"| `{mode}` | {share} | {outcome.seconds:.1f} | {same} |")
    return "\n".join(lines)


if __name__ == "__main__":
    one_host = open_host()
    load_extras(one_host)
    run_demo(one_host, "--cpu", max_frames=4)  # imports and first use
    print(f"ComfyUI {one_host.version}\n\n{table(one_host)}")
    one_host.close()
