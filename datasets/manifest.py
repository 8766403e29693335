"""The files of a data set that `choreo dataset build` makes: the manifest and the poses (docs/datasets.md)."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from ..media.files import complete_file
from ..pose.poses import Poses
from .sampling import split_runs

MANIFEST = "dataset.json"
POSES_FOLDER = "poses"
FORMAT = "choreo dataset"
VERSION = 1


@dataclass(frozen=True)
class VideoEntry:
    """One video of a data set.

    video:    path below the videos' folder, with forward slashes.
    size:     (height, width) as shown: upright, with square pixels.
    fps:      frames per second; frame n is the one shown at n / fps.
    frames:   how many there are.
    kept:     ranges (first, end) of frames that passed the filter; end is the first one that is not in the range.
    shots:    frames with which the second and every further shot begins.
    poses:    path of the poses below the data set's folder.
    bytes, modified: size of the file and its time of change (nanoseconds): what tells that it is still the same.
    notes:    what was odd about the file, in sentences.
    """

    video: str
    size: tuple[int, int]
    fps: float
    frames: int
    kept: tuple[tuple[int, int], ...]
    shots: tuple[int, ...]
    poses: str
    bytes: int
    modified: int
    notes: tuple[str, ...] = ()

    @property
    def num_kept(self) -> int:
        """How many frames passed the filter."""
        return sum(end - first for first, end in self.kept)

    def kept_frames(self) -> np.ndarray:
        """The numbers of these frames, rising."""
        return np.concatenate([np.arange(first, end) for first, end in self.kept] or [np.arange(0)])

    def runs(self) -> list[np.ndarray]:
        """The kept frames in stretches that a clip can be taken from; see :func:`.sampling.split_runs`."""
        return split_runs(self.kept_frames(), np.array(self.shots, dtype=int))

    def longest_run(self) -> int:
        """How many frames the longest of them has."""
        return max(map(len, self.runs()))

    def shot_of(self, frame: int) -> np.ndarray:
        """All kept frames of the shot that a frame lies in."""
        kept, shots = self.kept_frames(), np.array(self.shots, dtype=int)
        number = np.searchsorted(shots, frame, side="right")
        return kept[np.searchsorted(shots, kept, side="right") == number]


@dataclass(frozen=True)
class Manifest:
    """A data set: which videos it has, and how it was made.

    videos:   the folder that the entries' paths start from; relative to the data set's folder or absolute.
    settings: how it was built, for the reader.
    skipped:  path -> why a video of the folder is not in the set.
    """

    videos: str
    settings: Mapping[str, Any]
    entries: Sequence[VideoEntry]
    skipped: Mapping[str, str] = field(default_factory=dict)

    def save(self, folder: Path) -> None:
        """Write it into the data set's folder; the file appears complete or not at all."""
        content = {
            "format": FORMAT,
            "version": VERSION,
            "videos_folder": self.videos,
            "settings": dict(self.settings),
            "videos": [asdict(entry) for entry in self.entries],
            "skipped": dict(self.skipped),
        }
        with complete_file(folder / MANIFEST) as temporary:
            temporary.write_text(json.dumps(content, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


def load_manifest(folder: str | Path) -> Manifest:
    """The manifest of a data set; ValueError or FileNotFoundError with one sentence when it cannot be used."""
    path = Path(folder) / MANIFEST
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ValueError(f"{path} is not JSON ({error}): build the data set again.") from None
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise ValueError(f'{path} is no manifest of a data set: expected "format": "{FORMAT}".')
    if content.get("version") != VERSION:
        raise ValueError(f"{path} has version {content.get('version')}, but this program reads version {VERSION}.")
    try:
        entries = [_entry(row) for row in content["videos"]]
        return Manifest(content["videos_folder"], content["settings"], entries, content["skipped"])
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is damaged ({error!r}): build the data set again.") from None


def _entry(row: Mapping[str, Any]) -> VideoEntry:
    ranges = tuple((int(first), int(end)) for first, end in row["kept"])
    height, width = row["size"]
    notes = tuple(row.get("notes", ()))
    return VideoEntry(
        **{**row, "size": (height, width), "kept": ranges, "shots": tuple(row["shots"]), "notes": notes},
    )


def ranges_of(kept: np.ndarray) -> tuple[tuple[int, int], ...]:
    """(frames,) bool as ranges (first, end) of true ones."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], kept.astype(int), [0]]))).tolist()
    return tuple(zip(edges[::2], edges[1::2], strict=True))


def poses_file(video: str) -> str:
    """Where the poses of a video are kept below the data set's folder; the suffix keeps a.mp4 and a.mov apart."""
    return str(PurePosixPath(POSES_FOLDER) / f"{video}.safetensors")


def save_poses(path: Path, poses: Poses, facts: Mapping[str, Any]) -> None:
    """Write poses as float32 and `facts` (anything JSON can hold); the file appears complete or not at all."""
    tensors = {
        "points": poses.points.astype(np.float32),
        "scores": poses.scores.astype(np.float32),
        "present": poses.present.astype(np.uint8),
    }
    about = {"size": json.dumps(poses.size), "fps": json.dumps(poses.fps), "facts": json.dumps(facts)}
    with complete_file(path) as temporary:
        save_file(tensors, temporary, about)


def load_poses(path: Path, numbers: np.ndarray | None = None) -> Poses:
    """The poses of a video, all or of the frames of the given numbers, of which only the stretch is read.

    Raises FileNotFoundError or ValueError with the file.
    """
    try:
        with safe_open(path, framework="numpy") as file:
            about = file.metadata()
            first, end = (0, None) if numbers is None else (int(numbers.min()), int(numbers.max()) + 1)
            tensors = {name: file.get_slice(name)[first:end] for name in ("points", "scores", "present")}
    except FileNotFoundError:
        raise FileNotFoundError(f"The poses {path} are not there: build the data set again.") from None
    except SafetensorError as error:
        raise ValueError(f"The poses {path} are damaged ({error}): delete the file and build again.") from None
    size, fps = tuple(json.loads(about["size"])), json.loads(about["fps"])
    if numbers is not None:
        tensors = {name: tensor[numbers - first] for name, tensor in tensors.items()}
    return Poses(tensors["points"], tensors["scores"], tensors["present"].astype(bool), size, fps)


def load_facts(path: Path) -> dict[str, Any] | None:
    """What :func:`save_poses` was told about a video; None when there is no such file, or a damaged one."""
    try:
        with safe_open(path, framework="numpy") as file:
            return json.loads(file.metadata()["facts"])
    except (OSError, SafetensorError, KeyError, TypeError, json.JSONDecodeError):
        return None


def videos_folder(dataset: Path, videos: Path) -> str:
    """How a manifest names the folder of the videos: relative when both lie in one folder, which may then be moved."""
    dataset, videos = dataset.resolve(), videos.resolve()
    if dataset.parent in (videos, videos.parent) or dataset in (videos, *videos.parents):
        return Path(os.path.relpath(videos, dataset)).as_posix()
    return videos.as_posix()
