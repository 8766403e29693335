"""The embedded tiny model really animates: a swapped channel or a wrong scale anywhere would show here."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from choreo.datasets.puppets import Puppets
from choreo.evaluation.metrics import pck, psnr
from choreo.model_loaders.tiny import load_tiny, tiny_onnx
from choreo.pipelines.mimicmotion import Settings, animate
from choreo.pose.detect import PoseDetector

FRAMES, SIZE = 15, (128, 128)
SETTINGS = Settings(steps=10, schedule="ays", guidance_first=1.0, guidance_last=1.0)


@pytest.fixture(scope="module")
def clip():
    """A puppet that dances, one that no training saw."""
    return Puppets(held_out=True).clip(5, FRAMES, SIZE, seed=1)


@pytest.fixture(scope="module")
def tiny():
    return load_tiny()


@pytest.fixture(scope="module")
def detector():
    with PoseDetector(*tiny_onnx(), provider="cpu") as detector:
        yield detector


def made(tiny, clip, pictures) -> np.ndarray:
    frames = animate(*tiny, clip.reference, [clip.reference_pose, *pictures], SETTINGS)
    return np.stack([np.asarray(frame) for frame in frames])


@pytest.fixture(scope="module")
def result(tiny, clip):
    return made(tiny, clip, clip.pose_pictures)


def share(counts: tuple[int, int]) -> float:
    return counts[0] / counts[1]


def test_the_detector_sees_puppets(detector, clip):
    assert share(pck(detector.extract(clip.frames, clip.fps), clip.poses, 0.1)) > 0.9


def test_the_result_is_nearer_to_the_truth_than_the_reference_is(clip, result):
    copied = psnr(np.broadcast_to(clip.reference, clip.frames.shape), clip.frames).mean()
    assert psnr(result, clip.frames).mean() > copied + 3


def test_the_result_makes_the_motion(detector, clip, result):
    still = detector.extract([clip.reference])[[0] * FRAMES]
    assert share(pck(still, clip.poses, 0.1)) < 0.5
    assert share(pck(detector.extract(result, clip.fps), clip.poses, 0.1)) > 0.8


def test_without_poses_nothing_follows(tiny, clip, result):
    settings = replace(SETTINGS, pose_strength=0.0)
    frames = animate(*tiny, clip.reference, [clip.reference_pose, *clip.pose_pictures], settings)
    assert psnr(np.stack(list(frames)), clip.frames).mean() < psnr(result, clip.frames).mean() - 1


def test_the_reference_gives_the_colours(tiny, clip, result):
    swapped = made(tiny, replace(clip, reference=clip.reference[..., ::-1].copy()), clip.pose_pictures)
    assert psnr(swapped, clip.frames).mean() < psnr(result, clip.frames).mean() - 1
    assert psnr(swapped[..., ::-1], clip.frames).mean() > psnr(swapped, clip.frames).mean() + 1
