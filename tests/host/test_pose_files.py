"""Poses in files and the keypoints of other packs, through the host's executor; model folders."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from .clips import ONE, OTHER, SIZE, TINY, frames, images, poses
from .harness import Host, Value


def same(one, other) -> bool:
    return bool(
        np.allclose(one.points, other.points, rtol=0, atol=1e-12)
        and np.array_equal(one.scores, other.scores)
        and np.array_equal(one.present, other.present)
        and one.size == other.size
    )


def test_saved_poses_are_listed_and_come_back(host: Host) -> None:
    found = poses(host, frames(3, (ONE, OTHER)))
    (path,) = host.run("ChoreoSavePoses", poses=found, filename_prefix="poses/dance")
    assert Path(path).parent == host.folder / "output" / "poses"
    host.fresh()
    assert host.run("ChoreoSavePoses", poses=found, filename_prefix="poses/dance")[0] != path
    name = f"poses/{Path(path).name} [output]"
    assert name in host.node("ChoreoLoadPoses").define_schema().inputs[0].options
    loaded, fps = host.run("ChoreoLoadPoses", file=name, frame_rate=12.0)
    assert same(loaded, found.value)
    assert (loaded.fps, fps) == (12.0, 12.0)


def test_poses_are_saved_as_other_programs_write_them(host: Host) -> None:
    found = poses(host, frames(2))
    (keypoints,) = host.run("ChoreoPosesToKeypoints", poses=found, flavour="openpose")
    (path,) = host.run("ChoreoSavePoses", poses=found, filename_prefix="poses/plain", flavour="openpose")
    assert json.loads(Path(path).read_text()) == keypoints


def test_a_folder_of_frames_is_read_in_order(host: Host) -> None:
    found = poses(host, frames(11))
    keypoints = host.run("ChoreoPosesToKeypoints", poses=found, flavour="scored")[0]
    folder = host.folder / "input" / "take 1"
    folder.mkdir()
    for index, frame in enumerate(keypoints):
        (folder / f"frame_{index}.json").write_text(json.dumps(frame))
    assert same(host.run("ChoreoLoadPoses", file="take 1/")[0], found.value)


def test_a_changed_file_is_read_again(host: Host) -> None:
    path = host.folder / "input" / "changing.json"
    prompt = {"x": ("ChoreoLoadPoses", {"file": "changing.json"})}
    for count in (2, 3):
        keypoints = host.run("ChoreoPosesToKeypoints", poses=poses(host, frames(count)))[0]
        path.write_text(json.dumps(keypoints))
        assert len(host.queue(prompt).outputs["x"][0]) == count
    assert "x" in host.queue(prompt).cached
    path.unlink()
    assert "no poses called changing.json" in host.queue(prompt).error


@pytest.mark.parametrize("name", ["../secret.json", "/etc/passwd", "../secret.json [output]"])
def test_no_name_leads_out_of_the_folders(host: Host, name: str) -> None:
    (host.folder / "secret.json").write_text("[]")
    assert "no poses called" in host.queue({"x": ("ChoreoLoadPoses", {"file": name})}).error


def test_a_prefix_does_not_lead_out_of_the_output_folder(host: Host) -> None:
    run = host.queue({"x": ("ChoreoSavePoses", {"poses": poses(host, frames(1)), "filename_prefix": "../../x"})})
    assert run.error
    assert not list(host.folder.glob("x*"))


def test_keypoints_are_what_controlnet_aux_writes(host: Host) -> None:
    found = poses(host, frames(2))
    (keypoints,) = host.run("ChoreoPosesToKeypoints", poses=found)
    assert isinstance(keypoints, list)
    assert {frame["canvas_width"] for frame in keypoints} == {SIZE[1]}
    person = keypoints[0]["people"][0]
    assert len(person["pose_keypoints_2d"]) == 54
    assert set(person["pose_keypoints_2d"][2::3]) <= {0.0, 1.0}
    json.dumps(keypoints)


def test_every_pose_node_takes_keypoints(host: Host) -> None:
    found = poses(host, frames(2))
    keypoints = Value(host.run("ChoreoPosesToKeypoints", poses=found, flavour="scored")[0])
    for node_id in ("ChoreoPickPerson", "ChoreoFillGaps", "ChoreoSmoothPoses"):
        assert same(host.run(node_id, poses=keypoints)[0], host.run(node_id, poses=found)[0]), node_id
    drawn = [host.run("ChoreoDrawPoses", poses=value)[0] for value in (keypoints, found)]
    assert (drawn[0] - drawn[1]).abs().max() < 1e-6
    pictures = Value(images(frames(2)))
    overlaid = [host.run("ChoreoPoseOverlay", poses=value, frames=pictures)[0] for value in (keypoints, found)]
    assert (overlaid[0] - overlaid[1]).abs().max() < 1e-6
    host.run("ChoreoSavePoses", poses=keypoints)


def test_sockets_of_both_kinds_connect(host: Host) -> None:
    found = poses(host, frames(1))
    run = host.queue(
        {
            "out": ("ChoreoPosesToKeypoints", {"poses": found}),
            "back": ("ChoreoKeypointsToPoses", {"keypoints": ("out", 0), "frame_rate": 24.0}),
            "draw": ("ChoreoDrawPoses", {"poses": ("out", 0)}),
            "fill": ("ChoreoFillGaps", {"poses": ("back", 0)}),
        }
    )
    assert run.error is None
    assert run.outputs["back"][0].fps == 24.0


def test_keypoints_without_a_size_ask_for_one(host: Host) -> None:
    keypoints = host.run("ChoreoPosesToKeypoints", poses=poses(host, frames(1)))[0]
    bare = Value([{"people": frame["people"]} for frame in keypoints])
    assert "canvas_height" in host.queue({"x": ("ChoreoKeypointsToPoses", {"keypoints": bare})}).error
    size = {"width": SIZE[1], "height": SIZE[0]}
    assert host.run("ChoreoKeypointsToPoses", keypoints=bare, **size)[0].size == SIZE
    assert "give both" in host.queue({"x": ("ChoreoKeypointsToPoses", {"keypoints": bare, "width": 8})}).error


def test_a_network_that_is_not_there_says_where_it_can_be_had(host: Host) -> None:
    run = host.queue({"x": ("ChoreoLoadPoseDetector", {"detector": "yolox_l.onnx"})})
    assert run.error_type == "validation"
    assert str(host.folder / "models" / "dwpose") in run.error
    assert "huggingface.co/yzd-v/DWPose" in run.error


def test_networks_of_the_user_are_found_and_preferred(host: Host) -> None:
    folder = host.folder / "models" / "dwpose" / "onnx"
    folder.mkdir(parents=True, exist_ok=True)
    names = ("yolox_l.onnx", "dw-ll_ucoco_384.onnx", "readme.txt")
    for name in names:
        (folder / name).write_bytes(b"")
    try:
        found = host.defaults("ChoreoLoadPoseDetector")
        options = host.node("ChoreoLoadPoseDetector").define_schema().inputs[0].options
        assert Path(found["detector"]) == Path("onnx/yolox_l.onnx")
        assert Path(found["pose_model"]) == Path("onnx/dw-ll_ucoco_384.onnx")
        assert TINY in options
        assert not any("readme" in name for name in options)
    finally:
        for name in names:
            (folder / name).unlink()


def test_folders_of_the_user_stay_first(host: Host, tmp_path: Path, monkeypatch) -> None:
    import folder_paths

    shared = {".pth"}
    known = dict(folder_paths.folder_names_and_paths)
    known["mimicmotion"] = ([str(tmp_path)], shared)
    known.pop("dwpose")
    monkeypatch.setattr(folder_paths, "folder_names_and_paths", known)
    for _ in range(2):  # as when two copies of the pack are installed
        host.module("host.folders").register()
    paths, suffixes = known["mimicmotion"]
    assert paths == [str(tmp_path), str(host.folder / "models" / "mimicmotion")]
    assert ".safetensors" in suffixes
    assert shared == {".pth"}
    assert known["dwpose"][0] == [str(host.folder / "models" / "dwpose")]
