"""Clips out of data sets: our own layout, those of the published trainers, and which one a folder has."""

from __future__ import annotations

import hashlib
import inspect
import json
import os
import subprocess
import sys
import warnings
from collections import Counter
from dataclasses import fields
from fractions import Fraction
from itertools import accumulate
from pathlib import Path

import numpy as np
import pytest
from choreo import cli
from choreo.conditioning.picture import cover_crop
from choreo.datasets.clips import Clip
from choreo.datasets.folder import FolderClips
from choreo.datasets.framing import Framing
from choreo.datasets.manifest import Manifest, VideoEntry, save_poses
from choreo.datasets.open import has_held_out, open_dataset
from choreo.datasets.published import PictureFolders, TikTok, VideoPairs
from choreo.datasets.reading import Reading, frames_at
from choreo.datasets.sampling import clip_positions, random_clip, random_reference, split_runs
from choreo.media.numbered import count_frames, numbered_frames
from choreo.media.pictures import picture_size, save_picture
from choreo.media.video import probe, read_frames
from choreo.pose.draw import Renderer
from choreo.pose.poses import FACE, LEFT_HAND, RIGHT_HAND, Poses

from .make_media import flat, grey_level, make_video, marks

ROOT = Path(__file__).resolve().parents[1]
SIZE = (64, 48)  # height, width of clips
FIGURE = np.random.default_rng(3).uniform(0.2, 0.8, (134, 2))


def walk(num_frames: int, size=(48, 64), fps=30.0, score=0.9) -> Poses:
    """Somebody who moves to the right by a hundredth of the picture a frame."""
    frames = [(np.add(FIGURE, (0.01 * (index % 12), 0))[None], np.full((1, 134), score)) for index in range(num_frames)]
    return Poses.from_frames(frames, size, fps)


def entry(folder: Path, *, name="a.mp4", num_frames=60, kept=None, shots=(), fps=30, picture=flat) -> VideoEntry:
    path = make_video(folder / "videos" / name, num_frames=num_frames, fps=fps, picture=picture)
    size = picture(0).shape[:2]
    save_poses(folder / "poses" / f"{name}.safetensors", walk(num_frames, size, fps), {})
    kept = ((0, num_frames),) if kept is None else kept
    place = (f"poses/{name}.safetensors", path.stat().st_size, path.stat().st_mtime_ns)
    return VideoEntry(name, size, float(fps), num_frames, kept, shots, *place)


def built(folder: Path, *entries: dict) -> Path:
    """A data set as `choreo dataset build --copy` leaves it."""
    (folder / "videos").mkdir(parents=True)
    Manifest("videos", {}, [entry(folder, **options) for options in entries or [{}]]).save(folder)
    return folder


def fingerprint(clip: Clip) -> str:
    arrays = [clip.reference, clip.frames, clip.pose_pictures, clip.reference_pose, clip.poses and clip.poses.points]
    digest = hashlib.sha256(f"{clip.name} {clip.fps}".encode())
    for array in arrays:
        digest.update(b"none" if array is None else np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def check_clip(clip: Clip, num_frames: int, size=SIZE) -> None:
    assert clip.reference.shape == (*size, 3) and clip.reference.dtype == np.uint8
    for pictures in (clip.frames, clip.pose_pictures):
        assert pictures.shape == (num_frames, *size, 3) and pictures.dtype == np.uint8
    assert clip.poses is None or (clip.poses.size == size and len(clip.poses) == num_frames)


def test_the_published_sampling():
    assert clip_positions(100, 16, 3, 7) == list(range(7, 53, 3))
    assert clip_positions(20, 16, 3, 0) == [0, 1, 2, 3, 5, 6, 7, 8, 10, 11, 12, 13, 15, 16, 17, 19]
    assert clip_positions(10, 16, 3, 0) == [0, 0, 1, 1, 2, 3, 3, 4, 4, 5, 6, 6, 7, 7, 8, 9]
    assert clip_positions(1, 3, 3, 0) == [0, 0, 0] and clip_positions(5, 1, 3, 4) == [4]


def test_every_start_of_every_long_run_is_equally_likely():
    runs = [np.arange(0, 7), np.arange(10, 20), np.arange(30, 33)]
    drawn = Counter(tuple(random_clip(runs, 3, 3, np.random.default_rng(seed))) for seed in range(700))
    starts = {clip[0] for clip in drawn}
    assert starts == {0, 10, 11, 12, 13} and all(np.diff(clip).tolist() == [3, 3] for clip in drawn)
    assert all(90 < count < 190 for count in drawn.values())
    assert random_clip(runs, 8, 3, np.random.default_rng(0)).tolist() == [10, 11, 12, 13, 15, 16, 17, 19]


def test_the_reference_is_away_from_the_clip_where_possible():
    clip = np.array([40, 43, 46])

    def drawn(shot, away):
        return {random_reference(np.arange(*shot), clip, away, np.random.default_rng(seed)) for seed in range(300)}

    assert drawn((0, 60), 10) == {*range(30), *range(57, 60)}
    assert drawn((35, 50), 10) == {*range(35, 40), *range(47, 50)}
    assert drawn((40, 47), 10) == {41, 42, 44, 45}
    one = np.array([5])
    assert random_reference(one, one, 3, np.random.default_rng(0)) == 5


def test_runs_end_at_gaps_and_cuts():
    kept = np.array([0, 1, 2, 6, 7, 12, 13, 14])
    assert [run.tolist() for run in split_runs(kept, np.array([7]))] == [[0, 1, 2, 6], [7], [12, 13, 14]]
    assert [len(run) for run in split_runs(kept, np.array([], int), bridge=4)] == [8]


@pytest.mark.parametrize(("height", "width"), [(90, 160), (160, 90), (64, 48), (31, 200)])
def test_framing_covers_the_target_and_moves_the_points_along(height, width):
    framing = Framing.of((height, width), SIZE)
    left, top, right, bottom = framing.box
    shown = (right - left) * width, (bottom - top) * height
    assert np.isclose(shown[0] / shown[1], SIZE[1] / SIZE[0]) and (left == 0 or top == 0)
    assert np.isclose(left + right, 1) and np.isclose(top + bottom, 1)
    picture = np.zeros((height, width, 3), dtype=np.uint8)
    y, x = height // 2 - 5, width // 2 + 4
    picture[y : y + 4, x : x + 4] = 255
    rows, columns = np.nonzero(framing.picture(picture)[..., 0] > 100)
    points = np.full((1, 1, 134, 2), ((x + 2) / width, (y + 2) / height))
    poses = framing.poses(Poses(points, np.ones((1, 1, 134)), np.ones((1, 1)), (height, width)))
    expected = poses.pixels()[0, 0, 0] - 0.5
    assert np.allclose((columns.mean(), rows.mean()), expected, atol=0.6) and poses.size == SIZE


def test_framing_cuts_what_the_reference_of_a_job_is_cut():
    gradient = (np.add.outer(np.arange(200), np.arange(150)) // 2).astype(np.uint8)[..., None].repeat(3, -1)
    assert (
        np.abs(
            Framing.of((200, 150), (100, 100)).picture(gradient).astype(int) - cover_crop(gradient, (100, 100))
        ).max()
        <= 2
    )
    stretched = Framing.of((200, 150), (100, 100), "stretch")
    assert stretched.box == (0, 0, 1, 1)
    with pytest.raises(ValueError, match="cover, stretch"):
        Framing.of((200, 150), (100, 100), "squash")


def test_a_built_set_gives_frames_that_fit_their_poses(tmp_path):
    source = open_dataset(built(tmp_path / "set", {"num_frames": 60}), rate=2)
    assert isinstance(source, FolderClips) and len(source) == 1
    clip = source.clip(0, 5, SIZE, seed=3)
    check_clip(clip, 5)
    first = int(clip.name.rpartition(" ")[2])
    numbers = np.arange(first, first + 10, 2)
    assert marks(clip.frames) == (numbers % 12).tolist() and clip.fps == 15
    moved = clip.poses.points[:, 0, 0, 0] - clip.poses.points[0, 0, 0, 0]
    crop = (64 / 48) / (SIZE[1] / SIZE[0])
    assert np.allclose(moved, 0.01 * crop * (numbers % 12 - first % 12), atol=1e-6)
    drawn = Renderer("mimicmotion", SIZE).draw(*clip.poses.frame(2))
    assert np.array_equal(clip.pose_pictures[2], drawn) and clip.reference_pose.shape == clip.reference.shape
    assert {marks([source.clip(0, 5, SIZE, seed).reference])[0] for seed in range(6)} != {0}


def test_clips_stay_in_kept_frames_of_one_shot(tmp_path):
    folder = built(tmp_path / "set", {"num_frames": 48, "kept": ((0, 10), (11, 16), (24, 44)), "shots": (34,)})
    source = open_dataset(folder, rate=1)
    firsts = set()
    for seed in range(25):
        clip = source.clip(0, 8, (16, 16), seed)
        first = int(clip.name.rpartition(" ")[2])
        firsts.add(first)
        expected = [n for n in range(first, 48) if n != 10][:8]
        assert marks(clip.frames) == [n % 12 for n in expected]
        assert not {*range(16, 24), *range(44, 48)} & set(expected) and not (33 in expected and 34 in expected)
        shot = range(34, 44) if first >= 34 else [n for n in range(34) if n < 16 or n >= 24]
        assert marks([clip.reference])[0] in {n % 12 for n in shot}
    assert min(firsts) < 10 and max(firsts) >= 34


def test_short_videos_repeat_frames_or_are_left_out(tmp_path):
    folder = built(tmp_path / "set", {"num_frames": 4}, {"name": "b.mp4", "num_frames": 20})
    source = open_dataset(folder)
    clip = source.clip(0, 8, (16, 16))
    assert marks(clip.frames) == [0, 0, 0, 1, 1, 2, 2, 3] and clip.fps == pytest.approx(30 * 7 / 3)
    longer = open_dataset(folder, min_frames=8)
    assert len(longer) == 1 and longer.clip(0, 8, (16, 16)).name.startswith("b.mp4")
    with pytest.raises(ValueError, match="no video with 21 frames"):
        open_dataset(folder, min_frames=21)


def test_the_rate_follows_the_wanted_frames_per_second(tmp_path):
    source = open_dataset(built(tmp_path / "set", {"fps": 60}, {"name": "b.mp4", "fps": 24}), fps=12)
    assert [source.clip(index, 4, (16, 16)).fps for index in range(2)] == [12, 12]


def test_the_same_arguments_give_the_same_clip_in_every_process(tmp_path):
    folder = built(tmp_path / "set", {}, {"name": "b.mp4"})
    source = open_dataset(folder)
    here = [fingerprint(source.clip(index, 4, SIZE, seed)) for index in range(2) for seed in range(2)]
    assert len(set(here)) == 4
    assert here == [
        fingerprint(open_dataset(folder).clip(index, 4, SIZE, seed)) for index in range(2) for seed in range(2)
    ]
    code = (
        "import hashlib, numpy as np\nfrom choreo.datasets.open import has_held_out, open_dataset\nClip = None\n"
        f"{inspect.getsource(fingerprint)}\nsource = open_dataset({str(folder)!r})\n"
        f"print(*[fingerprint(source.clip(index, 4, {SIZE}, seed)) for index in range(2) for seed in range(2)])"
    )
    command, environment = [sys.executable, "-c", code], {**os.environ, "PYTHONHASHSEED": "7"}
    said = subprocess.run(command, env=environment, cwd=ROOT / "docs", check=True, text=True, capture_output=True)
    assert said.stdout.split() == here


def test_frames_out_of_the_middle_are_those_of_the_whole(tmp_path):
    noise = np.random.default_rng(1).integers(0, 255, (150, 16, 16, 3), dtype=np.uint8)
    path = make_video(tmp_path / "a.mkv", num_frames=150, picture=lambda n: noise[n], options={"g": "20"})
    whole = list(read_frames(path))
    numbers = np.array([3, 5, 5, 100, 149])
    assert all(np.array_equal(a, whole[n]) for a, n in zip(frames_at(path, 30, numbers), numbers, strict=True))
    for numbers in ([70, 71, 90], [0, 149], [120]):
        assert all(np.array_equal(a, whole[n]) for a, n in zip(numbered_frames(path, numbers), numbers, strict=True))
    with pytest.raises(ValueError, match="has changed since"):
        list(frames_at(path, 30, np.array([148, 170])))


def test_frames_are_counted_where_the_rate_varies(tmp_path):
    times = [Fraction(0), *accumulate(Fraction(1 + 5 * (index % 9 == 4), 20) for index in range(79))]
    path = make_video(tmp_path / "a.mp4", times, fps=20, options={"g": "10"})
    assert count_frames(path) == 80 and probe(path).num_frames > 100
    assert marks(numbered_frames(path, [0, 11, 66, 79])) == [0, 11, 66 % 12, 79 % 12]
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        assert marks(numbered_frames(path, [79, 80])) == [79 % 12, 79 % 12]
    assert "ends before frame 80" in str(said[-1].message)


def test_gone_videos_and_poses_are_explained(tmp_path):
    folder = built(tmp_path / "set")
    (folder / "poses" / "a.mp4.safetensors").write_bytes(b"x" * 40)
    with pytest.raises(ValueError, match=r"a\.mp4\.safetensors are damaged"):
        open_dataset(folder).clip(0, 4, SIZE)
    (folder / "videos").rename(tmp_path / "elsewhere")
    with pytest.raises(FileNotFoundError, match="say where the videos are"):
        open_dataset(folder)
    assert len(open_dataset(folder, videos=tmp_path / "elsewhere")) == 1
    with pytest.raises(ValueError, match="1 or more frames"):
        open_dataset(folder, videos=tmp_path / "elsewhere").clip(0, 0, SIZE)


def swapped(picture: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(picture[..., ::-1])


@pytest.fixture(scope="module")
def drawings():
    """A figure drawn as MimicMotion's network knows it: limbs that tell the channel order."""
    points = np.zeros((1, 134, 2)) - 1
    body = "50 10  50 22  40 22  34 36  32 48  60 22  66 36  68 48  44 50  43 68  42 88  56 50  57 68  58 88"
    points[0, :14] = np.array(body.split(), float).reshape(-1, 2) / 100
    renderer = Renderer("mimicmotion", (96, 72))
    return [
        renderer.draw(np.add(points, (0.004 * index, 0)), (points[..., 0] > 0).astype(float)) for index in range(24)
    ]


def score_rows(num_frames: int) -> list[dict]:
    poses = walk(num_frames)
    rows = []
    for index in range(num_frames):
        points, _ = poses.frame(index)
        low = 0.3 if index in (2, 3) else 0.9
        rows.append(
            {
                "frame_idx": index,
                "body": points[0, :18].tolist(),
                "hands": [points[0, LEFT_HAND].tolist(), points[0, RIGHT_HAND].tolist()],
                "body_score": np.full((1, 18), low).tolist(),
                "hands_score": [[low] * 21, [0.8] * 21],
                "faces_score": np.full((1, 68), low).tolist(),
            }
        )
    return rows


@pytest.fixture
def pairs(tmp_path, drawings):
    """The layout of MimicMotion's trainer, written as its tools do."""
    root = tmp_path / "pairs"
    for part in ("videos", "dwpose", "pose_score", "ref"):
        (root / part).mkdir(parents=True)
    for name in ("a", "b"):
        make_video(root / "videos" / f"{name}.mp4", num_frames=24)
        make_video(root / "dwpose" / f"{name}.mp4", num_frames=24, picture=lambda n: swapped(drawings[n]))
        content = {"video_name": f"{name}.mp4", "total_frames": 24, "pose_score": score_rows(24)}
        (root / "pose_score" / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")
    save_picture(root / "ref" / "a.png", np.full((48, 64, 3), (10, 200, 30), np.uint8))
    return root


def test_pairs_of_videos_are_read_as_published(pairs, drawings):
    source = open_dataset(pairs, fit="stretch")
    assert isinstance(source, VideoPairs) and len(source) == 1, "ref/*.png is the list"
    for seed in range(4):
        clip = source.clip(0, 6, SIZE, seed)
        check_clip(clip, 6)
        kept = [n for n in range(24) if n not in (2, 3)]
        start = kept.index(int(clip.name.rpartition(" ")[2]))
        numbers = [kept[start + 3 * step] for step in range(6)]
        assert marks(clip.frames) == [n % 12 for n in numbers]
        assert np.abs(clip.reference.astype(int) - (10, 200, 30)).max() <= 1 and clip.reference_pose is None
        expected = Framing.of((96, 72), SIZE, "stretch").pictures(drawings[n] for n in numbers)
        assert np.abs(clip.pose_pictures.astype(int) - expected).mean() < 4
        truth = walk(24)[numbers]
        assert np.allclose(clip.poses.points[..., LEFT_HAND, :], truth.points[..., LEFT_HAND, :])
        assert np.allclose(clip.poses.scores[..., RIGHT_HAND], 0.8) and not clip.poses.scores[..., FACE].any()


def test_colours_of_pose_videos_can_be_told_or_given(pairs, drawings):
    def pictures(**options):
        return open_dataset(pairs, fit="stretch", **options).clip(0, 2, (96, 72)).pose_pictures.astype(int)

    usual = pictures()
    assert np.array_equal(pictures(colours="straight"), usual)
    assert np.array_equal(pictures(colours="as stored"), usual[..., ::-1])
    assert np.array_equal(pictures(style="stableanimator"), usual[..., ::-1]), "another network, another order"
    make_video(pairs / "dwpose" / "a.mp4", num_frames=24, picture=drawings.__getitem__)
    assert np.abs(pictures() - usual).mean() < 3, "a video that was written right stays as it is"


def test_pairs_without_references_and_scores(pairs):
    (pairs / "ref" / "a.png").rename(pairs / "a.png")
    (pairs / "pose_score" / "b.json").unlink()
    source = open_dataset(pairs, rate=1)
    assert len(source) == 2
    clip = source.clip(1, 4, SIZE)
    check_clip(clip, 4)
    assert clip.poses is None and clip.reference_pose.any() and clip.reference_pose.shape == (*SIZE, 3)
    assert len(open_dataset(pairs, min_frames=24)) == 1, "a has 22 frames that pass"
    (pairs / "pose_score" / "a.json").write_text('{"pose_score": [{"frame_idx": 0}]}', encoding="utf-8")
    with pytest.raises(ValueError, match=r"a\.json is no file of pose scores"):
        source.clip(0, 4, SIZE)


@pytest.mark.parametrize(("frames", "poses"), [("imgs", "lmks"), ("images", "poses")])
def test_folders_of_pictures_are_read(tmp_path, drawings, frames, poses):
    for video in ("rec/one", "vec/zwei ü"):
        for index in range(12):
            save_picture(
                tmp_path / video / frames / f"frame_{index}.png", np.full((96, 72, 3), grey_level(index), np.uint8)
            )
            if index != 4:
                save_picture(tmp_path / video / poses / f"frame_{index}.png", swapped(drawings[index]))
        (tmp_path / video / "faces").mkdir()
    source = open_dataset(tmp_path, rate=1)
    assert isinstance(source, PictureFolders) and len(source) == 2
    for seed in range(4):
        clip = source.clip(1, 8, SIZE, seed)
        check_clip(clip, 8)
        first = int(clip.name.rpartition(" ")[2])
        assert marks(clip.frames) == list(range(first, first + 8)) and clip.name.startswith("vec/zwei ü")
        assert marks([clip.reference])[0] not in range(first, first + 8) and clip.fps == 30 and clip.poses is None
        assert [picture.any() for picture in clip.pose_pictures] == [n != 4 for n in range(first, first + 8)]
        expected = Framing.of((96, 72), SIZE).picture(drawings[first])
        assert first == 4 or np.abs(clip.pose_pictures[0].astype(int) - expected).max() <= 1
    assert len(open_dataset(tmp_path / "rec" / "one")) == 1, "the folder of one video"
    with pytest.raises(ValueError, match="no folder of 13 or more"):
        open_dataset(tmp_path, min_frames=13)


def tiktok(folder: Path, part: str, video: str, frames: int, drawings: list, *, missing=()) -> None:
    """A video of a set as of TikTok: grey frames that tell their number, and maps in straight colours."""
    for index in range(frames):
        name, poses = f"{index + 1:04d}.jpg", f"pose_map_{part}" if part == "train_set" else "pose_map_disco_test_set"
        save_picture(folder / part / video / name, np.full((96, 72, 3), grey_level(index), np.uint8))
        if index not in missing:
            save_picture(folder / poses / video / f"{index + 1:04d}.png", swapped(drawings[index]))


def test_tiktok_has_a_part_to_train_on_and_a_part_to_test(tmp_path, drawings):
    tiktok(tmp_path, "train_set", "00001", 8, drawings, missing=(2,))
    tiktok(tmp_path, "train_set", "00002", 5, drawings)
    tiktok(tmp_path, "disco_test_set", "00338", 6, drawings)
    tiktok(tmp_path, "disco_test_set", "00339", 1, drawings)
    assert has_held_out(tmp_path)
    source = open_dataset(tmp_path, style="classic", rate=1)
    assert isinstance(source, TikTok) and len(source) == 2
    for seed in range(10):
        clip = source.clip(0, 1, SIZE, seed)
        check_clip(clip, 1)
        (number,), (reference,) = marks(clip.frames), marks([clip.reference])
        assert number != reference and clip.name == f"00001, frame {number}"
        expected = Framing.of((96, 72), SIZE).picture(swapped(drawings[number])) * (number != 2)
        assert np.abs(clip.pose_pictures[0].astype(int) - expected).max() <= 1, "maps stay as they are stored"
    near = open_dataset(tmp_path, rate=1, within=1)
    for seed in range(20):
        clip = near.clip(0, 1, SIZE, seed)
        assert abs(marks(clip.frames)[0] - marks([clip.reference])[0]) == 1
    test = open_dataset(tmp_path, held_out=True, rate=3)
    assert len(test) == 1, "a single frame is its own reference and nothing else"
    clip = test.clip(0, 4, SIZE, seed=5)
    assert marks([clip.reference]) == [0] and marks(clip.frames) == [1, 2, 3, 4]
    assert len(test.clip(0, 24, SIZE).frames) == 5, "as many as there are"
    with pytest.raises(ValueError, match="looked for disco_test_set/VIDEO/ with pose_map_disco_test_set/VIDEO/"):
        open_dataset(tmp_path, held_out=True, min_frames=7)


def test_frames_reference_and_poses_show_the_same_part(tmp_path):
    ramp = np.zeros((100, 100, 3), np.uint8)
    ramp[..., 0], ramp[..., 1] = np.arange(100)[:, None] * 2, np.arange(100)[None] * 2
    for index in range(3):
        for part in ("train_set", "pose_map_train_set"):
            save_picture(tmp_path / part / "a" / f"{index}.png", ramp)
    source = open_dataset(tmp_path, crop=0.25, colours="as stored")
    sides = []
    for seed in range(20):
        clip = source.clip(0, 2, (50, 50), seed)
        for picture in (clip.reference, clip.reference_pose, *clip.pose_pictures):
            np.testing.assert_array_equal(picture, clip.frames[0])
        span = np.ptp(clip.frames[0, ..., :2].astype(int), axis=(0, 1))
        assert span[0] == pytest.approx(span[1], abs=3)
        sides.append(span[0] / 198)
    assert 0.45 < min(sides) < 0.7 < max(sides) < 1
    with pytest.raises(ValueError, match="crop must be above 0"):
        open_dataset(tmp_path, crop=0.0)


def test_a_folder_of_another_kind_is_explained(tmp_path):
    with pytest.raises(FileNotFoundError, match='give a folder, or "puppets"'):
        open_dataset(tmp_path / "nowhere")
    with pytest.raises(
        ValueError,
        match=r"looked for dataset.json, for videos/ with dwpose/, for train_set/ with pose_map_train_set/, and for "
        "folders with imgs/",
    ):
        open_dataset(tmp_path)
    make_video(tmp_path / "a.mp4", num_frames=2)
    with pytest.raises(ValueError, match="choreo dataset build"):
        open_dataset(tmp_path)
    with pytest.raises(ValueError, match="no part that is held out"):
        open_dataset(tmp_path, held_out=True)
    with pytest.raises(ValueError, match="rate must be 1 or more"):
        open_dataset(tmp_path, rate=0)


def test_the_options_of_reading_are_those_of_the_command(tmp_path, capsys):
    folder = built(tmp_path / "set", {}, {"name": "b.mp4", "num_frames": 8})
    sheet = tmp_path / "sheet.png"
    flags = ["--sheet", str(sheet), "--frames", "3", "--size", "24", "32", "--min-frames", "4", "--rate", "2"]
    assert cli.main(["dataset", "show", str(folder), *flags]) == 0
    said = capsys.readouterr().out
    assert "2 videos, 68 of 68 frames kept" in said and "64x48 (2)" in said and "30 (2)" in said
    assert picture_size(sheet) == (2 * 2 * 32, 4 * 24)
    assert cli.main(["dataset", "show", str(tmp_path / "nowhere")]) == 1
    assert {field.name for field in fields(Reading)} >= {"rate", "fps", "fit", "style", "min_frames", "colours"}
