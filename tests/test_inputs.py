"""What a job reads and writes: which frames, at which rate, and what is refused before any work."""

from __future__ import annotations

import json
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from choreo.media.pictures import save_picture
from choreo.pipelines.driving import PoseSettings
from choreo.pipelines.inputs import Clip, Detection, DrivingInputs, check_outputs, cut_poses, is_pose_data, load_poses
from choreo.pipelines.inputs import open_clip as open_part
from choreo.pose.openpose_json import save_json

from .figures import DETECTOR, POSE_NETWORK, Figure, draw
from .figures import clip as figure_clip
from .make_media import flat, make_video, marks
from .pose_clips import clip

SIZE = (192, 128)  # the tiny detector sees nobody in squares
FIGURE = Figure((64, 96), 150)
TINY = Detection(str(DETECTOR), str(POSE_NETWORK), "cpu")
BASE = DrivingInputs(None, None, "auto", Clip(), TINY, PoseSettings())


@pytest.fixture(scope="module")
def dance(tmp_path_factory) -> Path:
    frames = list(figure_clip(SIZE, [Figure((60, 90), 140)], 2))
    return make_video(tmp_path_factory.mktemp("v") / "d.mp4", num_frames=2, fps=12, picture=frames.__getitem__)


@pytest.fixture(scope="module")
def poses_file(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("p") / "poses.json"
    save_json(path, clip([[(100.0, 100.0, 120.0)], [(110.0, 100.0, 120.0)]]))
    return path


@pytest.mark.parametrize(
    ("fps", "wanted", "rate", "kept"),
    [
        (30, Clip(), 15, [0, 2, 4, 6, 8, 10]),
        (60, Clip(), 15, [0, 4, 8]),
        (12, Clip(), 12, list(range(12))),
        (30, Clip(stride=1), 30, list(range(12))),
        (30, Clip(stride=3), 10, [0, 3, 6, 9]),
        (30, Clip(start=0.1, duration=0.2), 15, [3, 5, 7]),
        (30, Clip(max_frames=2), 15, [0, 2]),
    ],
)
def test_frames_of_a_video(tmp_path, fps, wanted, rate, kept):
    source = open_part(make_video(tmp_path / "a.mp4", fps=fps), wanted)
    assert source.fps == rate and marks(source) == kept


def test_a_variable_rate_keeps_its_time(tmp_path):
    times = [Fraction(t, 100) for t in (0, 4, 8, 12, 40, 44, 48)]
    source = open_part(make_video(tmp_path / "a.mp4", times, fps=25), Clip(stride=1))
    assert source.fps == 25 and marks(source) == [0, 1, 2, *7 * [3], 4, 5, 6]


def test_folders_of_pictures_take_a_rate_that_videos_have(tmp_path):
    for index in range(4):
        save_picture(tmp_path / "f" / f"{index}.png", flat(index))
    assert open_part(tmp_path / "f", Clip()).fps is None
    source = open_part(tmp_path / "f", Clip(source_fps=4, start=0.5))
    assert source.fps == 4 and marks(source) == [2, 3]
    with pytest.raises(ValueError, match="rate of its own"):
        open_part(make_video(tmp_path / "a.mp4"), Clip(source_fps=4))


@pytest.mark.parametrize(
    ("wanted", "frames", "fps"),
    [(Clip(), 10, 25), (Clip(stride=2), 5, 12.5), (Clip(start=0.2, duration=0.08), 2, 25), (Clip(max_frames=3), 3, 25)],
)
def test_frames_of_poses(wanted, frames, fps):
    cut = cut_poses(clip(10 * [[(100.0, 100.0, 120.0)]]), wanted)
    assert len(cut) == frames and cut.fps == fps


def test_poses_whose_file_tells_nothing(tmp_path):
    frame = {"people": [{"pose_keypoints_2d": 18 * [30, 20, 0.9]}]}
    (tmp_path / "a.json").write_text(json.dumps(30 * [frame]), encoding="utf-8")
    with pytest.raises(ValueError, match="how large its picture was"):
        load_poses(tmp_path / "a.json", Clip())
    with pytest.raises(ValueError, match="source_fps"):
        load_poses(tmp_path / "a.json", Clip(source_size=(60, 40), start=0.5))
    poses = load_poses(tmp_path / "a.json", Clip(source_size=(60, 40), source_fps=10, start=2.0))
    assert poses.size == (40, 60) and poses.fps == 10 and len(poses) == 10
    assert np.allclose(poses.points[0, 0, 0], 0.5)
    with pytest.raises(ValueError, match="No frame is left"):
        load_poses(tmp_path / "a.json", Clip(source_size=(60, 40), source_fps=10, start=9.0))


@pytest.mark.parametrize(
    "values",
    [
        {"start": -1},
        {"start": float("nan")},
        {"duration": 0},
        {"duration": float("inf")},
        {"fps": 0},
        {"fps": float("nan")},
        {"source_fps": -5},
        {"stride": 0},
        {"max_frames": 0},
        {"source_size": (0, 5)},
    ],
)
def test_clips_that_cannot_be(values):
    with pytest.raises(ValueError, match=next(iter(values))):
        Clip(**values)


def test_detection_that_cannot_be():
    with pytest.raises(ValueError, match="detect_every"):
        Detection(detect_every=0)


def test_keypoints_are_told_from_pictures(tmp_path, poses_file):
    assert is_pose_data(poses_file) and is_pose_data(poses_file.parent)
    save_picture(tmp_path / "a.png", flat(0))
    (tmp_path / "a.json").write_text("[]", encoding="utf-8")
    assert not is_pose_data(tmp_path), "pictures with something beside them"


@pytest.mark.parametrize("reference_pose", ["auto", "detect", "first", "file"])
def test_the_pose_of_the_reference(dance, tmp_path, reference_pose):
    with TINY.open() as detector:
        save_json(tmp_path / "own.json", detector.extract([draw(SIZE, [FIGURE])]))
    choice = str(tmp_path / "own.json") if reference_pose == "file" else reference_pose
    driving = replace(BASE, video=dance, reference_pose=choice).drive(draw(SIZE, [FIGURE]), "mimicmotion")
    own, first, *_ = driving.pictures()
    assert own.any() and driving.num_frames == 2 and driving.fps == 12
    aligned = not any("nothing is aligned" in note for note in driving.notes)
    assert aligned == (reference_pose != "first") == (not np.array_equal(own, first))


def test_a_reference_without_a_person(dance):
    empty = draw(SIZE, [])
    driving = replace(BASE, video=dance).drive(empty, "mimicmotion")
    assert "No person was found in the reference picture" in driving.notes[0]
    with pytest.raises(ValueError, match="No person was found in the reference picture"):
        replace(BASE, video=dance, reference_pose="detect").drive(empty, "mimicmotion")


def test_skeleton_pictures_with_each_pose_of_the_reference(tmp_path, poses_file):
    for index in range(2):
        save_picture(tmp_path / "skeletons" / f"{index}.png", np.full((40, 40, 3), 50 + index, np.uint8))
    save_picture(tmp_path / "own.png", np.full((40, 40, 3), 200, np.uint8))
    base = replace(BASE, poses=tmp_path / "skeletons")
    notes = {
        "first": "first driving pose",
        "detect": "was found in it",
        str(tmp_path / "own.png"): "was given",
        str(poses_file): "was given",
    }
    for choice, words in notes.items():
        driving = replace(base, reference_pose=choice).drive(draw(SIZE, [FIGURE]), "mimicmotion")
        assert words in driving.notes[-1].lower()
        assert [picture.shape for picture in driving.pictures()] == 3 * [(*SIZE, 3)]


def test_mistakes_are_told_from_the_paths_alone(tmp_path, dance, poses_file):
    picture = tmp_path / "own.png"
    save_picture(picture, flat(0))
    mistakes = {
        "one of the two": {},
        "either a driving video": {"video": dance, "poses": poses_file},
        "nope.mp4 does not exist": {"video": tmp_path / "nope.mp4"},
        "holds poses": {"video": poses_file},
        "nope.json does not exist": {"video": dance, "reference_pose": str(tmp_path / "nope.json")},
        "is a picture, but": {"video": dance, "reference_pose": str(picture)},
    }
    for words, values in mistakes.items():
        with pytest.raises((ValueError, FileNotFoundError), match=words):
            replace(BASE, **values).check()


def test_outputs_replace_no_input_and_can_be_written(tmp_path):
    there = make_video(tmp_path / "a.mp4")
    for videos, words in (
        ((there,), "is read"),
        ((tmp_path / "sub" / ".." / "a.mp4",), "is read"),
        ((tmp_path / "b.mp4", tmp_path / "b.mp4"), "a second time"),
        ((tmp_path / "b",), "end its name in"),
    ):
        with pytest.raises(ValueError, match=words):
            check_outputs((there, None), videos)
    with pytest.raises(ValueError, match="is a folder"):
        check_outputs((), (), (tmp_path,))
    with pytest.raises(OSError):
        check_outputs((), (there / "below" / "a.mp4",))
    check_outputs((there,), (tmp_path / "new" / "b.mp4", None), (tmp_path / "b.json",))
    assert sorted(path.name for path in tmp_path.rglob("*") if path.is_file()) == ["a.mp4"]
