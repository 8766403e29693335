"""What is in a data set: numbers for the terminal, and a sheet of clips to look at."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ..media.pictures import save_picture
from ..runtime import current
from .clips import Clip, ClipSource
from .folder import FolderClips
from .manifest import Manifest
from .open import open_dataset
from .published import PictureFolders, TikTok, VideoPairs
from .reading import Reading

LAYOUTS = {
    FolderClips: "built by `choreo dataset build`",
    VideoPairs: "videos and pose videos",
    PictureFolders: "folders of pictures",
    TikTok: "folders of pictures and pose maps, as of TikTok",
}


@dataclass(frozen=True)
class ShowDataset:
    """Say what is in a data set, and lay clips of it out in a picture."""

    sheet: Path | None = None
    """Write a picture: for each clip the reference, and under each other frames and poses."""
    clips: int = 4
    """Clips in the picture."""
    frames: int = 8
    """Frames of each clip."""
    size: tuple[int, int] = (144, 256)
    """Width and height of a frame in the picture."""
    seed: int = 0
    """Which clips are chosen out of the videos."""
    videos: Path | None = None
    """Where the videos of a built data set lie now."""
    held_out: bool = False
    """The part that is never trained on, of puppets or a folder as of TikTok."""
    reading: Reading = field(default_factory=Reading)

    def __post_init__(self) -> None:
        if min(self.clips, self.frames, *self.size) < 1:
            raise ValueError("clips, frames and both numbers of the size must be 1 or more.")


def show_dataset(name: str, job: ShowDataset) -> str:
    """Do the job and return what to tell, in lines. Raises what :func:`.open.open_dataset` raises."""
    source = open_dataset(name, held_out=job.held_out, videos=job.videos, **vars(job.reading))
    lines = [f"{name}: {LAYOUTS.get(type(source), 'drawn as it is read')}, {len(source):,} videos"]
    if isinstance(source, FolderClips):
        lines += describe(source.manifest, len(source))
    if job.sheet is not None:
        save_picture(job.sheet, contact_sheet(source, job))
        lines.append(f"Wrote {job.sheet}")
    return "\n".join(lines)


def describe(manifest: Manifest, usable: int | None = None) -> list[str]:
    """A built data set in lines: frames, sizes, rates, what was skipped and why."""
    entries = manifest.entries
    frames, kept = sum(entry.frames for entry in entries), sum(entry.num_kept for entry in entries)
    seconds = sum(entry.num_kept / entry.fps for entry in entries)
    lines = [f"{len(entries)} videos, {kept:,} of {frames:,} frames kept ({seconds / 60:.1f} minutes)"]
    if usable is not None and usable < len(entries):
        lines.append(f"{usable} of them are long enough")
    sizes = Counter(f"{entry.size[1]}x{entry.size[0]}" for entry in entries)
    rates = Counter(f"{entry.fps:g}" for entry in entries)
    lines += [f"{title}: {_most_common(counts)}" for title, counts in (("sizes", sizes), ("frames per second", rates))]
    lines += [f"skipped {name}: {reason}" for name, reason in manifest.skipped.items()]
    return lines


def _most_common(counts: Counter[str]) -> str:
    shown = [f"{value} ({number})" for value, number in counts.most_common(8)]
    return ", ".join(shown) + (", ..." if len(counts) > 8 else "")


def contact_sheet(source: ClipSource, job: ShowDataset) -> np.ndarray:
    """uint8 (rows, columns, 3): two rows a clip, evenly chosen out of the data set; frames above their poses."""
    chosen = np.linspace(0, len(source) - 1, min(job.clips, len(source)), dtype=int).tolist()
    rows = []
    for number, index in enumerate(chosen, start=1):
        current().check_cancelled()
        rows.append(_rows(source.clip(index, job.frames, job.size[::-1], job.seed)))
        current().progress("reading clips", number, len(chosen))
    return np.concatenate(rows)


def _rows(clip: Clip) -> np.ndarray:
    empty = np.zeros_like(clip.reference)
    above = np.concatenate([clip.reference, *clip.frames], axis=1)
    below = [empty if clip.reference_pose is None else clip.reference_pose, *clip.pose_pictures]
    return np.concatenate([above, np.concatenate(below, axis=1)])
