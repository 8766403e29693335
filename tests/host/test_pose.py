"""Finding, choosing, repairing and placing poses by nodes, through the host's executor."""

from __future__ import annotations

import gc
import io
from pathlib import Path

import numpy as np
import pytest
import torch

from .clips import ONE, OTHER, SHARED_JOINTS, SIZE, STEP, TINY, detector, frames, images, joints, poses, video_file
from .harness import Host, Value

EXTRACT = "ChoreoExtractPoses"


def centre(found, frame: int, slot: int = 0) -> np.ndarray:
    return found.pixels()[frame, slot, SHARED_JOINTS].mean(axis=0)


def test_a_new_node_offers_what_is_built_in(host: Host) -> None:
    assert host.defaults("ChoreoLoadPoseDetector") == {"detector": TINY, "pose_model": TINY, "provider": "auto"}


def test_poses_in_pictures_are_where_the_people_are(host: Host) -> None:
    found, keypoints, fps = host.run(EXTRACT, frames=Value(images(frames(3))), detector=detector(host))
    assert (len(found), found.num_people, found.size, found.fps, fps) == (3, 1, SIZE, None, 15.0)
    for frame in range(3):
        wanted = joints(ONE.moved(STEP * frame))
        assert np.abs(found.pixels()[frame, 0, SHARED_JOINTS] - wanted).max() < 4
    assert [len(frame["people"]) for frame in keypoints] == [1, 1, 1]
    assert (keypoints[0]["canvas_height"], keypoints[0]["canvas_width"]) == SIZE


def test_names_of_files_may_come_through_links(host: Host) -> None:
    files = host.run("ChoreoLoadPoseDetector", detector=Value(TINY), pose_model=Value(TINY))[0]
    assert (files.detector, files.pose_model) == host.module("model_loaders.tiny").tiny_onnx()


def test_pictures_with_transparency_are_taken_too(host: Host) -> None:
    picture = images(frames(1))
    with_alpha = torch.cat([picture, torch.zeros_like(picture[..., :1])], dim=-1)
    plain, found = (
        host.run(EXTRACT, frames=Value(batch), detector=detector(host))[0] for batch in (picture, with_alpha)
    )
    assert np.array_equal(plain.points, found.points)


def test_pictures_are_cut_by_number_and_by_time(host: Host) -> None:
    clip = Value(images(frames(9)))
    cut, _, fps = host.run(
        EXTRACT, frames=clip, detector=detector(host), every_nth=2, max_frames=3, start=0.2, frame_rate=10.0
    )
    assert (len(cut), cut.fps, fps) == (3, 5.0, 5.0)
    whole = host.run(EXTRACT, frames=clip, detector=detector(host))[0]
    assert np.array_equal(cut.points, whole.points[[2, 4, 6]])


@pytest.mark.parametrize("source", ["path", "bytes"])
def test_a_video_is_read_frame_by_frame(host: Host, tmp_path: Path, monkeypatch, source: str) -> None:
    from comfy_api.latest import InputImpl

    pictures = frames(8)
    path = video_file(tmp_path / "clip.mkv", pictures)
    video = InputImpl.VideoFromFile(str(path) if source == "path" else io.BytesIO(path.read_bytes()))
    monkeypatch.setattr(type(video), "get_components", lambda self: pytest.fail("the whole video was decoded"))
    found = host.run(EXTRACT, frames=Value(video), detector=detector(host), every_nth=2)[0]
    assert (len(found), found.fps) == (4, 10.0)
    assert np.array_equal(found.points, poses(host, pictures[::2]).value.points)


def test_of_a_video_that_was_trimmed_only_that_part_is_used(host: Host, tmp_path: Path) -> None:
    from fractions import Fraction

    from comfy_api.latest import InputImpl, Types

    pictures = frames(8)

    class Trimmed(InputImpl.VideoFromFile):
        def get_duration(self) -> float:
            return 0.15

        def get_components(self) -> Types.VideoComponents:
            return Types.VideoComponents(images=images(pictures[2:5]), frame_rate=Fraction(20))

    video = Trimmed(str(video_file(tmp_path / "clip.mkv", pictures)))
    found = host.run(EXTRACT, frames=Value(video), detector=detector(host))[0]
    assert np.array_equal(found.points, poses(host, pictures[2:5]).value.points)


def test_a_video_made_of_pictures_keeps_its_rate(host: Host) -> None:
    from fractions import Fraction

    from comfy_api.latest import InputImpl, Types

    parts = Types.VideoComponents(images=images(frames(4)), frame_rate=Fraction(30000, 1001))
    found = host.run(EXTRACT, frames=Value(InputImpl.VideoFromComponents(parts)), detector=detector(host))[0]
    assert len(found) == 4
    assert found.fps == pytest.approx(29.97, abs=0.001)


def test_progress_reaches_the_end(host: Host) -> None:
    run = host.queue({"x": (EXTRACT, {"frames": Value(images(frames(4))), "detector": detector(host)})})
    done = [(value, total) for node, value, total, _ in run.progress if node == "x"]
    assert done[-1] == (4, 4)
    assert done == sorted(done)


def test_stop_is_obeyed_and_leaves_nothing_behind(host: Host) -> None:
    import onnxruntime

    prompt = {"x": (EXTRACT, {"frames": Value(images(frames(6))), "detector": detector(host)})}
    run = host.queue(prompt, interrupt_at=0)
    assert run.interrupted
    assert "x" not in run.outputs
    gc.collect()
    assert not any(isinstance(thing, onnxruntime.InferenceSession) for thing in gc.get_objects())
    assert len(host.queue(prompt).outputs["x"][0]) == 6


def test_a_second_run_is_cached(host: Host) -> None:
    prompt = {"x": (EXTRACT, {"frames": Value(images(frames(2))), "detector": detector(host)})}
    host.queue(prompt)
    assert "x" in host.queue(prompt).cached


def test_two_workflows_in_turn_do_not_disturb_each_other(host: Host) -> None:
    def workflow(figure, who: str) -> dict:
        clip = Value(images(frames(2, (figure,))))
        return {
            "x": (EXTRACT, {"frames": clip, "detector": detector(host)}),
            "pick": ("ChoreoPickPerson", {"poses": ("x", 0), "who": who}),
        }

    one, other = workflow(ONE, "largest"), workflow(OTHER, "all")
    first, between, again = (host.queue(prompt).outputs["pick"][0] for prompt in (one, other, one))
    assert np.array_equal(first.points, again.points)
    assert not np.array_equal(first.points, between.points)


def test_nobody_is_a_gap_or_the_whole_image(host: Host) -> None:
    clip, files = Value(images(frames(3, empty=[1]))), detector(host)
    skipped = host.run(EXTRACT, frames=clip, detector=files)[0]
    assert skipped.present[:, 0].tolist() == [True, False, True]
    whole = host.run(EXTRACT, frames=clip, detector=files, nobody="whole image")[0]
    assert whole.present.all()


@pytest.mark.parametrize(
    ("gaps", "at"), [("hold", 0.0), ("interpolate", 1.0)], ids=["hold stays", "interpolate moves on"]
)
def test_gaps_are_filled(host: Host, gaps: str, at: float) -> None:
    found = poses(host, frames(3, empty=[1]))
    filled = host.run("ChoreoFillGaps", poses=found, gaps=gaps)[0]
    assert filled.present.all()
    assert centre(filled, 1)[0] - centre(filled, 0)[0] == pytest.approx(at * STEP, abs=1.5)


def test_gaps_can_stop_the_job_with_their_frames(host: Host) -> None:
    run = host.queue({"x": ("ChoreoFillGaps", {"poses": poses(host, frames(3, empty=[1])), "gaps": "raise"})})
    assert "1" in run.error
    assert "\n" not in run.error


def test_a_person_is_picked(host: Host) -> None:
    both = poses(host, frames(2, (ONE, OTHER)))
    assert both.value.num_people == 2
    largest = host.run("ChoreoPickPerson", poses=both)[0]
    second = host.run("ChoreoPickPerson", poses=both, who="tracked", person=1)[0]
    everybody = host.run("ChoreoPickPerson", poses=both, who="all")[0]
    assert np.abs(largest.pixels()[0, 0, SHARED_JOINTS] - joints(ONE)).max() < 4
    assert (largest.num_people, second.num_people, everybody.num_people) == (1, 1, 2)
    run = host.queue({"x": ("ChoreoPickPerson", {"poses": both, "who": "tracked", "person": 5})})
    assert "no person number 5" in run.error


def test_faint_points_are_dropped(host: Host) -> None:
    found = poses(host, frames(1))
    least = float(np.quantile(found.value.scores, 0.5))
    kept = host.run("ChoreoPickPerson", poses=found, min_score=min(1.0, least))[0]
    assert 0 < (kept.scores > 0).sum() < (found.value.scores > 0).sum()


def test_jitter_is_smoothed(host: Host) -> None:
    shaken = [ONE.moved(3.0 * (i % 2)) for i in range(8)]
    found = poses(host, [frames(1, (figure,))[0] for figure in shaken])
    smooth = host.run("ChoreoSmoothPoses", poses=found, method="gaussian", sigma=2.0)[0]
    same = host.run("ChoreoSmoothPoses", poses=found, method="none")[0]

    def jitter(clip) -> float:
        return float(np.abs(np.diff(clip.pixels()[:, 0, SHARED_JOINTS, 0], axis=0)).mean())

    assert jitter(smooth) < 0.5 * jitter(found.value)
    assert np.array_equal(same.points, found.value.points)


@pytest.mark.parametrize("kind", ["picture", "poses", "keypoints"])
def test_poses_are_aligned_to_the_reference(host: Host, kind: str) -> None:
    small = ONE.moved(20.0, 12.0)
    target = type(ONE)(small.centre, 100)
    picture = frames(1, (target,))
    reference = {
        "picture": lambda: Value(images(picture)),
        "poses": lambda: poses(host, picture),
        "keypoints": lambda: Value(host.run("ChoreoPosesToKeypoints", poses=poses(host, picture))[0]),
    }[kind]()
    still = poses(host, [frames(1)[0]] * 2)
    inputs = {"detector": detector(host)} if kind == "picture" else {}
    aligned, own, note = host.run("ChoreoAlignPoses", poses=still, reference=reference, method="robust", **inputs)
    assert note == ""
    assert len(own) == 1
    assert np.abs(aligned.pixels()[0, 0, SHARED_JOINTS] - joints(target)).max() < 4


def test_a_reference_without_a_person_is_said(host: Host) -> None:
    reference = Value(images(frames(1, empty=[0])))
    clip = poses(host, frames(2))
    aligned, own, note = host.run("ChoreoAlignPoses", poses=clip, reference=reference, detector=detector(host))
    assert "No person was found in the reference picture" in note
    assert np.array_equal(own.points, aligned.points[:1])


BAD = {
    "no pictures": (
        EXTRACT,
        lambda host: {"frames": Value(torch.zeros(0, 8, 8, 3)), "detector": detector(host)},
        "empty",
    ),
    "masks": (EXTRACT, lambda host: {"frames": Value(torch.zeros(2, 8, 8)), "detector": detector(host)}, "x 3"),
    "start without a rate": (
        EXTRACT,
        lambda host: {"frames": Value(images(frames(2))), "detector": detector(host), "start": 1.0},
        "set frame_rate",
    ),
    "start behind the end": (
        EXTRACT,
        lambda host: {
            "frames": Value(images(frames(2))),
            "detector": detector(host),
            "start": 9.0,
            "frame_rate": 10.0,
        },
        "only 0.20 s long",
    ),
    "poses of another kind": ("ChoreoFillGaps", lambda host: {"poses": Value(3)}, "POSE_KEYPOINT"),
    "animals": (
        "ChoreoFillGaps",
        lambda host: {"poses": Value([{"animals": [], "canvas_width": 8, "canvas_height": 8}])},
        "animals",
    ),
    "a picture without detector": (
        "ChoreoAlignPoses",
        lambda host: {"poses": poses(host, frames(1)), "reference": Value(images(frames(1)))},
        "connect Load Pose Detector",
    ),
    "nobody at all": ("ChoreoFillGaps", lambda host: {"poses": poses(host, frames(2, empty=[0, 1]))}, "No person"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_clear_sentence(host: Host, case: str) -> None:
    node, inputs, said = BAD[case]
    run = host.queue({"x": (node, inputs(host))})
    assert said.lower() in run.error.lower()
    assert "\n" not in run.error


def test_a_broken_network_is_named(host: Host) -> None:
    folder = host.folder / "models" / "dwpose"
    folder.mkdir(exist_ok=True)
    broken = folder / "broken.onnx"
    broken.write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    files = Value(host.run("ChoreoLoadPoseDetector", detector="broken.onnx", pose_model=TINY)[0])
    run = host.queue({"x": (EXTRACT, {"frames": Value(images(frames(1))), "detector": files})})
    broken.unlink()
    assert "broken.onnx is a Git-LFS pointer" in run.error
    gone = {"x": ("ChoreoLoadPoseDetector", {"detector": "broken.onnx"})}
    assert "broken.onnx was not found" in host.queue(gone).error
