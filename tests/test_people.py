from __future__ import annotations

import numpy as np
import pytest
from choreo.pose.people import choose_people, find_breaks, person_boxes, track_people
from choreo.pose.poses import Poses

from .pose_clips import SIZE, centres, clip, figure


def walk(
    start: float, step: float, frames: int, y: float = 100, height: float = 80
) -> list[tuple[float, float, float]]:
    return [(start + step * f, y, height) for f in range(frames)]


def shuffled(people: list[list[tuple | None]], seed: int = 0) -> Poses:
    """People found in another order in every frame."""
    random = np.random.default_rng(seed)
    return clip([[frame[i] for i in random.permutation(len(frame))] for frame in zip(*people, strict=True)])


def expected(people: list[tuple | None]) -> np.ndarray:
    return centres(clip([[person] if person else [] for person in people]))


def test_tracks_follow_people_whatever_order_they_are_found_in():
    left, right = walk(80, 2, 30), walk(320, -1, 30)
    poses = track_people(shuffled([left, right]))
    assert poses.num_people == 2 and poses.present.all()
    tracks = sorted((centres(poses, slot) for slot in range(2)), key=lambda track: track[0, 0])
    np.testing.assert_allclose(tracks[0], expected(left))
    np.testing.assert_allclose(tracks[1], expected(right))


def test_people_who_pass_each_other_keep_their_tracks():
    poses = track_people(shuffled([walk(100, 4, 50), walk(300, -4, 50, y=108)]))
    assert poses.num_people == 2
    for slot in range(2):
        assert np.ptp(np.diff(centres(poses, slot), axis=0), axis=0).max() < 1e-9


def test_people_who_pass_through_each_other_keep_their_direction():
    poses = track_people(shuffled([walk(100, 8, 25), walk(304, -8, 25)]))
    steps = np.stack([np.diff(centres(poses, slot)[:, 0]) for slot in range(2)])
    np.testing.assert_allclose(np.sort(steps[:, 0]), [-8, 8])
    np.testing.assert_allclose(steps, np.repeat(steps[:, :1], steps.shape[1], axis=1))


def test_people_in_the_same_place_are_told_apart_by_their_pose():
    one = figure(200, 100, 80)
    other = one[::-1]  # the same places, taken by other points: the boxes agree
    frames = [np.stack([one, other] if f % 3 else [other, one]) for f in range(12)]
    poses = track_people(Poses.from_frames([(points, np.ones((2, 134))) for points in frames], SIZE))
    assert not np.ptp(poses.points, axis=0).any()


def test_somebody_hidden_behind_another_for_some_frames_is_the_same_afterwards():
    back = walk(100, 4, 50)
    hidden = [None if 22 <= f < 28 else person for f, person in enumerate(back)]
    poses = track_people(shuffled([walk(300, -4, 50, y=108), hidden], seed=3))
    assert poses.num_people == 2
    slot = int(np.argmin(poses.present.sum(axis=0)))
    np.testing.assert_allclose(centres(poses, slot), expected(hidden))


def test_nobody_found_is_lost_and_inputs_stay():
    poses = shuffled([walk(80, 2, 10), walk(320, -1, 10), [None] * 5 + walk(200, 0, 5)])
    before = poses.points.copy()
    assert track_people(poses).present.sum() == poses.present.sum()
    np.testing.assert_array_equal(poses.points, before)


def test_no_track_crosses_a_cut():
    poses = clip([[(80, 100, 80)]] * 5 + [[(320, 100, 80)]] * 5)
    assert track_people(poses).present.tolist() == [[True, False]] * 5 + [[False, True]] * 5
    breaks = find_breaks(poses)[:, 0]
    assert np.flatnonzero(breaks).tolist() == [0, 5]


def test_the_largest_over_the_clip_is_chosen_and_never_flips():
    near = [(120, 100, 100 + 8 * np.sin(f)) for f in range(40)]
    far = [(300, 100, 92 + (30 if f in (7, 20) else 0)) for f in range(40)]  # larger now and then
    chosen = choose_people(shuffled([near, far]), "largest")
    assert chosen.num_people == 1
    np.testing.assert_allclose(centres(chosen), expected(near))


def test_a_person_missing_in_some_frames_leaves_gaps_rather_than_the_seat_to_another():
    near = [None if f in (4, 5, 12) else (120.0, 100.0, 100.0) for f in range(20)]
    chosen = choose_people(shuffled([near, walk(300, 0, 20)]), "largest")
    np.testing.assert_allclose(centres(chosen), expected(near))


def test_a_faint_find_as_large_as_the_picture_is_not_the_largest_person():
    points = np.stack([figure(200, 100, 195), figure(120, 100, 120)])
    scores = np.array([[0.05] * 134, [0.9] * 134])
    chosen = choose_people(Poses.from_frames([(points, scores)] * 4, SIZE), "largest")
    np.testing.assert_array_equal(chosen.points[:, 0], np.repeat(points[1:], 4, axis=0))


def test_centre_index_and_tracked():
    middle, side = walk(200, 0, 10, height=50), walk(320, 0, 10, height=120)
    poses = shuffled([side, middle])
    np.testing.assert_allclose(centres(choose_people(poses, "centre")), expected(middle))
    np.testing.assert_allclose(centres(choose_people(poses, "largest")), expected(side))
    sure = Poses.from_frames(
        [(np.stack([figure(*side[0]), figure(*middle[0])]), np.array([[0.5] * 134, [0.9] * 134]))] * 3, poses.size
    )
    np.testing.assert_allclose(centres(choose_people(sure, "index", 0)), expected(middle[:3]))
    np.testing.assert_allclose(centres(choose_people(sure, "index", 1)), expected(side[:3]))
    np.testing.assert_allclose(centres(choose_people(sure, "tracked", 0)), expected(side[:3]))


def test_after_a_cut_somebody_is_chosen_anew_but_not_with_tracked():
    poses = clip([[(60, 100, 90), (160, 100, 60)]] * 5 + [[(260, 100, 60), (350, 100, 90)]] * 5)
    chosen = choose_people(poses, "largest")
    np.testing.assert_allclose(centres(chosen), expected([(60, 100, 90)] * 5 + [(350, 100, 90)] * 5))
    assert choose_people(poses, "tracked", 0).present[:, 0].tolist() == [True] * 5 + [False] * 5


def test_a_person_who_leaves_and_comes_back_elsewhere_is_taken_up_again():
    dancer = [*walk(60, -2, 10), *[None] * 5, *walk(340, 2, 10)]
    other = walk(200, 0, 25, height=40)
    chosen = choose_people(shuffled([dancer, other]), "largest")
    np.testing.assert_allclose(centres(chosen), expected(dancer))


def test_all_keeps_everybody():
    poses = shuffled([walk(80, 2, 10), walk(320, -1, 10)])
    assert choose_people(poses, "all").present.all()
    single = clip([[(80, 100, 80)]] * 3)
    assert choose_people(single, "all") is single


def test_a_number_that_nobody_has_is_explained():
    poses = shuffled([walk(80, 2, 10), walk(320, -1, 10)])
    with pytest.raises(ValueError, match=r"no person number 2 .*2 people were found.*choose 0 to 1"):
        choose_people(poses, "tracked", 2)
    with pytest.raises(ValueError, match=r"no person number -1"):
        choose_people(poses, "index", -1)
    with pytest.raises(ValueError, match=r"number 1 .*only 1 person was found.*choose 0\."):
        choose_people(poses.person(0), "index", 1)
    with pytest.raises(ValueError, match=r"nobody was found"):
        choose_people(clip([[], []]), "tracked", 1)
    with pytest.raises(ValueError, match=r"'biggest'.*largest"):
        choose_people(poses, "biggest")


def test_clips_without_people_or_frames_pass():
    for poses in (clip([[], []]), clip([])):
        for choice in ("largest", "centre", "index", "all"):
            assert len(choose_people(poses, choice)) == len(poses)
        assert len(track_people(poses)) == len(poses)


def test_boxes_are_around_visible_points():
    poses = clip([[(100, 100, 80)], []])
    pixels, box = poses.pixels()[0, 0], person_boxes(poses)[0, 0]
    np.testing.assert_allclose(box[2:] - box[:2], np.ptp(pixels, axis=0) * 1.25)
    scores = np.array(poses.scores)
    scores[0, 0, pixels[:, 1] > 100] = 0.1
    assert person_boxes(poses.with_points(poses.points, scores))[0, 0, 3] < box[3]
    assert np.isnan(person_boxes(poses)[1]).all()
