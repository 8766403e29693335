"""`choreo dataset build`: what is made of good, bad and odd videos, and how it goes on after it was stopped."""

from __future__ import annotations

import json
import logging
import shutil
import signal
import subprocess
import sys
import time
import weakref
from contextlib import nullcontext
from dataclasses import replace
from fractions import Fraction
from itertools import accumulate
from pathlib import Path

import numpy as np
import pytest
from choreo import cli
from choreo.datasets.build import BuildDataset, build_dataset, find_poses
from choreo.datasets.manifest import load_manifest, load_poses
from choreo.media.video import open_source
from choreo.pipelines.inputs import Detection
from choreo.pipelines.pose_job import Detector
from choreo.pose.detect import PoseDetector
from choreo.pose.poses import Poses

from .figures import DETECTOR, POSE_NETWORK, Figure, draw
from .make_media import make_video, rotate_by_flag

ROOT = Path(__file__).resolve().parents[1]
SIZE = (192, 128)
WALL = np.full((*SIZE, 3), 90, dtype=np.uint8)
LOSSLESS = {"pix_fmt": "yuv444p", "options": {"crf": "0"}}  # the networks of the tests know people by their colours
FLAGS = ["--detector", str(DETECTOR), "--pose-model", str(POSE_NETWORK), "--provider", "cpu", "--min-frames", "4"]

SLOW_BUILD = """
import sys, time
from contextlib import nullcontext
from pathlib import Path
import numpy as np
from choreo.datasets.build import BuildDataset, build_dataset
from choreo.pipelines.inputs import Detection
from choreo.pipelines.pose_job import Detector
from choreo.pose.poses import Poses

class Slow:
    def extract(self, frames, fps=None, total=None):
        frames = [(np.random.rand(1, 134, 2), np.ones((1, 134))) for _ in frames if not time.sleep(0.02)]
        return Poses.from_frames(frames, (192, 128), fps)

Detector.open = lambda self: nullcontext(Slow())
videos, output, *networks = sys.argv[1:]
detector = Detector(detection=Detection(*networks, "cpu"))
build_dataset(Path(videos), BuildDataset(Path(output), min_frames=4, detector=detector))
"""


def job(output: Path, **settings) -> BuildDataset:
    detector = Detector(detection=Detection(str(DETECTOR), str(POSE_NETWORK), "cpu"))
    return replace(BuildDataset(output, min_frames=4, detector=detector), **settings)


def frame(index: int) -> np.ndarray:
    return draw(SIZE, [Figure((60 + index % 12, 94), 150)])


@pytest.fixture(scope="session")
def dance(tmp_path_factory):
    """Six frames of somebody who walks."""
    return make_video(tmp_path_factory.mktemp("dance") / "dance.mp4", num_frames=6, fps=10, picture=frame, **LOSSLESS)


@pytest.fixture
def videos(tmp_path, dance):
    """A folder with one good video in a subfolder."""
    (tmp_path / "videos" / "a").mkdir(parents=True)
    shutil.copy(dance, tmp_path / "videos" / "a" / "dance.mp4")
    return tmp_path / "videos"


class Counting:
    """Stands in for PoseDetector.extract: finds a person of a given score in every frame, and counts what is held."""

    def __init__(self, scores=0.9) -> None:
        self.scores, self.seen, self.most_held, self.last = scores, [], 0, None

    def extract(self, frames, fps=None, total=None):
        given, scores = [], []
        for index, picture in enumerate(frames):
            given.append(weakref.ref(picture))
            self.most_held = max(self.most_held, sum(reference() is not None for reference in given))
            scores.append(np.full((1, 134), self.scores if np.isscalar(self.scores) else self.scores[index]))
        self.last = picture.copy()
        self.seen.append(len(scores))
        points = np.random.default_rng(0).uniform(0.3, 0.7, (1, 134, 2))
        return Poses.from_frames([(points, frame_scores) for frame_scores in scores], picture.shape[:2], fps)


def use_detector(monkeypatch, detector) -> None:
    monkeypatch.setattr(Detector, "open", lambda self: nullcontext(detector))


def test_every_video_has_an_entry_and_a_file_of_its_own(videos, tmp_path, dance, monkeypatch):
    use_detector(monkeypatch, Counting())
    (videos / "b").mkdir()
    shutil.copy(dance, videos / "b" / "dance.mp4")
    shutil.copy(dance, videos / "b" / "dance.mkv")
    shutil.copy(dance, videos / "b" / "Tänzerin 舞.mp4")
    (videos / ".hidden.mp4").write_bytes(b"")
    manifest = build_dataset(videos, job(tmp_path / "set"))
    assert manifest == load_manifest(tmp_path / "set")
    names = ["a/dance.mp4", "b/Tänzerin 舞.mp4", "b/dance.mkv", "b/dance.mp4"]
    assert [entry.video for entry in manifest.entries] == names and not manifest.skipped
    assert len({entry.poses for entry in manifest.entries}) == 4


def test_the_poses_are_those_the_networks_find(videos, tmp_path, dance):
    entry = build_dataset(videos, job(tmp_path / "set")).entries[0]
    assert (entry.size, entry.fps, entry.frames, entry.kept, entry.shots) == (SIZE, 10, 6, ((0, 6),), ())
    with PoseDetector(DETECTOR, POSE_NETWORK, "cpu") as detector:
        expected = detector.extract(open_source(dance), 10.0)
    found = load_poses(tmp_path / "set" / entry.poses)
    assert np.allclose(found.points, expected.points, atol=1e-6) and np.allclose(found.scores, expected.scores)
    assert (found.size, found.fps) == (SIZE, 10)
    some = load_poses(tmp_path / "set" / entry.poses, np.array([2, 2, 4]))
    assert np.array_equal(some.points, found.points[[2, 2, 4]])


def test_unusable_videos_are_skipped_with_the_reason(videos, tmp_path, dance, capsys, monkeypatch):
    whole = dance.read_bytes()
    (videos / "cut.mp4").write_bytes(whole[: len(whole) // 2])
    (videos / "text.mp4").write_text("not a video")
    (videos / "empty.mov").write_bytes(b"")
    make_video(videos / "one.mp4", num_frames=1, fps=10, picture=frame, **LOSSLESS)
    make_video(videos / "wall.mp4", num_frames=2, fps=10, picture=lambda _: WALL)
    assert cli.main(["dataset", "build", str(videos), "--output", str(tmp_path / "set"), *FLAGS]) == 0
    manifest = load_manifest(tmp_path / "set")
    assert [entry.video for entry in manifest.entries] == ["a/dance.mp4"]
    assert set(manifest.skipped) == {"cut.mp4", "text.mp4", "empty.mov", "one.mp4", "wall.mp4"}
    assert "nobody" in manifest.skipped["wall.mp4"] and "0 bytes" in manifest.skipped["empty.mov"]
    assert "at most 1 of its 1 frames" in manifest.skipped["one.mp4"]
    said = capsys.readouterr().out
    assert "6 of 6 frames kept" in said and "skipped text.mp4: " in said
    (videos / "a" / "dance.mp4").unlink()
    assert cli.main(["dataset", "build", str(videos), "--output", str(tmp_path / "set"), *FLAGS]) == 1
    assert "None of the 5 videos" in capsys.readouterr().err


def test_a_video_with_damaged_parts_is_used_and_the_damage_is_noted(videos, tmp_path, monkeypatch):
    noise = np.random.default_rng(0).integers(0, 255, (60, 48, 64, 3), dtype=np.uint8)
    path = make_video(videos / "b.mkv", num_frames=60, picture=lambda n: noise[n])
    data = bytearray(path.read_bytes())
    data[len(data) * 2 // 3 :] = b""
    path.write_bytes(data)
    use_detector(monkeypatch, Counting())
    entries = {entry.video: entry for entry in build_dataset(videos, job(tmp_path / "set")).entries}
    assert 30 < entries["b.mkv"].frames < 60 and entries["b.mkv"].notes
    again = {entry.video: entry for entry in build_dataset(videos, job(tmp_path / "set")).entries}
    assert again == entries, "what was noted is still known"


def test_one_frame_is_held_at_a_time(videos, tmp_path, monkeypatch):
    make_video(videos / "long.mp4", num_frames=200, fps=30)
    detector = Counting()
    use_detector(monkeypatch, detector)
    build_dataset(videos, job(tmp_path / "set"))
    assert detector.seen == [6, 200] and detector.most_held <= 2


@pytest.mark.parametrize(
    ("faint", "kept"),
    [((), ((0, 6),)), (("body",), ((0, 6),)), (("body", "face"), ((0, 2), (3, 6))), (None, ((0, 2), (3, 6)))],
)
def test_frames_are_kept_unless_two_parts_are_faint(videos, tmp_path, monkeypatch, faint, kept):
    scores = np.full((6, 134), 0.9)
    parts = {"body": slice(0, 18), "face": slice(24, 92), "hands": slice(92, 134)}
    for part in parts if faint is None else faint:
        scores[2, parts[part]] = 0.3
    use_detector(monkeypatch, Counting(scores))
    manifest = build_dataset(videos, job(tmp_path / "set"))
    assert manifest.entries[0].kept == kept
    lenient = build_dataset(videos, job(tmp_path / "set", faint_parts=4))
    assert lenient.entries[0].kept == ((0, 6),)
    strict = job(tmp_path / "set", least_score=0.95)
    with pytest.raises(ValueError, match="none of its 6 frames passed"):
        build_dataset(videos, strict)


def test_other_settings_of_the_filter_find_no_poses_again(videos, tmp_path, monkeypatch):
    detector = Counting()
    use_detector(monkeypatch, detector)
    build_dataset(videos, job(tmp_path / "set"))
    build_dataset(videos, job(tmp_path / "set", least_score=0.4))
    assert len(detector.seen) == 1
    build_dataset(videos, job(tmp_path / "set", people="centre"))
    assert len(detector.seen) == 2, "other poses are wanted"
    make_video(videos / "a" / "dance.mp4", num_frames=7, fps=10)
    assert build_dataset(videos, job(tmp_path / "set", people="centre")).entries[0].frames == 7
    poses = next((tmp_path / "set").rglob("*.safetensors"))
    poses.write_bytes(poses.read_bytes()[:300])
    build_dataset(videos, job(tmp_path / "set", people="centre"))
    assert len(detector.seen) == 4, "a damaged file of poses is made again"


def test_a_killed_build_goes_on_with_the_next_video(videos, tmp_path, monkeypatch, dance):
    for name in "bcde":
        shutil.copy(dance, videos / f"{name}.mp4")
    process = subprocess.Popen(
        [sys.executable, "-c", SLOW_BUILD, videos, tmp_path / "set", DETECTOR, POSE_NETWORK], cwd=ROOT / "docs"
    )
    deadline = time.monotonic() + 60
    done: list[Path] = []
    while len(done) < 2 and process.poll() is None and time.monotonic() < deadline:
        done = sorted((tmp_path / "set").rglob("[!.]*.safetensors"))
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "set").rglob("[!.]*.safetensors")}
    detector = Counting()
    use_detector(monkeypatch, detector)
    manifest = build_dataset(videos, job(tmp_path / "set"))
    assert len(before) >= 2 and len(detector.seen) == 5 - len(before)
    assert all(path.stat().st_mtime_ns == modified for path, modified in before.items())
    assert [entry.frames for entry in manifest.entries] == [6] * 5


def test_stopping_leaves_a_set_of_what_is_done(videos, tmp_path, monkeypatch, dance):
    shutil.copy(dance, videos / "b.mp4")

    class Stops(Counting):
        def extract(self, *arguments):
            if self.seen:
                raise KeyboardInterrupt
            return super().extract(*arguments)

    use_detector(monkeypatch, Stops())
    with pytest.raises(KeyboardInterrupt):
        build_dataset(videos, job(tmp_path / "set"))
    assert [entry.video for entry in load_manifest(tmp_path / "set").entries] == ["a/dance.mp4"]


def test_times_rule_where_the_rate_varies(videos, tmp_path, monkeypatch):
    pauses = [Fraction(1, 20)] * 5 + [Fraction(6, 20)] + [Fraction(1, 20)] * 6
    times = [Fraction(0), *accumulate(pauses)]
    make_video(videos / "a" / "dance.mp4", times, fps=20, picture=frame)
    use_detector(monkeypatch, Counting())
    entry = build_dataset(videos, job(tmp_path / "set")).entries[0]
    assert entry.fps == 20 and entry.frames == 18, "a pause of six frames is six frames long"


def test_turned_videos_stand_upright(videos, tmp_path, monkeypatch):
    pictures = [np.ascontiguousarray(np.rot90(frame(index))) for index in range(6)]
    path = make_video(videos / "a" / "dance.mp4", num_frames=6, fps=10, picture=pictures.__getitem__)
    rotate_by_flag(path, (0, 1, -1, 0))
    detector = Counting()
    use_detector(monkeypatch, detector)
    assert build_dataset(videos, job(tmp_path / "set")).entries[0].size == SIZE
    assert np.abs(detector.last.astype(int) - frame(5)).mean() < 8


def test_copies_make_the_set_complete_in_itself(videos, tmp_path, monkeypatch):
    use_detector(monkeypatch, Counting())
    (videos / "bad.mp4").write_text("not a video")
    manifest = build_dataset(videos, job(tmp_path / "set", copy=True))
    copies = sorted(path.name for path in (tmp_path / "set" / "videos").rglob("*.mp4"))
    assert manifest.videos == "videos" and copies == ["dance.mp4"]


def test_the_set_may_lie_among_the_videos(videos, monkeypatch):
    use_detector(monkeypatch, Counting())
    build_dataset(videos, job(videos / "set", copy=True))
    again = build_dataset(videos, job(videos / "set"))
    assert [entry.video for entry in again.entries] == ["a/dance.mp4"] and again.videos == ".."
    with pytest.raises(ValueError, match="another folder"):
        build_dataset(videos, job(videos))


def test_folders_without_videos_are_explained(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="holds no videos"):
        build_dataset(tmp_path / "empty", job(tmp_path / "set"))
    with pytest.raises(FileNotFoundError, match="does not exist"):
        build_dataset(tmp_path / "nowhere", job(tmp_path / "set"))
    assert not (tmp_path / "set").exists()


def test_a_single_picture_is_no_video(tmp_path, monkeypatch):
    from PIL import Image

    Image.fromarray(frame(0)).save(tmp_path / "still.gif")
    with pytest.raises(ValueError, match="single picture"):
        find_poses(tmp_path / "still.gif", Counting())


def test_manifests_that_cannot_be_read_are_explained(videos, tmp_path, monkeypatch, caplog):
    use_detector(monkeypatch, Counting())
    with caplog.at_level(logging.INFO):
        build_dataset(videos, job(tmp_path / "set"))
    assert "[1/1] a/dance.mp4: 6 of 6 frames kept" in caplog.text
    path = tmp_path / "set" / "dataset.json"
    good = json.loads(path.read_text(encoding="utf-8"))
    for content, problem in (
        ("{", "not JSON"),
        ("{}", "no manifest"),
        (json.dumps({**good, "version": 2}), "version 2"),
        (json.dumps({**good, "videos": [{"video": "a.mp4"}]}), "damaged"),
    ):
        path.write_text(content, encoding="utf-8")
        with pytest.raises(ValueError, match=problem):
            load_manifest(tmp_path / "set")
