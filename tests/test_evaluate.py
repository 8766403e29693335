"""The protocol end to end: figures that the tests' ONNX networks understand, and systems good, bad and broken."""

from __future__ import annotations

import json
import logging
from contextlib import nullcontext
from dataclasses import replace
from itertools import chain
from types import SimpleNamespace

import numpy as np
import pytest
from choreo import cli
from choreo.datasets.clips import Clip
from choreo.evaluation import ablation, command, systems
from choreo.evaluation.ablation import cell, variants
from choreo.evaluation.command import Evaluate
from choreo.evaluation.examples import Examples
from choreo.evaluation.ledger import Ledger
from choreo.evaluation.protocol import Settings, evaluate
from choreo.evaluation.report import ClipScores, Report, Targets
from choreo.evaluation.systems import MimicMotion
from choreo.media.strips import strip
from choreo.model_loaders.untrained_magicpose import write_untrained_magicpose
from choreo.pipelines.mimicmotion import Settings as Sampling
from choreo.pose.detect import PoseDetector
from choreo.pose.poses import Poses
from choreo.pose.wholebody import openpose_134
from choreo.runtime import Runtime, use

from .figures import DETECTOR, POSE_NETWORK, Figure, codes, draw

SIZE = (128, 128)
HEIGHT = 110
SMALL = Settings(clips=3, frames=2, size=SIZE, references=3)
NECK = 1


class Figures:
    """A data set of three people who walk; picture of each at the other side."""

    def __init__(self, length: int = 3, broken: tuple[int, ...] = (), poses: bool = True) -> None:
        self.length, self.broken, self.with_poses = length, broken, poses

    def __len__(self) -> int:
        return self.length

    def clip(self, index: int, num_frames: int, size: tuple[int, int], seed: int = 0) -> Clip:
        if index in self.broken:
            raise ValueError(f"Video {index} is damaged.")
        height, width = size
        people = [Figure((0.34 * width + 3 * f, height / 2), HEIGHT, index % 3) for f in range(num_frames)]
        reference = replace(people[0], centre=(0.68 * width, height / 2))
        poses = true_poses(people, size) if self.with_poses else None
        drawn = np.full((num_frames, *size, 3), index, np.uint8)
        frames = np.stack([draw(size, [one]) for one in people])
        return Clip(draw(size, [reference]), frames, drawn, poses, 10.0, f"figure {index}", drawn[0])


def true_poses(people: list[Figure], size: tuple[int, int]) -> Poses:
    found = [openpose_134(one.joints()[None], np.ones((1, 133))) for one in people]
    return Poses.from_frames([(points / size[::-1], scores) for points, scores in found], size, 10.0)


def perfect(task):
    """Draws the person of the reference, known by the colour of the body, where the poses are."""
    bodies = [(task.reference == tint).all(axis=-1).sum() for tint in codes()["in.body_tints"]]
    neck = openpose_134(Figure((0, 0), HEIGHT).joints()[None], np.ones((1, 133)))[0][0, NECK]
    for points in task.poses.pixels()[:, 0]:
        yield draw(task.reference.shape[:2], [Figure(tuple(points[NECK] - neck), HEIGHT, int(np.argmax(bodies)))])


def copies(task):
    return [task.reference] * len(task.pose_pictures)


class Told:
    """A detector that always answers the same, and counts."""

    def __init__(self, people: int = 1) -> None:
        self.people, self.calls = people, 0

    def extract(self, frames, fps=None, total=None) -> Poses:
        self.calls += 1
        found = np.full((self.people, 134, 2), 0.5), np.ones((self.people, 134))
        return Poses.from_frames([found for _ in frames], SIZE, fps)


@pytest.fixture(scope="module")
def detector():
    with PoseDetector(DETECTOR, POSE_NETWORK, "cpu", nobody="skip") as opened:
        yield opened


def test_a_perfect_system_reaches_every_target_and_poses_are_really_found_again(detector) -> None:
    report = evaluate(perfect, Figures(), SMALL, detector)
    assert report.mean("result", "pck_body")[0] > 0.95 and report.mean("result", "pck_hands")[0] > 0.95
    assert report.mean("copied", "pck_body")[0] < 0.4 and report.mean("truth", "found")[0] == 1
    reached, summary = report.summary(Targets())
    assert reached and "MISSED" not in summary
    table = report.table()
    assert "reference copied" in table and "PCK@0.1 face" in table and "LPIPS" not in table


def test_a_system_that_copies_gets_the_numbers_of_reference_copied(detector) -> None:
    report = evaluate(copies, Figures(), replace(SMALL, clips=1, references=0), detector)
    values = report.clips[0].values
    assert values["result"] == pytest.approx(values["copied"])
    reached, summary = report.summary(Targets())
    assert not reached and summary.count("MISSED") == 3, summary


@pytest.mark.parametrize("people", [0, 1])
def test_a_blind_detector_is_seen_to_be_blind(people) -> None:
    report = evaluate(perfect, Figures(), SMALL, Told(people))
    assert report.mean("truth", "pck_body")[0] < 0.5
    assert report.mean("truth", "found")[0] == people
    missed = [text for right, text in report.checks(Targets()) if not right]
    assert [text.split()[0] for text in missed] == ["PCK@0.1", "truth"]


def test_colours_that_do_not_follow_the_reference_are_seen() -> None:
    def everybody_alike(task):
        return perfect(replace(task, reference=Figures().clip(1, 1, SIZE).reference))

    report = evaluate(everybody_alike, Figures(), replace(SMALL, clips=1))
    assert (False, "colours 1 of 3 on the diagonal") in report.checks(Targets())


def test_without_a_detector_or_keypoints_what_needs_them_is_missing_and_missed() -> None:
    for report in (
        evaluate(perfect, Figures(), replace(SMALL, references=0)),
        evaluate(copies, Figures(poses=False), SMALL, Told()),
    ):
        assert "PCK" not in report.table()
        missed = " ".join(text for right, text in report.checks(Targets()) if not right)
        assert "PCK@0.1 nan" in missed and "truth nan" in missed and "colours not compared" in missed
        assert report.summary(None)[0], "measuring alone misses nothing"


def test_the_system_gets_no_truth_and_its_own_seed_for_every_clip() -> None:
    tasks = []

    def remember(task):
        tasks.append(task)
        return copies(task)

    report = evaluate(remember, Figures(), replace(SMALL, references=0, seed=5))
    assert [task.seed for task in tasks] == [5, 6, 7] and not hasattr(tasks[0], "frames")
    again = evaluate(copies, Figures(), replace(SMALL, references=0, seed=5))
    assert [clip.values for clip in again.clips] == [clip.values for clip in report.clips]


def test_means_have_standard_errors() -> None:
    scores = [ClipScores(i, "", 1, 1.0, {"result": {"l1": value}}) for i, value in enumerate((0.1, 0.2, 0.6))]
    report = Report(0.1, [*scores, ClipScores(3, "", 1, 1.0, {})])
    assert report.mean("result", "l1") == pytest.approx((0.3, np.sqrt(0.07 / 3)))
    assert np.isnan(report.mean("copied", "l1")).all() and np.isnan(report.mean("result", "ssim")[0])


def one_too_small(task):
    yield task.reference
    yield task.reference[:-2]


def not_a_number(task):
    yield task.reference / 255
    yield np.full(task.reference.shape, np.nan, np.float32)


@pytest.mark.parametrize(
    ("system", "error", "said"),
    [
        (one_too_small, ValueError, r"clip 0 \(figure 0\): frame 1 .*\(126, 128, 3\)"),
        (lambda task: copies(task)[1:], ValueError, "made 1 frames, asked were 2"),
        (lambda task: [*copies(task), task.reference], ValueError, "more frames, asked were 2"),
        (lambda task: [], ValueError, "made 0 frames"),
        (lambda task: (frame / 255 + 1 for frame in copies(task)), ValueError, r"must lie in 0\.\.1"),
        (not_a_number, FloatingPointError, "clip 0 .*frame 1 .*NaN"),
    ],
)
def test_what_a_broken_system_did_is_said_with_the_clip(system, error, said) -> None:
    with pytest.raises(error, match=said):
        evaluate(system, Figures(), SMALL)


def test_clips_that_the_data_set_cannot_give_are_left_out_and_named() -> None:
    report = evaluate(perfect, Figures(broken=(1,)), replace(SMALL, clips=5), Told())
    assert [clip.index for clip in report.clips] == [0, 2]
    assert report.skipped == ["Video 1 is damaged."] and report.colours.shape == (2, 2)
    assert report.notes == ["The data set has only 3 of 5 clips."]
    for source in (Figures(broken=(0, 1, 2)), Figures(0)):
        with pytest.raises(ValueError, match="nothing to judge"):
            evaluate(perfect, source, SMALL)


class Short(Figures):
    def clip(self, index, num_frames, size, seed=0):
        clip = super().clip(index, 2, size, seed)
        kept = slice(0, 2 * index)
        return replace(clip, frames=clip.frames[kept], pose_pictures=clip.pose_pictures[kept], poses=clip.poses[kept])


def test_short_and_empty_clips_are_told() -> None:
    report = evaluate(copies, Short(2), replace(SMALL, frames=3, references=0))
    assert report.skipped == ["figure 0 has no frames."] and report.clips[0].frames == 2
    assert "Clips of fewer than 3 frames: 1." in report.notes


@pytest.mark.parametrize("wrong", [{"clips": 0}, {"frames": 0}, {"references": 1}, {"threshold": 0}, {"seed": -1}])
def test_settings_that_cannot_work(wrong) -> None:
    with pytest.raises(ValueError, match=str(next(iter(wrong.values())))):
        Settings(**wrong)


def test_a_job_that_was_broken_off_goes_on(tmp_path) -> None:
    def stop_at(number):
        calls = []

        def system(task):
            if len(calls) == number:
                raise KeyboardInterrupt
            calls.append(task.seed)
            return perfect(task)

        return system, calls

    whole = evaluate(perfect, Figures(), SMALL, Told())
    path = tmp_path / "unfinished.jsonl"
    for number, done in ((2, 2), (2, 4)):
        with pytest.raises(KeyboardInterrupt):
            evaluate(stop_at(number)[0], Figures(), SMALL, Told(), ledger=Ledger(path))
        assert len(Ledger(path).values) == done
        with path.open("a", encoding="utf-8") as file:
            file.write('["clip 9", {"ind')  # killed while it wrote
    system, calls = stop_at(99)
    report = evaluate(system, Figures(), SMALL, Told(), ledger=Ledger(path))
    assert len(calls) == 2 and path.read_text(encoding="utf-8").count("\n") == 6
    assert [clip.values for clip in report.clips] == [clip.values for clip in whole.clips]
    np.testing.assert_array_equal(report.colours, whole.colours)
    path.write_text("nonsense\n", encoding="utf-8")
    with pytest.raises(ValueError, match="damaged"):
        Ledger(path)


def test_progress_counts_clips_only_and_cancelling_reaches_the_system() -> None:
    said = []

    class Host(Runtime):
        def progress(self, stage, done, total):
            said.append((stage, done, total))

        def check_cancelled(self):
            raise InterruptedError

    def system(task):
        from choreo.runtime import current

        current().progress("sampling", 1, 25)
        current().check_cancelled()

    with use(Host("cpu")), pytest.raises(InterruptedError):
        evaluate(system, Figures(), SMALL)
    assert said == [("evaluating", 0, 6)]


def test_the_report_is_strict_json_and_examples_are_written(tmp_path) -> None:
    report = evaluate(perfect, Figures(), SMALL, show=Examples(tmp_path, clips=1))
    report.save(tmp_path / "report.json", Targets())
    content = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"), parse_constant=pytest.fail)
    assert content["targets"]["reached"] is False and content["means"]["result"]["l1"][0] < 0.01
    assert len(content["clips"]) == len(content["colours"]) == 3
    written = {path.name for path in tmp_path.iterdir()} - {"report.json"}
    assert written == {"clip_00.mp4", "clip_00.png", "reference_00.png", "reference_01.png", "reference_02.png"}


def test_a_strip_shows_the_first_and_the_last_frame() -> None:
    row = np.arange(9, dtype=np.uint8)[:, None, None, None] * np.ones((9, 4, 6, 3), np.uint8)
    picture = strip(np.full((4, 6, 3), 77, np.uint8), [row, row + 100], num_frames=3)
    assert picture.shape == (10, 30, 3)
    assert picture[0, [0, 8, 16, 24], 0].tolist() == [77, 0, 4, 8]
    assert picture[-1, [0, 8, 16, 24], 0].tolist() == [255, 100, 104, 108]


@pytest.fixture
def mimicmotion(monkeypatch):
    """mimicmotion(fusion=…, overlap=…): the system on networks of window 5; `.seen` are the pose pictures it got."""
    seen: list[list[int]] = []

    def animate(networks, parts, picture, poses, settings):
        numbers = [int(pose.max()) for pose in poses]
        seen.append([settings.seed, *numbers])
        return (np.full((2, 2, 3), number, np.uint8) for number in numbers[1:])

    monkeypatch.setattr(systems, "animate", animate)

    def make(fusion: bool = True, **settings) -> MimicMotion:
        return MimicMotion(SimpleNamespace(window=5), None, Sampling(**{"overlap": 2, **settings}), fusion=fusion)

    make.seen = seen
    return make


def test_mimicmotion_is_given_the_pose_of_the_reference_first(mimicmotion) -> None:
    poses = np.arange(1, 8, dtype=np.uint8)[:, None, None, None] * np.ones((7, 2, 2, 3), np.uint8)
    task = SimpleNamespace(reference=poses[0], pose_pictures=poses, reference_pose=poses[0] * 50, seed=3)
    assert [frame.max() for frame in mimicmotion()(task)] == [1, 2, 3, 4, 5, 6, 7]
    assert [frame.max() for frame in mimicmotion(fusion=False)(task)] == [1, 2, 3, 4, 5, 6, 7]
    task.reference_pose = None
    list(mimicmotion()(task))
    assert mimicmotion.seen == [
        [3, 50, 1, 2, 3, 4, 5, 6, 7],
        [3, 50, 1, 2, 3, 4],
        [3, 50, 5, 6, 7],
        [3, 1, 1, 2, 3, 4, 5, 6, 7],
    ]


def test_borders_are_where_windows_begin_and_end(mimicmotion) -> None:
    assert mimicmotion(fusion=False).borders(9) == [4, 8]
    assert mimicmotion(overlap=1).borders(8) == [4]  # 1 2 3 4 | 5 6 7 8, the reference not counted
    assert mimicmotion(overlap=3).borders(6) == [2, 4]  # 1 2 3 4 and 3 4 5 6
    assert mimicmotion().borders(4) == mimicmotion(fusion=False).borders(4) == []


class Loaded:
    """A system as the command has it after loading."""

    networks, parts = SimpleNamespace(window=16), None

    def __init__(self, system) -> None:
        self.system = system

    def __call__(self, task):
        return self.system(task)

    def borders(self, num_frames: int) -> list[int]:
        return [1]


@pytest.fixture
def evaluation(monkeypatch, tmp_path, capsys):
    """evaluation(system, arguments) -> (exit status, stdout): the command on the figures."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Evaluate, "source", lambda job: Figures())
    common = f"--detector {DETECTOR} --pose-model {POSE_NETWORK} --clips 2 --frames 2 --size 128 128 --device cpu"

    def run(system, arguments: str) -> tuple[int, str]:
        loaded = Loaded(system)
        monkeypatch.setattr(command, "load_system", lambda *_: loaded)
        monkeypatch.setattr(ablation, "load_system", lambda *_: loaded)
        name, *rest = arguments.split()
        status = cli.main([name, "--model", "tiny", *common.split(), *rest])
        said = capsys.readouterr()
        print(said.err)
        return status, said.out

    return run


def test_the_exit_status_is_that_of_the_targets_and_the_last_line_says_why(evaluation, tmp_path) -> None:
    status, said = evaluation(perfect, "evaluate --references 3 --output out --seed 4")
    assert status == 0 and said.strip().splitlines()[-1].startswith("Targets reached")
    assert "puppets, held out: 2 clips x 2 frames, 128x128, seed 4" in said and "seconds a clip" in said
    assert not list((tmp_path / "out").glob("unfinished*")) and (tmp_path / "out" / "report.json").is_file()
    status, said = evaluation(copies, "evaluate --references 0")
    assert status == 1 and said.strip().splitlines()[-1].startswith("Targets missed")
    status, said = evaluation(copies, "evaluate --references 0 --targets none")
    assert status == 0 and said.strip().splitlines()[-1].startswith("PSNR (dB)")


def test_an_evaluation_of_the_command_goes_on_and_a_different_one_does_not(evaluation, tmp_path, caplog) -> None:
    def fails(task):
        return perfect(task) if task.seed == 1 else copies(task)[1:]

    caplog.set_level(logging.INFO)
    assert evaluation(fails, "evaluate --references 0 --targets none --output out")[0] == 1
    assert len(list((tmp_path / "out").glob("unfinished*"))) == 1
    assert evaluation(perfect, "evaluate --references 0 --targets none --output out --steps 7")[0] == 0
    assert "Going on" not in caplog.text
    assert evaluation(perfect, "evaluate --references 0 --output out")[0] == 1
    assert "1 parts are finished" in caplog.text


def test_a_missing_detector_stops_what_has_targets_only(evaluation, caplog) -> None:
    arguments = "evaluate --references 0 --pose-model nowhere.onnx"
    assert evaluation(copies, arguments)[0] == 1
    status, said = evaluation(copies, f"{arguments} --targets none")
    assert status == 0 and "PCK is not measured" in caplog.text and "body" not in said


def test_the_tiny_model_is_evaluated_for_real(tmp_path, capsys) -> None:
    arguments = "evaluate --model tiny --size 64 64 --steps 1 --clips 1 --frames 2 --references 0 --targets none"
    assert cli.main([*arguments.split(), "--device", "cpu", "--output", str(tmp_path)]) == 0
    content = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    assert 0 < content["means"]["result"]["psnr"][0] < 60 and content["about"]["system"] == "tiny"
    assert "guidance 1," in content["about"]["sampling"], "the tiny model's own"
    asked = [*arguments.split(), "--guidance-first", "2", "--guidance-last", "2", "--device", "cpu"]
    capsys.readouterr()
    assert cli.main(asked) == 0 and "guidance 2," in capsys.readouterr().out
    assert cli.main([*arguments.split(), "--device", "cpu", "--overlap", "40"]) == 1


def test_the_ablation_changes_one_thing_at_a_time() -> None:
    rows = list(variants(Sampling()))
    assert [row.name for row in rows[1:]] == [
        "no latent fusion",
        "Euler, AYS, 10 steps",
        "pose strength 0",
        "guidance 1",
        "guidance 3",
    ]
    assert rows[0].name == "Euler, Karras, 25 steps, guidance 2, pose strength 1, latent fusion"
    for row in rows[1:]:
        changed = {name for name in vars(row.sampling) if getattr(row.sampling, name) != getattr(Sampling(), name)}
        assert len(changed) + (not row.fusion) in (1, 2) and changed <= {
            "steps", "schedule", "pose_strength", "guidance_first", "guidance_last"
        }  # fmt: skip
    names = [row.name for row in variants(Sampling(steps=10, schedule="ays", guidance_first=1, pose_strength=0.5))]
    assert names[2:5] == ["Euler, Karras, 25 steps", "pose strength 0", "pose strength 1"] and len(names) == 8


def test_differences_are_taken_clip_by_clip() -> None:
    def report(*values: float) -> Report:
        return Report(0.1, [ClipScores(i, "", 1, 1.0, {"result": {"psnr": v}}) for i, v in enumerate(values)])

    base, better = report(10, 20, 30), report(11, 21, 31.3)
    assert cell(base, base, "psnr") == "20.00"
    assert cell(better, base, "psnr") == "21.10 (+1.10 ± 0.10)"
    assert cell(better, base, "ssim") == "-" and cell(report(7), report(8), "psnr") == "7.00"


def test_the_ablation_writes_markdown(evaluation, monkeypatch, tmp_path) -> None:
    def animate(networks, parts, picture, poses, settings):
        return [picture] * (len(list(poses)) - 1)

    monkeypatch.setattr(systems, "animate", animate)
    monkeypatch.setattr(Evaluate, "detector", lambda job: nullcontext(Told()))
    status, said = evaluation(copies, "ablation --output table.md")
    assert status == 0, said
    written = (tmp_path / "table.md").read_text(encoding="utf-8")
    rows = [line for line in written.splitlines() if line.startswith("|")]
    assert status == 0 and written.strip() in said and len(rows) == 2 + 6
    assert {row.count("|") for row in rows} == {7} and list(
        chain.from_iterable(row.split("nan")[1:] for row in rows)
    ) == []


def test_magicpose_is_evaluated_by_its_own_options(tmp_path, capsys) -> None:
    weights = write_untrained_magicpose(tmp_path)
    flags = ["--model", "magicpose", "--weights", str(weights), "--clips", "1", "--frames", "2", "--references", "0"]
    flags += ["--size", "32", "32", "--steps", "1", "--targets", "none", "--device", "cpu", "--guidance", "3"]
    assert cli.main(["evaluate", *flags, "--output", str(tmp_path / "out")]) == 0
    said = capsys.readouterr().out
    assert "DDIM, 1 steps, guidance 3 (controlnet_important), eta 0" in said
    assert "SSIM of DisCo" in said and "wrapped PSNR of DisCo" in said and "FID (--inception), FVD (--i3d)" in said
    content = json.loads((tmp_path / "out" / "report.json").read_text(encoding="utf-8"))
    assert content["clips"][0]["frames"] == 2 and content["means"]["result"]["change"][0] > 0
