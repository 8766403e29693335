from __future__ import annotations

import json

import numpy as np
import pytest
from choreo.pose.openpose_json import from_openpose, load_json, save_json, to_openpose
from choreo.pose.poses import BODY, FACE, FEET, LEFT_HAND, NUM_POINTS, Poses

from .pose_clips import SIZE, clip


def random_poses(seed: int = 0) -> Poses:
    random = np.random.default_rng(seed)
    scores = random.uniform(-0.1, 1.3, (5, 3, NUM_POINTS))
    scores[random.random(scores.shape) < 0.2] = 0
    present = random.random((5, 3)) < 0.6
    present[0], present[1] = True, False
    points = random.uniform(-0.2, 1.2, (5, 3, NUM_POINTS, 2))
    return Poses(points, scores, present, (1080, 607), 29.97)


def plain_person(points: np.ndarray, confidence: float = 1.0) -> list[float]:
    return np.column_stack([points, np.full(len(points), confidence)]).ravel().tolist()


def frame(**person) -> dict:
    return {"people": [person], "canvas_height": SIZE[0], "canvas_width": SIZE[1]}


BODY_18 = np.random.default_rng(1).uniform(20, 180, (18, 2))


def test_scored_json_comes_back_without_loss(tmp_path):
    poses = random_poses()
    save_json(tmp_path / "deep" / "clip.json", poses)
    back = load_json(tmp_path / "deep" / "clip.json")
    there = poses.present
    np.testing.assert_array_equal(back.present, there)
    np.testing.assert_array_equal(back.scores[there], poses.scores[there])
    np.testing.assert_allclose(back.points[there], poses.points[there], rtol=1e-15, atol=0)
    assert (back.size, back.fps) == (poses.size, poses.fps)
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["clip.json"]


def test_openpose_flavour_forgets_scores_but_not_what_is_missing():
    poses = random_poses(1)
    back = from_openpose(to_openpose(poses, "openpose"))
    first = poses.scores[0] >= 0.3
    first[:, FEET] = False
    np.testing.assert_array_equal(back.scores[0], first)
    np.testing.assert_allclose(back.points[0][first], poses.points[0][first], rtol=1e-14)
    assert back.fps is None


def test_switched_off_parts_are_null():
    (shown,) = to_openpose(random_poses()[0], "scored", body=False, face=False)
    person = shown["people"][0]
    assert person["face_keypoints_2d"] is None and person["foot_keypoints_2d"] is None
    assert person["pose_keypoints_2d"] == [0.0] * 54
    assert len(person["hand_left_keypoints_2d"]) == 63


def test_a_clip_in_which_nobody_was_found_keeps_its_frames(tmp_path):
    save_json(tmp_path / "empty.json", clip([[], [], []]))
    back = load_json(tmp_path / "empty.json")
    assert len(back) == 3 and not back.present.any() and back.size == SIZE


def test_confidences_are_kept_and_missing_points_are_not_found():
    values = plain_person(BODY_18, 0.4)
    values[3:6] = [0.0, 0.0, 0.0]
    values[8] = 1.7
    poses = from_openpose([frame(pose_keypoints_2d=values, face_keypoints_2d=None, hand_left_keypoints_2d=[])])
    assert poses.scores[0, 0, :4].tolist() == [0.4, 0.0, 1.7, 0.4]
    assert not poses.scores[0, 0, 18:].any()
    np.testing.assert_allclose(poses.pixels()[0, 0, 2:18], BODY_18[2:])


def test_shares_of_the_canvas_are_recognised_over_the_whole_clip():
    shares = BODY_18 / (SIZE[1], SIZE[0])
    poses = from_openpose(
        [frame(pose_keypoints_2d=plain_person(shares)), frame(pose_keypoints_2d=plain_person(shares + 0.5))]
    )
    np.testing.assert_allclose(poses.points[0, 0, BODY], shares)
    np.testing.assert_allclose(poses.points[1, 0, BODY], shares + 0.5)  # beyond 1: the figure leaves the picture


def test_body_25_brings_feet_and_faces_may_have_68_or_70_points():
    body = np.arange(50.0).reshape(25, 2) + 10
    face = np.arange(140.0).reshape(70, 2) + 10
    for count in (68, 70):
        poses = from_openpose(
            [frame(pose_keypoints_2d=plain_person(body), face_keypoints_2d=plain_person(face[:count]))]
        )
        pixels = poses.pixels()[0, 0]
        np.testing.assert_allclose(pixels[BODY], np.delete(body[:19], 8, axis=0))
        np.testing.assert_allclose(pixels[FEET], body[19:])
        np.testing.assert_allclose(pixels[FACE], face[:68])
        assert not poses.scores[0, 0, LEFT_HAND].any()


def test_a_folder_is_read_in_natural_order(tmp_path):
    for number in (10, 9, 1):
        (tmp_path / f"frame_{number}.json").write_text(
            json.dumps(frame(pose_keypoints_2d=plain_person(BODY_18 + number)))
        )
    poses = load_json(tmp_path, fps=12)
    np.testing.assert_allclose(poses.pixels()[:, 0, 0, 0] - BODY_18[0, 0], [1, 9, 10])
    assert poses.fps == 12


def test_size_of_frames_that_do_not_tell_must_be_given(tmp_path):
    bare = {"version": 1.3, "people": [{"person_id": [-1], "pose_keypoints_2d": plain_person(BODY_18)}]}
    (tmp_path / "a_keypoints.json").write_text(json.dumps(bare))
    with pytest.raises(ValueError, match=r"a_keypoints.json.*canvas_height"):
        load_json(tmp_path)
    assert load_json(tmp_path, size=SIZE).size == SIZE


def test_frames_of_another_shape_are_refused_and_other_resolutions_of_it_are_not():
    first = frame(pose_keypoints_2d=plain_person(BODY_18))
    double = frame(pose_keypoints_2d=plain_person(BODY_18 * 2)) | {"canvas_height": 400, "canvas_width": 800}
    poses = from_openpose([first, double])
    np.testing.assert_allclose(poses.points[0], poses.points[1])
    with pytest.raises(ValueError, match="frame 1 has a canvas of 400 x 400"):
        from_openpose([first, double | {"canvas_width": 400}])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("not json", r"wrong\.json is not JSON"),
        ("[]", r"wrong\.json holds no frames"),
        ('{"a": 1}', r'wrong\.json.* no list "people"'),
        ("[[1, 2]]", r"wrong\.json, frame 0 .* got a list"),
        ('{"version": "ap10k", "animals": [[1, 2, 1]]}', r"wrong\.json.*AP10K"),
        (json.dumps(frame(pose_keypoints_2d=[1.0] * 51)), r"wrong\.json.*51 numbers.*18 or 25 points"),
        (json.dumps(frame(pose_keypoints_2d=["a"] * 54)), r"wrong\.json.*pose_keypoints_2d.*list of numbers"),
        (json.dumps(frame(pose_keypoints_2d=5)), r"wrong\.json.*1 numbers"),
        ('{"people": [3], "canvas_height": 5, "canvas_width": 5}', r"person 0.*got 3"),
    ],
)
def test_a_wrong_file_is_named_in_one_sentence(tmp_path, content, message):
    path = tmp_path / "wrong.json"
    path.write_text(content)
    with pytest.raises(ValueError, match=message) as error:
        load_json(path)
    assert "\n" not in str(error.value)


def test_missing_file_binary_file_and_folder_without_poses(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere\.json"):
        load_json(tmp_path / "nowhere.json")
    with pytest.raises(ValueError, match="no OpenPose JSON"):
        load_json(tmp_path)
    (tmp_path / "binary.json").write_bytes(bytes(range(200, 256)))
    with pytest.raises(ValueError, match=r"binary\.json is not JSON"):
        load_json(tmp_path / "binary.json")


def test_nothing_half_written_stays_behind(tmp_path, monkeypatch):
    save_json(tmp_path / "clip.json", clip([[(100, 100, 80)]]))
    before = (tmp_path / "clip.json").read_bytes()
    monkeypatch.setattr("choreo.pose.openpose_json.json.dumps", lambda *a, **k: (_ for _ in ()).throw(OSError("full")))
    with pytest.raises(OSError, match="full"):
        save_json(tmp_path / "clip.json", random_poses())
    assert [p.name for p in tmp_path.iterdir()] == ["clip.json"]
    assert (tmp_path / "clip.json").read_bytes() == before
