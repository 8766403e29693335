"""Whole jobs with StableAnimator, from files to a video."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from choreo import cli, doctor
from choreo.evaluation import systems
from choreo.media.pictures import save_picture
from choreo.media.video import probe, read_frames
from choreo.model_loaders.tiny import (
    DETECTOR_FILE,
    FACE_FILE,
    POSE_FILE,
    RECOGNISER_FILE,
    STABLEANIMATOR_FOLDER,
    SVD_FOLDER,
    TINY_FOLDER,
)
from choreo.model_loaders.untrained import write_untrained
from choreo.networks.arcface import IResNet
from choreo.pipelines import job as job_module
from choreo.pipelines.face_job import OptimiseFaces
from choreo.pipelines.faces import Identity, find_network
from choreo.pipelines.inputs import Detection
from choreo.pipelines.job import Decode, Weights, animate_to_file, decode_to_file
from choreo.pipelines.stableanimator import Settings
from choreo.pipelines.stableanimator_job import AnimateStableAnimator, StableAnimatorFiles
from choreo.pose.openpose_json import save_json
from choreo.quirks import Quirks
from choreo.runtime import Runtime, use

from .figures import Figure, draw
from .pose_clips import clip

QUICK = Settings(steps=2, window=4, overlap=2)
TINY_FACES = {"face_detector": str(TINY_FOLDER / FACE_FILE), "face_recogniser": str(TINY_FOLDER / RECOGNISER_FILE)}
NO_FACE = Identity(keep_face="never")


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    write_untrained(folder, system="stableanimator")
    return folder


@pytest.fixture(autouse=True)
def _alone(models, tmp_path, monkeypatch):
    monkeypatch.setenv("CHOREO_MODELS", str(models))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    with use(Runtime("cpu", torch.float32)):
        yield


@pytest.fixture
def job(models, tmp_path):
    save_picture(tmp_path / "me.png", draw((96, 128), [Figure((64, 50), 80)]))
    save_json(tmp_path / "poses.json", clip([[(100.0 + 9 * f, 100.0, 120.0)] for f in range(3)], fps=10.0))
    return AnimateStableAnimator(
        tmp_path / "me.png",
        poses=tmp_path / "poses.json",
        reference_pose="first",
        output=tmp_path / "a.mp4",
        size=(64, 64),
        side_by_side=False,
        networks=StableAnimatorFiles(weights=STABLEANIMATOR_FOLDER, svd=SVD_FOLDER),
        sampling=QUICK,
        identity=NO_FACE,
    )


def _given(job, monkeypatch):
    """What a job hands to the network instead of doing the work."""
    calls = []

    def generate(*arguments, **named):
        calls.append((arguments, named))
        raise KeyboardInterrupt

    monkeypatch.setattr("choreo.pipelines.stableanimator_job.generate", generate)
    with pytest.raises(KeyboardInterrupt):
        animate_to_file(job)
    ((_networks, _parts, picture, poses, _settings), named) = calls[0]
    return picture, list(poses), {name: value for name, value in named.items() if name not in ("on_step", "resume")}


def test_files_become_a_video_with_a_frame_for_every_pose(job):
    job = replace(job, side_by_side=True)
    assert animate_to_file(job) == job.output
    info = probe(job.output)
    assert (info.num_frames, info.width, info.height, info.fps) == (3, 64, 64, 10)
    assert np.stack(list(read_frames(job.output))).std() > 0
    assert probe(job.output.with_name("a_side_by_side.mp4")).num_frames == 3
    assert not list(job.output.parent.glob("*.safetensors"))


def test_a_job_that_is_stopped_goes_on_and_its_latents_can_be_decoded(job, caplog):
    class Stops(Runtime):
        def progress(self, stage, done, total):
            if stage == "decoding":
                raise KeyboardInterrupt

    with use(Stops("cpu", torch.float32)), pytest.raises(KeyboardInterrupt):
        animate_to_file(job)
    (kept,) = job.output.parent.glob("a-*.latents.safetensors")
    video = decode_to_file(Decode(kept, job.output.with_name("b.mp4"), Weights(svd=SVD_FOLDER)))
    assert probe(video).num_frames == 3
    steps = []
    runtime = Runtime("cpu", torch.float32)
    runtime.progress = lambda stage, *_: steps.append(stage)
    with use(runtime):
        animate_to_file(job)
    assert "sampling" not in steps and not kept.exists()


def test_clip_sees_the_whole_reference_and_poses_fit_what_the_vae_sees(job, monkeypatch):
    drawn = []
    drive = job_module.DrivingInputs.drive
    monkeypatch.setattr(
        job_module.DrivingInputs,
        "drive",
        lambda self, reference, style: drawn.append((reference.shape, style)) or drive(self, reference, style),
    )
    picture, poses, named = _given(job, monkeypatch)
    assert picture.shape == (96, 128, 3) and len(poses) == 3
    assert drawn == [((64, 64, 3), "stableanimator")]
    assert named == {"identity": None, "size": (64, 64)}
    middle = job.fit(np.ascontiguousarray(picture[:, 16:112]))
    assert np.array_equal(job.fit(picture), middle)
    stretched = replace(job, sampling=replace(QUICK, quirks=Quirks(stretched_reference=True))).fit(picture)
    assert stretched.shape == (64, 64, 3) and not np.array_equal(stretched, middle)


@pytest.mark.parametrize(
    ("shape", "size"),
    [((100, 100), (512, 512)), ((160, 90), (1024, 576)), ((120, 100), (512, 512)), ((9, 16), (512,) * 2)],
)
def test_the_sizes_of_the_training_are_the_default(job, shape, size):
    assert replace(job, size=None).video_size(np.zeros((*shape, 3), np.uint8)) == size
    assert replace(job, size=None, resolution=256).video_size(np.zeros((160, 90, 3), np.uint8)) == (448, 256)


@pytest.fixture
def portrait(tmp_path):
    save_picture(tmp_path / "portrait.png", draw((240, 180), [Figure((90, 125), 220)]))
    return tmp_path / "portrait.png"


def test_a_face_is_kept_when_there_is_one(job, portrait, monkeypatch):
    keeping = Identity(keep_face="required", **TINY_FACES)
    _, _, named = _given(replace(job, reference=portrait, identity=keeping), monkeypatch)
    assert named["identity"].shape == (512,) and np.abs(named["identity"]).max() > 0
    _, _, other = _given(replace(job, identity=replace(keeping, face_pictures=(portrait, portrait))), monkeypatch)
    assert np.allclose(other["identity"], named["identity"], atol=1e-4), "the mean over equal pictures"


def test_without_a_face_one_goes_on_or_stops(job, monkeypatch):
    seeking = Identity(**TINY_FACES)
    save_picture(job.reference, np.full((96, 96, 3), 127, np.uint8))
    with pytest.warns(RuntimeWarning, match=r"shows no face\. No identity is kept"):
        _, _, named = _given(replace(job, identity=seeking), monkeypatch)
    assert not named["identity"].any()
    with pytest.raises(ValueError, match="shows no face"):
        animate_to_file(replace(job, identity=replace(seeking, keep_face="required")))


def test_without_the_networks_for_faces_one_goes_on_or_stops(job, monkeypatch, caplog, models):
    _, _, named = _given(replace(job, identity=Identity()), monkeypatch)
    assert named["identity"] is None and "scrfd_10g_bnkps.onnx or glintr100.onnx was not found" in caplog.text
    with pytest.raises(FileNotFoundError, match=r"antelopev2/scrfd_10g_bnkps\.onnx was not found"):
        animate_to_file(replace(job, identity=Identity(keep_face="required")))
    for folder in ("", "antelopev2/", "antelopev2/antelopev2/", "insightface/models/antelopev2/"):
        path = models / folder / "det.onnx"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        assert find_network("det.onnx") == path
        path.unlink()


def test_a_reference_with_a_person_aligns_the_motion_to_it(job, monkeypatch):
    detection = Detection(str(TINY_FOLDER / DETECTOR_FILE), str(TINY_FOLDER / POSE_FILE), "cpu")
    save_picture(job.reference, draw((192, 128), [Figure((64, 96), 150)]))
    job = replace(job, size=(128, 192))
    aligned = _given(replace(job, reference_pose="detect", detection=detection), monkeypatch)[1]
    unaligned = _given(job, monkeypatch)[1]
    assert len(aligned) == len(unaligned) == 3
    assert not np.array_equal(aligned[0], unaligned[0])


def test_what_is_missing_is_named(job):
    with pytest.raises(FileNotFoundError, match=r"stable_animator was not found.*FrancisRing/StableAnimator"):
        animate_to_file(replace(job, networks=StableAnimatorFiles(svd=SVD_FOLDER)))
    with pytest.raises(FileNotFoundError, match=r"nothing\.pth was not found"):
        animate_to_file(replace(job, networks=replace(job.networks, face_encoder="nothing.pth")))
    with pytest.raises(ValueError, match="multiples of 64"):
        animate_to_file(replace(job, size=(72, 64)))
    with pytest.raises(ValueError, match="overlap"):
        animate_to_file(replace(job, sampling=replace(QUICK, window=None, overlap=16)))


def test_faces_are_optimised_where_the_poses_have_them(job, portrait, models, monkeypatch, caplog):
    torch.manual_seed(0)
    torch.save(IResNet((1, 1, 1, 1), (8, 16, 16, 16), 8).state_dict(), models / "arcface_tiny.pth")
    faces = OptimiseFaces(True, "arcface_tiny.pth", face_steps=(1, 1), face_iterations=1)
    job = replace(job, reference=portrait, size=(192, 256), identity=Identity(keep_face="auto", **TINY_FACES))
    caplog.set_level("INFO")
    seen = []

    def generate(*_arguments, refine, **_named):
        x0 = torch.randn(3, 4, 32, 24, generator=torch.Generator().manual_seed(0))
        seen.extend([x0, refine(x0, 0), refine(x0, 1)])
        raise KeyboardInterrupt

    monkeypatch.setattr("choreo.pipelines.stableanimator_job.generate", generate)
    with pytest.raises(KeyboardInterrupt):
        animate_to_file(replace(job, faces=faces))
    assert "Faces are optimised in 3 of 3 frames." in caplog.text
    assert torch.equal(seen[0], seen[1]), "step 0 is not chosen"
    assert (seen[2] - seen[0]).abs().max() > 1e-3
    with pytest.raises(FileNotFoundError, match=r"nothing\.pth was not found"):
        animate_to_file(replace(job, identity=NO_FACE, faces=OptimiseFaces(True, "nothing.pth")))
    with pytest.raises(ValueError, match="start <= end"):
        OptimiseFaces(face_steps=(3, 2))


def test_the_protocol_judges_it_with_the_face_of_every_reference(monkeypatch):
    seen = []

    def animate(_networks, _parts, _picture, poses, settings, *, identity):
        seen.append((settings.seed, identity, [int(pose.max()) for pose in poses]))
        return (np.full((2, 2, 3), pose.max(), np.uint8) for pose in poses)

    monkeypatch.setattr(systems.stableanimator, "animate", animate)
    poses = np.arange(1, 8, dtype=np.uint8)[:, None, None, None] * np.ones((7, 2, 2, 3), np.uint8)
    task = SimpleNamespace(reference=poses[0], pose_pictures=poses, reference_pose=poses[0] * 50, seed=3)
    for fusion in (True, False):
        system = systems.StableAnimator(
            SimpleNamespace(window=5), None, replace(QUICK, window=None), fusion=fusion, embed=lambda _: "me"
        )
        assert [frame.max() for frame in system(task)] == [1, 2, 3, 4, 5, 6, 7]
        assert system.borders(9) == ([4, 5, 8] if fusion else [5])  # 0-4, 0 4-7, 0 5-8
    assert seen == [(3, "me", [1, 2, 3, 4, 5, 6, 7]), (3, "me", [1, 2, 3, 4, 5]), (3, "me", [6, 7])]


def test_the_command_line_knows_it(job, models, capsys):
    with pytest.raises(SystemExit) as left:
        cli.main(["animate", "--model", "stableanimator", "--help"])
    said = capsys.readouterr().out
    assert left.value.code == 0
    assert all(option in said for option in ("--identity-strength", "--keep-face", "--optimise-faces"))
    arguments = f"animate --model=stableanimator --reference {job.reference} --poses {job.poses} --reference-pose first"
    arguments += f" --weights {STABLEANIMATOR_FOLDER} --svd {SVD_FOLDER} --keep-face never --size 64 64 --steps 1"
    assert cli.main([*arguments.split(), "--output", str(job.output), "--no-side-by-side"]) == 0
    assert probe(job.output).num_frames == 3


def test_the_doctor_says_what_it_lacks(models):
    report = doctor.report()
    assert "StableAnimator: no: stable_animator is missing. Get it here: https://" in report
    assert "faces kept by StableAnimator: no: scrfd_10g_bnkps.onnx and glintr100.onnx missing" in report
    release = models / "stable_animator"
    release.symlink_to(models / STABLEANIMATOR_FOLDER)
    (models / "svd_xt.safetensors").touch()
    assert "StableAnimator: yes" in doctor.report()
    release.unlink()
    (models / "svd_xt.safetensors").unlink()
