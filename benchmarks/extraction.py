"""How much faster than frame by frame and person by person are poses found, with the same result?"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
from choreo.pose import simcc, yolox
from choreo.pose.detect import PoseDetector
from choreo.pose.onnx_models import OnnxModel
from choreo.pose.poses import Poses
from choreo.pose.wholebody import openpose_134

from tests.figures import DETECTOR, POSE_NETWORK, Figure, clip

SIZE = (576, 1024)
STAGES = ("detector", "pose network", "other")
PEOPLE = (Figure((300, 290), 500, tint=0), Figure((740, 290), 480, tint=1))


def published(detector: PoseDetector, frames: list[np.ndarray]) -> Poses:
    """The published way: suppression for all 80 classes, one crop at a time, normalised in float64."""
    found = []
    for frame in frames:
        ratio, _ = yolox.fit(*frame.shape[:2])
        (raw,) = detector.detector.run(yolox.network_input(yolox.letterbox(frame)))
        objects = yolox.find_objects(yolox.decode(raw), ratio)
        boxes = objects[(objects[:, 5] == yolox.PERSON) & (objects[:, 4] > yolox.PERSON_SCORE), :4]
        centres, scales = simcc.centres_and_scales(boxes)
        people = []
        for centre, scale in zip(centres, scales, strict=True):
            crop = simcc.crop(frame, simcc.crop_matrix(centre, scale))
            inputs = ((crop - np.array(simcc.MEAN)) / np.array(simcc.STD)).transpose(2, 0, 1)[None].astype(np.float32)
            locations, scores = simcc.decode(*detector.crops.model.run(inputs))
            people.append((simcc.to_picture(locations, centre[None], scale[None])[0], scores[0]))
        points, scores = openpose_134(*(np.stack(part) for part in zip(*people, strict=True)))
        found.append((points / (SIZE[1], SIZE[0]), scores))
    return Poses.from_frames(found, SIZE)


@contextmanager
def _timed(model: OnnxModel, seconds: list[float]) -> Iterator[None]:
    run = model.run

    def timed(*arrays: np.ndarray) -> list[np.ndarray]:
        start = time.perf_counter()
        outputs = run(*arrays)
        seconds.append(time.perf_counter() - start)
        return outputs

    model.run = timed
    try:
        yield
    finally:
        del model.run


def _measure(detector: PoseDetector, extract: Callable[[], Poses]) -> tuple[Poses, np.ndarray]:
    """Poses, and seconds for the detector, the pose network and everything else."""
    people, points = [], []
    with _timed(detector.detector, people), _timed(detector.crops.model, points):
        start = time.perf_counter()
        poses = extract()
        total = time.perf_counter() - start
    return poses, np.array([sum(people), sum(points), total - sum(people) - sum(points)])


def run(
    num_frames: int = 6, rounds: int = 3, provider: str = "auto", batch_size: int | None = None, detect_every: int = 5
) -> dict[str, float]:
    """Find two people in a clip of 1024 x 576 with the tiny networks: as published, as we do, and tracked.

    Raises AssertionError when a pose differs. Returns milliseconds a frame for each way and stage (the fastest of
    some rounds, taken in turns) as "<way> <stage> ms", and ratios of the published time to ours: "ratio" and
    "tracked ratio" of the whole, "other ratio" of everything but the networks. On a CPU the networks take the same
    time in any batch, so that only tracking and the rest can gain; batches are for GPUs.
    """
    frames = list(clip(SIZE, PEOPLE, num_frames, step=(4, 0)))
    seconds: dict[str, list[np.ndarray]] = {"published": [], "ours": [], "tracked": []}
    with PoseDetector(DETECTOR, POSE_NETWORK, provider, batch_size=batch_size) as detector:
        for _ in range(rounds):
            for way, every in (("published", 1), ("ours", 1), ("tracked", detect_every)):
                detector.detect_every = every
                extract = published if way == "published" else PoseDetector.extract
                poses, stages = _measure(detector, lambda extract=extract: extract(detector, frames))
                if way == "published":
                    expected = poses
                elif way == "ours":
                    assert np.allclose(poses.points, expected.points, atol=1e-6), "our way changed the poses"
                seconds[way].append(stages)
    best = {way: min(stages, key=np.sum) / num_frames * 1e3 for way, stages in seconds.items()}
    named = {f"{way} {stage} ms": value for way in best for stage, value in zip(STAGES, best[way], strict=True)}
    return named | {
        "ratio": best["published"].sum() / best["ours"].sum(),
        "tracked ratio": best["published"].sum() / best["tracked"].sum(),
        "other ratio": best["published"][2] / best["ours"][2],
    }
