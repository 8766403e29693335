"""A training set out of a folder of videos: poses and scores of each, a frame filter, a manifest (docs/datasets.md)."""

from __future__ import annotations

import logging
import shutil
import time
import warnings
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import av

from ..media.files import check_name, complete_file
from ..media.video import open_source
from ..pipelines.pose_job import Detector
from ..pose.detect import STAGE, PoseDetector
from ..pose.people import choose_people
from ..pose.poses import Poses
from ..runtime import current
from .frame_filter import FAINT_PARTS, LEAST_SCORE, find_shots, keep_poses
from .manifest import (
    MANIFEST,
    Manifest,
    VideoEntry,
    load_facts,
    load_poses,
    poses_file,
    ranges_of,
    save_poses,
    videos_folder,
)
from .reading import VIDEO_SUFFIXES

log = logging.getLogger(__name__)

COPIES = "videos"
SAVE_EVERY = 30.0  # seconds between versions of the manifest while the work goes on


@dataclass(frozen=True)
class BuildDataset:
    """Make a training set of the videos of a folder and its subfolders."""

    output: Path
    """Folder of the data set. When it holds one of the same videos already, only what is missing is done."""
    copy: bool = False
    """Copy the usable videos into the data set; otherwise they stay where they are and must not be moved."""
    people: Literal["largest", "centre", "index", "tracked", "all"] = "largest"
    """Whose poses are kept; see docs/pose.md."""
    person: int = 0
    """For people "index" and "tracked": which one, from 0."""
    least_score: float = LEAST_SCORE
    """A part (body, hands, face) of a frame is faint when the mean score of its points is below this."""
    faint_parts: int = FAINT_PARTS
    """Drop frames in which so many parts are faint; 4 keeps every frame with a person."""
    min_frames: int = 16
    """Skip videos without so many kept frames that belong together: one shot, no gaps of more than 3 frames."""
    detector: Detector = field(default_factory=Detector)

    def __post_init__(self) -> None:
        if not 1 <= self.faint_parts <= 4:
            raise ValueError(f"faint_parts must be 1 to 3, or 4 to keep all frames, got {self.faint_parts}.")
        if self.min_frames < 1 or self.person < 0:
            raise ValueError(
                f"min_frames must be 1 or more and person 0 or more, got {self.min_frames}, {self.person}."
            )

    @property
    def finding(self) -> dict[str, Any]:
        """The settings that poses depend on: with others they are found anew."""
        detection = asdict(self.detector.detection)
        kept = {name: detection[name] for name in ("detector", "pose_model", "nobody", "detect_every")}
        return {"tiny": self.detector.tiny, **kept, "people": self.people, "person": self.person}

    @property
    def settings(self) -> dict[str, Any]:
        """All settings that the data set depends on."""
        filtering = {name: getattr(self, name) for name in ("least_score", "faint_parts", "min_frames")}
        return {**self.finding, **filtering}


def find_videos(folder: Path, besides: Path) -> list[Path]:
    """Video files below a folder by their suffixes, sorted, without hidden ones and those below `besides`."""
    if not folder.is_dir():
        raise FileNotFoundError(f"The folder of videos {folder} does not exist, or is no folder.")
    besides, found = besides.resolve(), []
    for path in sorted(folder.rglob("*")):
        hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
        own = besides in path.resolve().parents
        if path.suffix.lower() in VIDEO_SUFFIXES and path.is_file() and not hidden and not own:
            found.append(path)
    if not found:
        raise ValueError(f"{folder} holds no videos: looked for {', '.join(sorted(VIDEO_SUFFIXES))} in all subfolders.")
    return found


def build_dataset(videos: Path, job: BuildDataset) -> Manifest:
    """Do the job and return the manifest that was written.

    Videos that cannot be used are left out with the reason in `Manifest.skipped`. One frame of one video is in memory
    at a time, besides the poses of that video. Killed at any moment, the next call goes on with the video it was at.
    Raises ValueError when no video can be used, and FileNotFoundError for a folder or network that is not there.
    """
    if videos.resolve() == job.output.resolve():
        raise ValueError(f"{videos} is the folder of the videos: choose another folder for the data set.")
    paths = find_videos(videos, job.output)
    check_name(job.output / MANIFEST)
    work = _Work(videos, job, len(paths))
    try:
        with _LazyDetector(job.detector) as detector:
            for number, path in enumerate(paths, start=1):
                work.add(number, path, detector)
    finally:
        manifest = work.save()
    if not manifest.entries:
        name, reason = next(iter(manifest.skipped.items()))
        raise ValueError(f"None of the {len(paths)} videos in {videos} can be used. {name}: {reason}")
    return manifest


class _LazyDetector:
    """Opens the networks when the first video needs them: a second call that only filters anew needs none."""

    def __init__(self, detector: Detector) -> None:
        self._opening, self._opened = detector.open(), None

    def __enter__(self) -> _LazyDetector:
        return self

    def __call__(self) -> PoseDetector:
        if self._opened is None:
            self._opened = self._opening.__enter__()
        return self._opened

    def __exit__(self, *error: object) -> None:
        if self._opened is not None:
            self._opening.__exit__(*error)


class _Work:
    """The videos done so far."""

    def __init__(self, videos: Path, job: BuildDataset, total: int) -> None:
        self.videos, self.job, self.total = videos, job, total
        self.entries: list[VideoEntry] = []
        self.skipped: dict[str, str] = {}
        self.saved = time.monotonic()

    def add(self, number: int, path: Path, detector: _LazyDetector) -> None:
        """Do one video, or take what an earlier call did."""
        name = path.relative_to(self.videos).as_posix()
        try:
            entry, poses = self._entry(path, name, detector)
            self._check_usable(entry, poses)
        except (_UnusableError, ValueError, av.error.FFmpegError) as error:
            self.skipped[name] = str(error)
            log.warning("[%d/%d] %s is skipped: %s", number, self.total, name, error)
        else:
            if self.job.copy:
                _copy(path, self.job.output / COPIES / name)
            self.entries.append(entry)
            log.info("[%d/%d] %s: %d of %d frames kept", number, self.total, name, entry.num_kept, entry.frames)
        if time.monotonic() - self.saved > SAVE_EVERY:
            self.save()

    def save(self) -> Manifest:
        """Write the manifest of what is done so far."""
        folder = COPIES if self.job.copy else videos_folder(self.job.output, self.videos)
        manifest = Manifest(folder, self.job.settings, self.entries, self.skipped)
        manifest.save(self.job.output)
        self.saved = time.monotonic()
        return manifest

    def _entry(self, path: Path, name: str, detector: _LazyDetector) -> tuple[VideoEntry, Poses]:
        state = path.stat()
        facts = {"bytes": state.st_size, "modified": state.st_mtime_ns, **self.job.finding}
        file = self.job.output / poses_file(name)
        known = load_facts(file)
        if known is not None and {**known, "notes": None} == {**facts, "notes": None}:
            poses, notes = load_poses(file), known["notes"]
        else:
            opened = detector()
            try:
                found, notes = find_poses(path, opened)
            except OSError as error:
                raise _UnusableError(f"it cannot be read ({error.strerror or error}).") from error
            poses = choose_people(found, self.job.people, self.job.person)
            save_poses(file, poses, {**facts, "notes": notes})
            poses = load_poses(file)  # as every later call will see them
        kept = keep_poses(poses, self.job.least_score, self.job.faint_parts)
        shots = tuple(find_shots(poses).tolist())
        place = (poses_file(name), state.st_size, state.st_mtime_ns, tuple(notes))
        return VideoEntry(name, poses.size, poses.fps, len(poses), ranges_of(kept), shots, *place), poses

    def _check_usable(self, entry: VideoEntry, poses: Poses) -> None:
        if not poses.present.any():
            raise _UnusableError(f"nobody was found in any of its {entry.frames} frames.")
        if not entry.num_kept:
            raise _UnusableError(f"none of its {entry.frames} frames passed the filter of scores.")
        longest = entry.longest_run()
        if longest < self.job.min_frames:
            raise _UnusableError(
                f"at most {longest} of its {entry.frames} frames belong together, but {self.job.min_frames} are needed "
                "(min_frames)."
            )


class _UnusableError(Exception):
    """A video that can be read, but not be learned from."""


def find_poses(path: Path, detector: PoseDetector) -> tuple[Poses, list[str]]:
    """Poses of everybody in a video, and what its decoder complained about; frame n is the one at n / fps."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        source = open_source(path)
        if source.fps is None:
            raise ValueError(f"{path} is a single picture, but a video was expected.")
        current().progress(STAGE, 0, source.num_frames)
        poses = detector.extract(source, float(source.fps), source.num_frames)
    notes = [str(warning.message) for warning in said if issubclass(warning.category, RuntimeWarning)]
    for note in notes:
        log.warning("%s", note)
    return poses, notes


def _copy(path: Path, target: Path) -> None:
    state = path.stat()
    if target.exists() and target.stat().st_size == state.st_size and target.stat().st_mtime_ns == state.st_mtime_ns:
        return
    with complete_file(target) as temporary:
        shutil.copy2(path, temporary)
