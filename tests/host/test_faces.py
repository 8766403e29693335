"""Nodes for faces: whose face it is, and where faces are."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ..figures import Figure, draw
from .clips import ONE, OTHER, frames, poses
from .harness import Host, Value
from .svd_job import TINY, image
from .test_bad_input import check_sentence


def analyser() -> tuple[str, dict]:
    return ("ChoreoLoadFaceAnalyser", {"detector": TINY, "recogniser": TINY, "provider": "cpu"})


def identity(pictures: Value, **widgets) -> dict:
    inputs = {"pictures": pictures, "face_analyser": ("analyser", 0), **widgets}
    return {"analyser": analyser(), "face": ("ChoreoFaceIdentity", inputs)}


@pytest.fixture
def puppet() -> np.ndarray:
    """A figure whose face the built-in networks see."""
    return draw((240, 180), [Figure((90, 125), 220)])


def test_the_identity_is_the_cores(host: Host, puppet: np.ndarray) -> None:
    result = host.queue(identity(image(puppet)))
    assert result.error is None
    with host.module("nodes.sockets").FaceFiles(*paths(host), "cpu").open() as networks:
        wanted = host.module("pose.identity").face_embedding([puppet], networks)
    assert np.array_equal(result.outputs["face"][0].embedding, wanted)
    assert wanted.shape == (512,)


def paths(host: Host) -> tuple:
    tiny = host.module("model_loaders.tiny")
    return tiny.TINY_FOLDER / tiny.FACE_FILE, tiny.TINY_FOLDER / tiny.RECOGNISER_FILE


def test_no_session_stays_open(host: Host, puppet: np.ndarray) -> None:
    import gc

    result = host.queue(identity(image(puppet, puppet)))
    assert result.error is None
    model = host.module("pose.onnx_models").OnnxModel
    opened = [thing for thing in gc.get_objects() if type(thing) is model]
    assert [found for found in opened if found._session is not None] == []
    assert type(result.outputs["analyser"][0]).__name__ == "FaceFiles"


def test_without_a_face_it_stops_or_goes_on(host: Host, caplog) -> None:
    nothing = Value(torch.zeros(1, 64, 96, 3))
    check_sentence(host.queue(identity(nothing)).error, "shows no face", "from the front")
    result = host.queue(identity(nothing, without_face="go on"))
    assert result.error is None
    assert not result.outputs["face"][0].embedding.any()
    assert "No identity is kept" in caplog.text


def test_files_that_are_missing_are_named(host: Host) -> None:
    error = host.queue({"x": ("ChoreoLoadFaceAnalyser", {"detector": "scrfd_10g_bnkps.onnx"})}).error
    check_sentence(error, "scrfd_10g_bnkps.onnx", "press R")


@pytest.mark.parametrize("shape", ["box", "hull"])
def test_masks_say_where_faces_are(host: Host, shape: str) -> None:
    found = poses(host, frames(3, (ONE,), empty=[1]))
    masks = host.run("ChoreoFaceMask", poses=found, shape=shape)[0]
    core = host.module("pose.masks").masks_from_poses(found.value, shape, empty=0)
    assert np.array_equal(masks.numpy() == 1, np.stack(list(core)) == 255)
    assert masks.shape == (3, *found.value.size)
    assert [bool(mask.any()) for mask in masks] == [True, False, True]
    white = host.run("ChoreoFaceMask", poses=found, shape=shape, without_face="white", width=128, height=96)[0]
    assert white.shape == (3, 96, 128)
    assert white[1].all()


def test_masks_need_poses(host: Host) -> None:
    none = poses(host, frames(1, (OTHER,))).value[:0]
    check_sentence(host.queue({"x": ("ChoreoFaceMask", {"poses": Value(none)})}).error, "no poses")
