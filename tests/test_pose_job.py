"""`choreo pose align`, `draw` and `show`: poses from file to file."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from choreo.media.pictures import save_picture
from choreo.media.video import probe, read_frames
from choreo.model_loaders.tiny import FACE_FILE, RECOGNISER_FILE, TINY_FOLDER
from choreo.pipelines.inputs import Clip
from choreo.pipelines.pose_job import (
    AlignPoses,
    Detector,
    DrawPoses,
    ShowPoses,
    align_poses,
    draw_poses,
    show_poses,
)
from choreo.pose.face import FaceAnalyser
from choreo.pose.openpose_json import load_json, save_json

from .figures import Figure, draw
from .figures import clip as figure_clip
from .make_media import make_video
from .pose_clips import clip

SIZE = (192, 128)


@pytest.fixture
def poses(tmp_path):
    """Somebody who walks through three frames."""
    save_json(tmp_path / "poses.json", clip([[(100.0 + 20 * f, 100.0, 120.0)] for f in range(3)], fps=10.0))
    return tmp_path / "poses.json"


def test_poses_are_fitted_to_the_person_of_a_picture(poses, tmp_path):
    save_picture(tmp_path / "me.png", draw(SIZE, [Figure((64, 96), 150)]))
    job = AlignPoses(poses, tmp_path / "me.png", tmp_path / "fitted.json", align="robust", detector=Detector(tiny=True))
    align_poses(job)
    fitted = load_json(job.output)
    assert fitted.size == SIZE and fitted.fps == 10
    assert 0 < fitted.points[0, 0, 0, 0] < 1, "the person is inside the picture"
    again = replace(job, reference=job.output, output=tmp_path / "again.json", clip=Clip(max_frames=1))
    align_poses(again)
    assert np.allclose(load_json(again.output).points, fitted.points[:1], atol=1e-6), "a pose that fits stays"


def test_nobody_in_the_picture_is_said(poses, tmp_path):
    save_picture(tmp_path / "wall.png", np.full((*SIZE, 3), 90, dtype=np.uint8))
    job = AlignPoses(poses, tmp_path / "wall.png", tmp_path / "fitted.json", detector=Detector(tiny=True))
    assert "No person was found" in align_poses(job)


def test_poses_are_drawn_at_any_size(poses, tmp_path):
    job = DrawPoses(poses, tmp_path / "drawn.mp4", size=(96, 160), clip=Clip(max_frames=2))
    assert draw_poses(job) == 2
    info = probe(job.output)
    assert (info.width, info.height, info.fps) == (96, 160, 10)
    with pytest.raises(ValueError, match="width and a height"):
        draw_poses(replace(job, size=(0, 160)))


def test_poses_are_laid_over_their_video(tmp_path):
    frames = list(figure_clip(SIZE, [Figure((60, 94), 150)], 3, (3, 1)))
    make_video(tmp_path / "dance.mp4", num_frames=3, fps=10, picture=frames.__getitem__)
    save_json(tmp_path / "poses.json", clip([[(60.0, 94.0, 100.0)]] * 3, fps=10.0))
    job = ShowPoses(tmp_path / "poses.json", tmp_path / "dance.mp4", tmp_path / "check.mp4")
    assert show_poses(job) == 3
    shown = np.stack(list(read_frames(job.output)))
    difference = np.abs(shown.astype(int) - np.stack(frames)).mean(axis=(0, 3))
    assert shown.shape[1:3] == SIZE and np.median(difference) < 10 and difference.max() > 40


def test_the_built_in_face_networks_see_the_figures():
    with FaceAnalyser(TINY_FOLDER / FACE_FILE, TINY_FOLDER / RECOGNISER_FILE, "cpu") as faces:
        picture = draw((240, 180), [Figure((90, 125), 220)])
        found = faces.find(picture)
        assert len(found.boxes) == 1
        assert np.isfinite(faces.embed(picture, found.landmarks[0])).all()
