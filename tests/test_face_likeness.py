"""The likeness of faces: by hand, on drawn people, and through the command."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from choreo import cli
from choreo.datasets.puppets import Puppets
from choreo.evaluation.faces import face_likeness, recogniser
from choreo.evaluation.protocol import evaluate
from choreo.model_loaders.tiny import RECOGNISER_FILE, TINY_FOLDER
from choreo.pose.face import landmarks_of
from choreo.pose.poses import FACE

from .test_evaluate import SIZE, SMALL, Figures, copies, perfect


def first_pixel(picture: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
    """A recogniser whose embedding is a colour."""
    assert landmarks.shape == (5, 2)
    return picture[0, 0].astype(np.float32)


def pictures(*colours: tuple[int, int, int]) -> np.ndarray:
    return np.array(colours, np.uint8)[:, None, None, :].repeat(8, 1).repeat(8, 2)


def test_the_numbers_are_those_by_hand():
    poses = Figures().clip(0, 3, SIZE).poses
    truth = pictures((2, 0, 0), (7, 0, 0), (0, 5, 0))
    result = pictures((0, 0, 9), (1, 0, 0), (0, 3, 0))
    found = face_likeness({"result": result, "truth": truth}, poses, first_pixel)
    # What the true faces share is (2, 1, 0) / sqrt(5); without one of them (1, 1, 0) / sqrt(2), or (1, 0, 0).
    assert found["result"] == pytest.approx((0 + 2 / 5**0.5 + 1 / 5**0.5) / 3)
    assert found["truth"] == pytest.approx((1 / 2**0.5 + 1 / 2**0.5 + 0) / 3)
    assert face_likeness({"truth": truth, "result": 0 * truth}, poses, first_pixel)["result"] == 0


def test_only_frames_that_show_the_face_count():
    poses = Figures().clip(0, 4, SIZE).poses
    scores = poses.scores.copy()
    scores[1, 0, FACE.start + 48] = 0.4
    present = poses.present.copy()
    present[3] = False
    hidden = replace(poses, scores=scores, present=present)
    assert [landmarks_of(hidden, frame) is None for frame in range(4)] == [False, True, False, True]
    truth = pictures((1, 0, 0), (0, 1, 0), (1, 0, 0), (0, 0, 1))
    assert face_likeness({"truth": truth}, hidden, first_pixel) == {"truth": pytest.approx(1)}
    assert face_likeness({"truth": truth}, replace(poses, scores=0 * scores), first_pixel) == {}


def test_landmarks_are_those_that_faces_are_aligned_by():
    poses = Puppets().clip(0, 1, SIZE).poses
    points = landmarks_of(poses)
    np.testing.assert_array_equal(points[2], poses.pixels()[0, 0, 0])
    right, left, nose, *mouth = points
    assert right[0] < nose[0] < left[0] and mouth[0][0] < mouth[1][0] and mouth[0][1] > nose[1] > right[1]


def test_a_person_who_is_copied_to_the_right_place_is_known_there():
    def someone_else(task):
        return perfect(replace(task, reference=Figures().clip(1, 1, SIZE).reference))

    settings = replace(SMALL, clips=1, references=0)
    with recogniser(TINY_FOLDER / RECOGNISER_FILE, "cpu") as embed:
        right, wrong, copied = (
            evaluate(system, Figures(), settings, faces=embed) for system in (perfect, someone_else, copies)
        )
    for report in (right, wrong, copied):
        assert report.mean("truth", "faces")[0] > 0.9 and "likeness of faces" in report.table()
    likeness = [report.mean("result", "faces")[0] for report in (right, wrong, copied)]
    assert likeness[0] > 0.99 and max(likeness[1:]) < 0.95, likeness
    assert likeness[2] == copied.mean("copied", "faces")[0]


def test_the_command_measures_it_when_the_network_is_named(tmp_path, capsys):
    flags = "evaluate --model tiny --clips 1 --frames 2 --references 0 --steps 1 --targets none --device cpu"
    flags = flags.split()
    assert cli.main([*flags, "--output", str(tmp_path), "--arcface", str(TINY_FOLDER / RECOGNISER_FILE)]) == 0
    said = capsys.readouterr().out
    assert "likeness of faces" in said and "(--arcface)" not in said
    means = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))["means"]
    assert -1 <= means["result"]["faces"][0] <= 1
    assert cli.main([*flags, "--arcface", "nobody.onnx"]) != 0
    assert "nobody.onnx" in capsys.readouterr().err
