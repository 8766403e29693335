"""Poses from streams of frames, with the tiny colour-coded networks."""

from __future__ import annotations

import weakref

import numpy as np
import pytest
import torch
from choreo.pose import simcc
from choreo.pose.detect import CropQueue, PoseDetector, follow
from choreo.pose.wholebody import openpose_134
from choreo.runtime import Cancelled, Runtime, use

from .figures import DETECTOR, POSE_NETWORK, RECOGNISER, Figure, clip, draw

SIZE = (190, 300)
LEFT, RIGHT = Figure((75, 95), 160, tint=1), Figure((225, 95), 160, tint=0)  # the right one scores higher


@pytest.fixture(scope="module")
def networks():
    with PoseDetector(DETECTOR, POSE_NETWORK, "cpu") as detector:
        yield detector


@pytest.fixture
def detector(networks, monkeypatch):
    """The open networks with settings of their own: detector(batch_size=3, detect_every=2, …)."""

    def settings(**values):
        for name, value in values.items():
            monkeypatch.setattr(networks.crops if name == "batch_size" else networks, name, value)
        return networks

    return settings


class FakePoseNetwork:
    """Quick and the same for every batch size: every joint at the crop's mean level, counted in bins."""

    def __init__(self, provider="cpu", largest=1000, batch=None):
        self.inputs, self.provider, self.largest = {"input": (batch, 3, 384, 288)}, provider, largest
        self.batches = []

    def run(self, inputs):
        self.batches.append(len(inputs))
        if len(inputs) > self.largest:
            raise torch.OutOfMemoryError("too large")
        bins = (inputs.mean((1, 2, 3)) * 50 + 200).astype(int)
        x = np.zeros((len(inputs), 133, 576), np.float32)
        x[np.arange(len(bins)), :, bins] = 0.9
        return x, np.pad(x, ((0, 0), (0, 0), (0, 192)))


def grey(level):
    return np.full((40, 30, 3), level, np.uint8)


def boxes_for(people):
    return np.array([[2.0 * i, 1, 20 + i, 30] for i in range(people)]).reshape(-1, 4)


def test_points_are_where_the_joints_are(networks):
    poses = networks.extract([draw(SIZE, [LEFT, RIGHT])], fps=25)
    assert poses.size == SIZE and poses.fps == 25 and poses.present.all()
    for slot, figure in enumerate((RIGHT, LEFT)):
        truth, _ = openpose_134(figure.joints()[None], np.ones((1, 133)))
        assert np.abs(poses.pixels()[0, slot] - truth[0]).max() < 2
    assert poses.scores.min() > 0.5


def test_batches_across_frames_and_people_change_nothing(detector):
    frames = [
        draw(SIZE, [LEFT, RIGHT]),
        draw(SIZE, [RIGHT.moved(-3, 4)]),
        draw(SIZE, [LEFT.moved(5), RIGHT.moved(2)]),
    ]
    one_by_one = detector(batch_size=1)
    single = [one_by_one.find_points(frame, one_by_one.find_people(frame)) for frame in frames]
    poses = detector(batch_size=4).extract(iter(frames))
    for index, found in enumerate(single):
        points, scores = openpose_134(*found)
        np.testing.assert_allclose(poses.frame(index)[0] * (SIZE[1], SIZE[0]), points, atol=1e-6)
        np.testing.assert_allclose(poses.frame(index)[1], scores, atol=1e-5)


def test_swapped_channels_find_nobody(networks):
    picture = draw(SIZE, [LEFT, RIGHT])
    assert len(networks.find_people(picture)) == 2
    assert len(networks.find_people(picture[..., ::-1])) == 0


def test_nobody_is_the_whole_picture_or_skipped(detector):
    empty = draw((120, 160), [])
    poses = detector(nobody="whole image").extract([empty])
    assert poses.present.all() and poses.scores.max() < 0.1
    np.testing.assert_array_equal(detector().boxes_for_nobody(empty), [[0, 0, 160, 120]])
    with pytest.warns(RuntimeWarning, match=r"Nobody was found in 2 of 2 frames \(frames 0-1\)\."):
        poses = detector(nobody="skip").extract([empty, empty])
    assert len(poses) == 2 and not poses.present.any()


def test_min_score_passes_over_people(detector):
    picture = draw(SIZE, [LEFT, RIGHT])
    np.testing.assert_allclose(
        detector(min_score=0.9).find_people(picture), detector(min_score=0.3).find_people(picture)[:1]
    )


def count_detections(monkeypatch, detector):
    frames = []
    original = detector.find_people
    monkeypatch.setattr(detector, "find_people", lambda picture: frames.append(1) or original(picture))
    return frames


def test_tracking_between_detections_gives_the_same_points(detector, monkeypatch):
    frames = list(clip((190, 220), [Figure((80, 95), 160)], 4, step=(6, 1)))
    always = detector(detect_every=1).extract(frames)
    detections = count_detections(monkeypatch, detector(detect_every=3))
    tracked = detector().extract(frames)
    assert len(detections) == 2  # frames 0 and 3
    np.testing.assert_allclose(tracked.pixels(), always.pixels(), atol=1.5)


def test_lost_track_is_found_again_in_the_same_frame(detector, monkeypatch):
    near, far = Figure((80, 95), 150), Figure((400, 95), 150)
    frames = [draw((190, 480), [figure]) for figure in (near, far)]
    detections = count_detections(monkeypatch, detector(detect_every=10))
    poses = detector().extract(frames)
    assert len(detections) == 2
    nose = poses.pixels()[:, 0, 0]
    np.testing.assert_allclose(nose, [figure.joints()[0] for figure in (near, far)], atol=1.5)


def test_follow_gives_up_when_anybody_is_lost():
    points = np.array([LEFT.joints(), RIGHT.joints()])
    scores = np.ones((2, 133))
    boxes = follow(points, scores)
    low, high = points.min(axis=1), points.max(axis=1)
    np.testing.assert_allclose(boxes[:, 2:] - boxes[:, :2], (high - low) * 1.25)
    np.testing.assert_allclose(boxes[:, 2:] + boxes[:, :2], high + low)
    faint = scores.copy()
    faint[1, 7:] = 0.3
    assert follow(points, faint) is None
    assert follow(points * 0.1, scores) is None
    assert follow(points[[0, 0]] + [[[0, 0]], [[5, 5]]], scores) is None
    assert follow(points[:0], scores[:0]) is None


def test_invisible_points_do_not_widen_the_followed_box():
    points, scores = LEFT.joints()[None].copy(), np.ones((1, 133))
    expected = follow(points[:, 1:], scores[:, 1:])
    points[0, 0], scores[0, 0] = (-500, -500), 0
    np.testing.assert_allclose(follow(points, scores), expected)


@pytest.mark.parametrize(("provider", "batch"), [("cpu", None), ("cuda", None), ("cuda", 3)])
def test_any_batching_gives_the_same(provider, batch):
    pictures = [(grey(level), boxes_for(people)) for level, people in ((10, 2), (90, 0), (130, 5), (250, 1))]
    plain = CropQueue(FakePoseNetwork(), 1)
    queue = CropQueue(FakePoseNetwork(provider, batch=batch), 4)
    expected, found = ([one.add(*picture) for picture in pictures] for one in (plain, queue))
    plain.flush(), queue.flush()
    for (points, scores), (other_points, other_scores) in zip(expected, found, strict=True):
        np.testing.assert_array_equal(points, other_points)
        np.testing.assert_array_equal(scores, other_scores)
    assert len(np.unique(np.concatenate([points for points, _ in found])[:, 0], axis=0)) == 8


def test_a_gpu_sees_few_batch_sizes():
    network = FakePoseNetwork("cuda")
    queue = CropQueue(network, 8)
    for people in range(1, 8):
        queue.add(grey(50), boxes_for(people))
        queue.flush()
    assert set(network.batches) == {1, 2, 4, 8}


def test_out_of_memory_is_tried_once_with_smaller_batches_then_explained():
    network = FakePoseNetwork(largest=2)
    queue = CropQueue(network, 8)
    _, scores = queue.add(grey(50), boxes_for(8))
    assert network.batches == [8, 2, 2, 2, 2] and (scores > 0).all()
    queue.add(grey(50), boxes_for(2))
    queue.flush()
    assert network.batches[5:] == [2]  # the large size is not tried again
    with pytest.raises(MemoryError, match="Out of memory while finding poses"):
        CropQueue(FakePoseNetwork(largest=0), 8).add(grey(50), boxes_for(8))


def test_frames_are_not_kept(detector, monkeypatch):
    monkeypatch.setattr(detector(nobody="whole image"), "crops", CropQueue(FakePoseNetwork(), 4))
    alive, most = weakref.WeakSet(), []

    class Frame(np.ndarray):
        __hash__ = object.__hash__

    def frames():
        for level in range(6):
            frame = grey(level).view(Frame)
            alive.add(frame)
            most.append(len(alive))
            yield frame

    assert len(detector().extract(frames())) == 6
    assert max(most) <= 2


def test_progress_and_cancel(detector, monkeypatch):
    network = FakePoseNetwork()
    monkeypatch.setattr(detector(), "crops", CropQueue(network, 4))
    seen = []

    class Watched(Runtime):
        def progress(self, stage, done, total):
            seen.append((done, total))

        def check_cancelled(self):
            if len(seen) == 2:
                raise Cancelled

    with use(Watched("cpu")), pytest.raises(Cancelled):
        detector().extract([grey(1)] * 3)
    assert seen == [(1, 3), (2, 3)]
    assert len(detector().extract([grey(1)])) == 1 and network.batches == [1]  # nothing of the first job is left


@pytest.mark.parametrize(
    ("frames", "message"),
    [
        ([], "no frame to find poses in"),
        ([grey(0), grey(0)[:-1]], "frame 1 has 30 x 39 pixels, but those before it 30 x 40"),
        ([grey(0).astype(np.float32)], "frame 0 must be .* uint8"),
        ([grey(0)[..., 0]], "frame 0 must be"),
    ],
)
def test_bad_streams_are_explained(detector, monkeypatch, frames, message):
    monkeypatch.setattr(detector(), "crops", CropQueue(FakePoseNetwork(), 4))
    with pytest.raises(ValueError, match=message):
        detector().extract(frames)


@pytest.mark.parametrize("settings", [{"nobody": "crash"}, {"batch_size": 0}, {"detect_every": 0}])
def test_bad_settings_are_named(settings):
    with pytest.raises(ValueError, match=next(iter(settings))):
        PoseDetector(DETECTOR, POSE_NETWORK, "cpu", **settings)


def test_a_wrong_file_is_refused():
    with pytest.raises(ValueError, match="ArcFace"):
        PoseDetector(RECOGNISER, POSE_NETWORK, "cpu")
    with pytest.raises(ValueError, match="is a YOLOX person detector"):
        PoseDetector(DETECTOR, DETECTOR, "cpu")


@pytest.mark.parametrize("box", [[10, 20, 50, 40], [-30, 5, 12, 200]])
def test_crop_is_the_enlarged_box_in_the_networks_ratio(box):
    (centre,), (scale,) = simcc.centres_and_scales([box])
    matrix = simcc.crop_matrix(centre, scale)
    corners = np.array([centre - scale / 2, centre + scale / 2])
    np.testing.assert_allclose(corners @ matrix[:, :2].T + matrix[:, 2], [[0, 0], [288, 384]], atol=1e-3)
    width, height = (box[2] - box[0]) * 1.25, (box[3] - box[1]) * 1.25
    assert scale[0] == pytest.approx(max(width, 0.75 * height))
