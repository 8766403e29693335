"""Whole jobs of the tiny model, from files to a file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from choreo.media.pictures import save_picture
from choreo.media.video import probe, read_frames
from choreo.media.write import VideoWriter
from choreo.model_loaders.tiny import load_tiny
from choreo.networks.pose_net import PoseNet
from choreo.pipelines import job as job_module
from choreo.pipelines.driving import PoseSettings
from choreo.pipelines.inputs import Clip
from choreo.pipelines.job import Animate, Decode, Weights, animate_to_file, decode_to_file
from choreo.pipelines.mimicmotion import Settings
from choreo.pipelines.pose_job import Detector, FindPoses, find_poses
from choreo.pose.draw import draw_clip
from choreo.pose.openpose_json import load_json, save_json
from choreo.runtime import Runtime, use
from choreo.samplers import decode as decode_module

from .figures import Figure, draw
from .figures import clip as figure_clip
from .make_media import impulses, make_video, read_sound
from .pose_clips import clip

QUICK = Settings(steps=2, window=6, overlap=2, decode_chunk=4)
TINY, TINY_DETECTOR = Weights("tiny"), Detector(tiny=True)
SIZE = (192, 128)


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> Path:
    """A reference, a driving video with sound, and poses of three frames."""
    folder = tmp_path_factory.mktemp("files")
    save_picture(folder / "me.png", draw(SIZE, [Figure((64, 96), 150)]))
    frames = list(figure_clip(SIZE, [Figure((60, 94), 150)], 4, (3, 1)))
    make_video(folder / "dance.mp4", num_frames=4, fps=10, picture=frames.__getitem__, sound=impulses(0.4, [0.2]))
    save_json(folder / "poses.json", clip([[(100.0 + 9 * f, 100.0, 120.0)] for f in range(3)], fps=10.0))
    return folder


@pytest.fixture(scope="module")
def networks():
    return load_tiny()


@pytest.fixture(autouse=True)
def _loaded_once(networks, monkeypatch):
    monkeypatch.setattr(job_module, "load_tiny", lambda: networks)
    with use(Runtime("cpu", torch.float32)):
        yield


@pytest.fixture
def job(files, tmp_path) -> Animate:
    return Animate(
        files / "me.png",
        poses=files / "poses.json",
        reference_pose="first",
        output=tmp_path / "out" / "a.mp4",
        size=(64, 64),
        side_by_side=False,
        networks=TINY,
        sampling=QUICK,
    )


def frames_of(path) -> np.ndarray:
    return np.stack(list(read_frames(path)))


def written(work, *arguments) -> np.ndarray:
    """The frames handed to the encoder: libx264 itself now and then compresses equal frames differently."""
    frames, write = [], VideoWriter.write
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(VideoWriter, "write", lambda writer, frame: (frames.append(frame), write(writer, frame))[1])
        path = work(*arguments)
    info = probe(path)
    frames = [frame for frame in frames if frame.shape[:2] == (info.height, info.width)][-info.num_frames :]
    assert np.abs(np.stack(frames).astype(int) - frames_of(path)).mean() < 25, "noise compresses badly"
    return np.stack(frames)


def animate(job, name="a.mp4", **changes) -> np.ndarray:
    return written(animate_to_file, replace(job, output=job.output.with_name(name), **changes))


def left(job) -> list[str]:
    return sorted(path.name for path in job.output.parent.iterdir())


def test_a_video_drives_a_video_with_its_sound(job, files):
    saved = job.output.with_name("poses.json")
    video = animate(
        job, poses=None, video=files / "dance.mp4", reference_pose="auto", size=SIZE[::-1], save_poses=saved
    )
    info = probe(job.output)
    assert video.shape == (4, *SIZE, 3) and info.fps == 10 and info.has_audio
    samples, first, rate = read_sound(job.output)
    heard = first + np.flatnonzero(np.abs(samples).max(axis=0) > 0.3)[0] / rate
    assert heard == pytest.approx(0.2, abs=0.03)
    again = animate(
        job,
        "again.mp4",
        poses=saved,
        reference_pose="detect",
        size=SIZE[::-1],
        pose=PoseSettings(align="none"),
    )
    assert np.array_equal(video, again), "saved poses drive the same video"
    assert left(job) == ["a.mp4", "again.mp4", "poses.json"]


@pytest.mark.parametrize("frames", [1, 9])
def test_clips_shorter_and_longer_than_a_window(job, frames, tmp_path):
    save_json(tmp_path / "p.json", clip(frames * [[(100.0, 100.0, 120.0)]], fps=12.0))
    assert len(animate(job, poses=tmp_path / "p.json")) == frames
    assert probe(job.output).fps == 12


def test_picture_poses_and_result_side_by_side(job):
    result = animate(replace(job, side_by_side=True))
    assert left(job) == ["a.mp4", "a_side_by_side.mp4"]
    picture, poses, shown = np.split(frames_of(job.output.with_name("a_side_by_side.mp4")), 3, axis=2)
    assert picture.shape == poses.shape == result.shape
    assert np.abs(picture[0].astype(int) - picture[-1]).mean() < 5, "the picture stands still"
    assert np.median(poses) < 20, "drawings are on black"
    assert np.abs(shown.astype(int) - frames_of(job.output)).mean() < 40, "the third is the result"


def test_seeds(job):
    video = animate(job)
    assert np.abs(animate(job, "b.mp4").astype(int) - video).max() <= 1, "as convolutions of other batches round"
    assert not np.array_equal(video, animate(job, "c.mp4", sampling=replace(QUICK, seed=7)))


def test_skeleton_pictures_and_the_video_of_poses(job, files, tmp_path):
    for index, drawing in enumerate(draw_clip(load_json(files / "poses.json"), (96, 64), "mimicmotion")):
        save_picture(tmp_path / "skeletons" / f"{index}.png", drawing)
    drawn = job.output.with_name("poses.mp4")
    assert len(animate(job, poses=tmp_path / "skeletons", save_pose_video=drawn)) == 3
    assert frames_of(drawn).shape == (3, 64, 64, 3) and frames_of(drawn).max() > 100
    assert probe(job.output).fps == 15, "the published rate where nothing tells another"
    with pytest.raises(ValueError, match="no keypoints to save"):
        animate(job, poses=tmp_path / "skeletons", save_poses=tmp_path / "x.json")


def test_sound_stays_away_when_the_speed_changes(job, files, tmp_path, caplog):
    caplog.set_level("INFO")
    changes = {"poses": files / "dance.mp4", "clip": Clip(fps=20)}  # its frames serve as skeleton pictures
    animate(job, **changes)
    assert probe(job.output).fps == 20 and not probe(job.output).has_audio
    assert "no sound" in caplog.text


class Stops(Runtime):
    """Ctrl-C when a stage has made so many reports."""

    def __init__(self, stage, reports):
        super().__init__("cpu", torch.float32)
        self.stage, self.reports = stage, reports

    def progress(self, stage, done, total):
        self.reports -= stage == self.stage
        if self.reports == 0:
            raise KeyboardInterrupt


@pytest.mark.parametrize(("stage", "reports"), [("sampling", 3), ("decoding", 1)])
def test_a_job_that_is_stopped_goes_on_with_the_same_result(job, stage, reports, caplog):
    sampling = replace(QUICK, steps=4)
    whole = animate(job, "whole.mp4", sampling=sampling)
    with use(Stops(stage, reports)), pytest.raises(KeyboardInterrupt):
        animate(job, sampling=sampling)
    kept = [name for name in left(job) if name.endswith(".latents.safetensors")]
    assert len(kept) == 1 and kept[0] in caplog.text and "a.mp4" not in left(job)
    if stage == "decoding":
        again = Decode(job.output.parent / kept[0], job.output.with_name("d.mp4"), TINY)
        assert np.array_equal(written(decode_to_file, again), whole)
    else:
        with pytest.raises(ValueError, match="step 2 of 4"):
            decode_to_file(Decode(job.output.parent / kept[0], job.output.with_name("d.mp4"), TINY))
    other = animate(job, sampling=replace(sampling, seed=1))
    assert not np.array_equal(other, whole) and kept[0] in left(job), "another job leaves it alone"
    steps = []
    runtime = Runtime("cpu", torch.float32)
    runtime.progress = lambda stage, *_: steps.append(stage)
    with use(runtime):
        assert np.array_equal(animate(job, sampling=sampling), whole)
    assert steps.count("sampling") == (2 if stage == "sampling" else 0)
    assert not [name for name in left(job) if "latents" in name or "partial" in name]


def test_memory_that_runs_out_once_changes_nothing(job, monkeypatch):
    video = animate(job)
    forward, sizes = PoseNet.forward, []

    def small(self, pictures):
        sizes.append(len(pictures))
        if len(pictures) > 1:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        return forward(self, pictures)

    monkeypatch.setattr(PoseNet, "forward", small)
    assert np.abs(animate(job, "b.mp4").astype(int) - video).max() <= 1, "as convolutions of other batches round"
    assert max(sizes) > 1


@pytest.mark.parametrize("where", ["predicting", "decoding"])
def test_memory_that_runs_out_is_explained(job, networks, monkeypatch, where):
    def none_left(*_, **__):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes.")

    module, name = (networks[0].unet, "forward") if where == "predicting" else (networks[1].vae, "decode")
    monkeypatch.setattr(module, name, none_left)
    with pytest.raises(MemoryError, match=f"Out of memory while {where}.*smaller size"):
        animate(job)
    assert "a.mp4" not in left(job)


def test_broken_weights_name_the_stage(job, networks, monkeypatch):
    monkeypatch.setattr(decode_module, "to_unit", lambda frames: frames)
    weight = networks[0].unet.conv_out.weight
    before = weight.clone()
    with torch.no_grad():
        weight[0, 0] = torch.nan
    try:
        with pytest.raises(FloatingPointError, match="step 1 of 2, window 1 of 1"):
            animate(job)
    finally:
        with torch.no_grad():
            weight.copy_(before)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"size": (70, 64)}, "multiples of 64"),
        ({"size": None, "resolution": 0}, "resolution"),
        ({"sampling": replace(QUICK, window=None, overlap=16)}, "overlap"),
        ({"reference": Path("nope.png")}, "nope.png does not exist"),
        ({"output": Path("a.txt")}, "end its name in"),
    ],
)
def test_mistakes_are_found_before_any_work(job, changes, words, monkeypatch):
    monkeypatch.setattr(job_module.DrivingInputs, "drive", lambda *_: pytest.fail("poses were looked for"))
    with pytest.raises((ValueError, FileNotFoundError), match=words):
        animate_to_file(replace(job, **changes))


def test_poses_are_found_drawn_and_laid_over(files, tmp_path):
    asked = FindPoses(
        files / "dance.mp4",
        tmp_path / "p.json",
        drawing=tmp_path / "d.mp4",
        overlay=tmp_path / "o.mp4",
        detector=TINY_DETECTOR,
    )
    poses = find_poses(replace(asked, clip=Clip(max_frames=2)))
    assert len(poses) == 2 and poses.fps == 10 and poses.size == SIZE
    assert np.allclose(load_json(tmp_path / "p.json").points, poses.points)
    drawn, over = frames_of(tmp_path / "d.mp4"), frames_of(tmp_path / "o.mp4")
    assert drawn.shape == over.shape == (2, *SIZE, 3)
    assert drawn[:, 0, 0].max() < 20 and over[:, 0, 0].min() > 50, "black, and the background of the clip"
    with pytest.raises(ValueError, match="needs the pictures"):
        find_poses(replace(asked, source=tmp_path / "p.json", output=None))
    again = FindPoses(tmp_path / "p.json", tmp_path / "plain.json", flavour="openpose")
    assert len(find_poses(again)) == 2
    assert "person_id" not in (tmp_path / "plain.json").read_text(encoding="utf-8")
