"""Clips go through the nodes frame by frame: poses drawn into a video, and how many frames are held at a time."""

from __future__ import annotations

import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ..make_media import impulses, make_video
from .clips import SIZE, detector, frames, images, poses, video_file
from .harness import Host, Run, Value

EXTRACT, POSE_VIDEO = "ChoreoExtractPoses", "ChoreoPoseVideo"
BATCH = 8  # frames that the detector sees at once
LONG = 60


def as_video(path: Path) -> Value:
    from comfy_api.latest import InputImpl

    return Value(InputImpl.VideoFromFile(str(path)))


def written(host: Host, run: Run, folder: str) -> tuple[Path, torch.Tensor]:
    """The file that the page is told of, and the frames of the VIDEO."""
    assert run.error is None
    (shown,) = run.ui["x"]["images"]
    assert shown["type"] == folder
    path = host.folder / folder / shown["subfolder"] / shown["filename"]
    return path, run.outputs["x"][0].get_components().images


def test_poses_become_a_video(host: Host) -> None:
    found = poses(host, frames(4))
    path, shown = written(host, host.queue({"x": (POSE_VIDEO, {"poses": found, "style": "classic"})}), "temp")
    drawn = host.run("ChoreoDrawPoses", poses=found, style="classic")[0]
    info = host.module("media.video").probe(path)
    assert (info.height, info.width, info.num_frames, info.fps) == (*SIZE, 4, 15)  # the rate was not known
    assert (shown - drawn).abs().mean() < 0.01


def test_poses_over_their_clip_keep_rate_and_sound(host: Host, tmp_path: Path) -> None:
    pictures = frames(40)
    path = make_video(
        tmp_path / "v.mp4", num_frames=40, fps=20, picture=lambda i: pictures[i], sound=impulses(2, [1.25])
    )
    graph = {
        "find": (EXTRACT, {"frames": as_video(path), "detector": detector(host), "start": 1.0, "every_nth": 2}),
        "x": (
            POSE_VIDEO,
            {"poses": ("find", 0), "frames": as_video(path), "start": 1.0, "filename_prefix": "checks/poses"},
        ),
    }
    run = host.queue(graph)
    saved, shown = written(host, run, "output")
    assert saved.parent.name == "checks"
    assert host.module("media.video").probe(saved).fps == 10
    overlaid = host.run("ChoreoPoseOverlay", poses=Value(run.outputs["find"][0]), frames=as_video(path), start=1.0)[0]
    assert shown.shape == overlaid.shape == (10, *SIZE, 3)
    assert (shown - overlaid).abs().mean() < 0.02
    sound = host.run("ChoreoVideoSound", video=as_video(saved), start=0.0)[0]
    assert abs(sound["waveform"][0, 0].abs().argmax() / sound["sample_rate"] - 0.25) < 0.03


def test_a_video_that_was_stopped_is_not_left_behind(host: Host) -> None:
    before = set((host.folder / "temp").iterdir())
    assert host.queue({"x": (POSE_VIDEO, {"poses": poses(host, frames(3))})}, interrupt_at=0).interrupted
    assert set((host.folder / "temp").iterdir()) == before


@pytest.fixture
def held(host: Host, monkeypatch) -> list[int]:
    """How many decoded frames were alive whenever one more came; whole clips are refused."""
    from comfy_api.latest import InputImpl

    video = host.module("media.video")
    develop = video.Developer.__call__
    alive: list[weakref.ref] = []
    counts: list[int] = []

    def counted(self: Any, *frame: Any) -> np.ndarray:
        picture = develop(self, *frame)
        alive[:] = [ref for ref in alive if ref() is not None] + [weakref.ref(picture)]
        counts.append(len(alive))
        return picture

    def whole(_video: Any) -> None:
        raise AssertionError("the whole VIDEO was decoded")

    monkeypatch.setattr(video.Developer, "__call__", counted)
    monkeypatch.setattr(InputImpl.VideoFromFile, "get_components", whole)
    return counts


@pytest.mark.parametrize(
    ("node", "most"),
    [(EXTRACT, 2 * BATCH), ("ChoreoPoseOverlay", 3), (POSE_VIDEO, 3), ("ChoreoSkeletonPictures", 24)],
)
def test_a_video_is_never_held_whole(host: Host, tmp_path: Path, held: list[int], node: str, most: int) -> None:
    pictures = frames(2) * (LONG // 2)
    found = poses(host, frames(2)).value
    video = as_video(video_file(tmp_path / "v.mkv", pictures))
    many = Value(host.module("pose.poses").concatenate([found] * (LONG // 2)))
    inputs = {
        EXTRACT: {"frames": video, "detector": detector(host)},
        "ChoreoPoseOverlay": {"frames": video, "poses": many},
        POSE_VIDEO: {"frames": video, "poses": many},
        "ChoreoSkeletonPictures": {"pictures": video},
    }
    assert host.queue({"x": (node, inputs[node])}).error is None
    assert len(held) >= LONG
    assert max(held) <= most


def test_sound_is_taken_without_pictures(host: Host, tmp_path: Path, held: list[int]) -> None:
    path = make_video(tmp_path / "v.mp4", num_frames=LONG, fps=20, sound=impulses(3, [1.0]))
    assert host.queue({"x": ("ChoreoVideoSound", {"video": as_video(path)})}).error is None
    assert len(held) <= 2


def test_pictures_are_not_copied_as_a_whole(host: Host) -> None:
    """An IMAGE batch is there already; nothing as large comes on top."""
    found = host.queue({"x": (POSE_VIDEO, {"poses": poses(host, frames(3)), "frames": Value(images(frames(3)))})})
    assert found.error is None
    assert found.outputs["x"][0].get_components().images.shape == (3, *SIZE, 3)
