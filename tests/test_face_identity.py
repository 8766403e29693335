"""Whose face it is: the largest, averaged over pictures, and a word where it is doubtful."""

from __future__ import annotations

import logging
import shutil
import warnings

import numpy as np
import pytest
from choreo.pipelines import faces
from choreo.pose import face
from choreo.pose.face import TEMPLATE_112, FaceAnalyser
from choreo.pose.identity import face_embedding, find_faces, is_turned
from choreo.quirks import PUBLISHED_STABLEANIMATOR

from .figures import FACE_DETECTOR, RECOGNISER, Figure, draw

NOBODY = np.zeros((200, 200, 3), np.uint8)


@pytest.fixture(scope="module")
def analyser():
    with FaceAnalyser(FACE_DETECTOR, RECOGNISER, "cpu") as analyser:
        yield analyser


def one(tint=0, height=170):
    return draw((200, 200), [Figure((100, 100), height, tint=tint)])


def plain(picture, analyser):
    faces = analyser.find(picture)
    return analyser.embed(picture, faces.landmarks[faces.largest()])


def cosine(a, b):
    return a @ b / np.linalg.norm(a) / np.linalg.norm(b)


def test_one_picture_is_its_largest_face_raw(analyser):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        np.testing.assert_array_equal(face_embedding([one()], analyser), plain(one(), analyser))
    two = draw((220, 400), [Figure((100, 110), 190, tint=0), Figure((300, 110), 120, tint=1)])
    with pytest.warns(RuntimeWarning, match="The picture shows 2 faces; the largest is taken"):
        found = face_embedding([two], analyser)
    assert cosine(found, plain(one(0), analyser)) > cosine(found, plain(one(1), analyser))


def test_several_pictures_are_averaged_with_their_length(analyser):
    pictures = [one(0, 170), one(0, 190)]
    first, second = (plain(picture, analyser) for picture in pictures)
    found = face_embedding(pictures, analyser)
    lengths = [np.linalg.norm(embedding) for embedding in (first, second)]
    assert np.linalg.norm(found) == pytest.approx(np.mean(lengths), rel=1e-5)
    assert cosine(found, first) == pytest.approx(cosine(found, second), abs=1e-5)
    assert found.dtype == np.float32


def test_pictures_without_a_face_are_left_out(analyser):
    with pytest.warns(RuntimeWarning, match=r"Picture 1 shows no face\. It is left out"):
        found = face_embedding([NOBODY, one()], analyser)
    np.testing.assert_array_equal(found, plain(one(), analyser))


def test_no_face_stops_or_goes_on_as_chosen(analyser):
    with pytest.raises(ValueError, match=r"The picture shows no face\. Take a larger"):
        face_embedding([NOBODY], analyser)
    with pytest.warns(RuntimeWarning, match="No identity is kept"):
        np.testing.assert_array_equal(face_embedding([NOBODY], analyser, without_face="zeros"), np.zeros(512))
    with pytest.raises(ValueError, match="no picture"):
        face_embedding([], analyser)


def test_swapped_channels_are_noticed(analyser):
    with pytest.raises(ValueError, match="is it BGR instead of RGB"):
        face_embedding([np.ascontiguousarray(one()[..., ::-1])], analyser)
    released = np.ascontiguousarray(one()[..., ::-1])
    found = face_embedding([released], analyser, channel_order="released")
    np.testing.assert_array_equal(found, plain(one(), analyser))


class OneFace:
    """Finds one face of a size at given settings only."""

    def __init__(self, side, score=0.5, input_side=640, embedding=None):
        self.box = np.array([[5, 5, 5 + side, 5 + side]], np.float32)
        self.wants, self.embedding = (score, (input_side, input_side)), embedding

    def find(self, picture, min_score=0.5, size=(640, 640), channel_order="bgr"):
        n = int((min_score, size) == self.wants)
        return face.Faces(self.box[:n], np.ones(n), TEMPLATE_112[None][:n])

    def embed(self, picture, landmarks, channel_order="bgr"):
        return picture[0, :3].mean(1) if self.embedding is None else self.embedding


def test_tiny_faces_are_refused():
    with pytest.raises(ValueError, match="face of the picture has only 19x19 pixels, 20 are the least"):
        face_embedding([NOBODY], OneFace(19))
    assert face_embedding([NOBODY], OneFace(20)) is not None


@pytest.mark.parametrize(("score", "side"), [(0.5, 320), (0.3, 640), (0.3, 1024)])
def test_hard_faces_are_looked_for_again(score, side):
    assert len(find_faces(NOBODY, OneFace(50, score, side))) == 1


def test_different_people_are_noticed():
    people = [np.full((9, 9, 3), 0, np.uint8) for _ in range(2)]
    people[0][0, 0], people[1][0, 1] = 9, 9
    with pytest.warns(RuntimeWarning, match="faces 1 and 2 seem to be different people"):
        face_embedding(people, OneFace(50))


def test_faces_from_the_side_are_noticed(analyser, monkeypatch):
    assert not is_turned(TEMPLATE_112)
    turn = np.array([[0.6, -0.8], [0.8, 0.6]])
    assert not is_turned(TEMPLATE_112 @ turn.T)  # tilted, from the front
    nose_aside, narrow = TEMPLATE_112.copy(), TEMPLATE_112 * (0.4, 1)
    nose_aside[2, 0] -= 20
    assert is_turned(nose_aside) and is_turned(nose_aside @ turn.T) and is_turned(narrow)
    monkeypatch.setattr("choreo.pose.identity.is_turned", lambda _: True)
    with pytest.warns(RuntimeWarning, match="from the side"):
        face_embedding([one()], analyser)


def test_the_licence_is_told_once_and_auraface_noticed(tmp_path, caplog, monkeypatch):
    path = tmp_path / "glintr100.onnx"
    shutil.copy(RECOGNISER, path)
    with caplog.at_level(logging.INFO, logger="choreo.pose.face"):
        for _ in range(2):
            FaceAnalyser(FACE_DETECTOR, path, "cpu").close()
    assert caplog.text.count("non-commercial use only") == 1
    monkeypatch.setattr(face, "AURAFACE_SIZE", path.stat().st_size)
    monkeypatch.setattr(face, "AURAFACE", face.hashlib.sha256(path.read_bytes()).hexdigest())
    with pytest.warns(RuntimeWarning, match="AuraFace"):
        FaceAnalyser(FACE_DETECTOR, path, "cpu").close()


def test_the_published_channel_order_is_a_quirk(analyser, monkeypatch):
    networks = {"scrfd_10g_bnkps.onnx": FACE_DETECTOR, "glintr100.onnx": RECOGNISER}
    monkeypatch.setattr(faces, "find_network", lambda name, _folders: networks[name])
    swapped = np.ascontiguousarray(one()[..., ::-1])
    found = faces.Identity().embedding(swapped, (), "cpu", PUBLISHED_STABLEANIMATOR)
    np.testing.assert_array_equal(found, plain(one(), analyser))
