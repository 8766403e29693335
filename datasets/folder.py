"""Clips out of a data set that `choreo dataset build` made; the pose pictures are drawn when a clip is asked for."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from .clips import Clip
from .framing import draw_poses
from .manifest import Manifest, load_manifest, load_poses
from .reading import Reading, check_request, clip_fps, frames_at
from .sampling import random_clip, random_reference


class FolderClips:
    """The :class:`.clips.ClipSource` of a folder with a manifest.

    videos: the folder of the videos, where they are no longer where the manifest says.

    A clip is a random stretch of kept frames of one shot, not across gaps of more than
    :data:`.sampling.BRIDGE` frames; the
    reference is a random kept frame of the same shot, a second or more away from the clip where possible. Videos whose
    longest stretch has fewer than `reading.min_frames` frames are left out; ValueError when none is left.
    """

    def __init__(self, folder: str | Path, reading: Reading | None = None, videos: str | Path | None = None) -> None:
        self.folder = Path(folder)
        self.reading = reading or Reading()
        self.manifest: Manifest = load_manifest(self.folder)
        self.videos = self.folder / self.manifest.videos if videos is None else Path(videos)
        self.entries = [entry for entry in self.manifest.entries if entry.longest_run() >= self.reading.min_frames]
        if not self.entries:
            raise ValueError(
                f"{self.folder} has no video with {self.reading.min_frames} frames that belong together: ask for "
                "shorter clips or build it with other settings."
            )
        first = self.videos / self.entries[0].video
        if not first.exists():
            raise FileNotFoundError(
                f"The video {first} of the data set {self.folder} is gone: say where the videos are."
            )

    def __len__(self) -> int:
        return len(self.entries)

    def clip(self, index: int, num_frames: int, size: tuple[int, int], seed: int = 0) -> Clip:
        """See :class:`.clips.ClipSource`; short stretches behave as :func:`.sampling.clip_positions` says."""
        check_request(num_frames, size)
        entry = self.entries[index]
        generator = np.random.default_rng([seed, index])
        numbers = random_clip(entry.runs(), num_frames, self.reading.rate_for(entry.fps), generator)
        shot, within = entry.shot_of(numbers[0]), self.reading.within
        reference = random_reference(shot, numbers, round(entry.fps), generator, within)
        framing = self.reading.framing(entry.size, size, generator)
        poses, reference_poses = (
            framing.poses(load_poses(self.folder / entry.poses, chosen)) for chosen in (numbers, np.array([reference]))
        )
        video = self.videos / entry.video
        return Clip(
            framing.pictures(frames_at(video, entry.fps, np.array([reference])))[0],
            framing.pictures(frames_at(video, entry.fps, numbers)),
            draw_poses(poses, self.reading.style),
            poses,
            clip_fps(numbers, entry.fps),
            f"{entry.video}, frame {numbers[0]}",
            draw_poses(reference_poses, self.reading.style)[0],
        )
