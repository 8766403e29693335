"""Checkpoint folders that are whole or not there at all."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..media.files import is_disk_full
from .settings import HARMLESS

STATE, RECORD, AVERAGE = "state", "run.json", "ema.safetensors"


def checkpoints(output: Path) -> list[Path]:
    """The whole checkpoints of an output folder, oldest first."""
    found = [path for path in output.glob("checkpoint-*") if re.fullmatch(r"checkpoint-\d+", path.name)]
    return sorted((path for path in found if (path / RECORD).is_file()), key=step_of)


def step_of(checkpoint: Path) -> int:
    """The optimiser step after which a checkpoint was made."""
    return int(checkpoint.name.rpartition("-")[2])


def chosen(resume: str, output: Path) -> Path | None:
    """The checkpoint to go on from: "auto", "none" or a path. Raises ValueError or FileNotFoundError."""
    there = checkpoints(output)
    if resume == "auto":
        return there[-1] if there else None
    if resume == "none":
        if there:
            raise ValueError(f"{output} holds {there[-1].name} of an earlier run; name another --output for a new one.")
        return None
    path = Path(resume)
    if not (path / RECORD).is_file():
        names = ", ".join(each.name for each in there) or "none"
        raise FileNotFoundError(f"{path} is no checkpoint of a training (it has no {RECORD}); {output} holds {names}.")
    return path


def read_record(checkpoint: Path) -> dict[str, Any]:
    """What a checkpoint says about its run."""
    return json.loads((checkpoint / RECORD).read_text(encoding="utf-8"))


def check_same(checkpoint: Path, settings: Mapping[str, Any]) -> None:
    """ValueError naming the settings in which a run differs from that of a checkpoint."""
    before = read_record(checkpoint)["settings"]
    now = json.loads(json.dumps(settings, default=str))
    known = (before.keys() & now.keys()) - HARMLESS  # a setting that came later stays what it was: not there
    names = sorted(name for name in known if before[name] != now[name])
    if names:
        changes = ", ".join(f"{name} {before[name]} (now {now[name]})" for name in names)
        raise ValueError(
            f"{checkpoint} was made with other settings: {changes}. Use the same, or start a new run from the weights "
            "that the checkpoint holds, in another --output."
        )


def partial_folder(target: Path) -> Path:
    """A fresh folder beside the target to write to."""
    partial = target.with_name(f".{target.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    return partial


def finish(partial: Path, target: Path, record: Mapping[str, Any], keep: int) -> None:
    """Give a complete folder its name, then remove the oldest beyond `keep`."""
    (partial / RECORD).write_text(json.dumps(record, default=str, indent=2) + "\n", encoding="utf-8")
    shutil.rmtree(target, ignore_errors=True)
    partial.rename(target)
    for old in checkpoints(target.parent)[: -keep if keep else 0]:
        shutil.rmtree(old, ignore_errors=True)


def disk_full(error: Exception, folder: Path) -> OSError | None:
    """The error to show instead when a file could not be written for lack of space."""
    full = is_disk_full(error) or "No space left" in str(error)
    if not full and shutil.disk_usage(folder).free > 1 << 20:
        return None
    there = checkpoints(folder)
    last = f"The newest whole one is {there[-1].name}" if there else "There is none yet"
    return OSError(
        f"The disk of {folder} is full: the checkpoint could not be written. {last}; free some space (or --keep fewer) "
        "and start the same command again to go on."
    )
