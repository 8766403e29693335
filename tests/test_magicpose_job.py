"""MagicPose's job from files to a file, and its settings."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from choreo.cli import main
from choreo.media.pictures import save_picture
from choreo.media.video import open_source, probe
from choreo.model_loaders.untrained_magicpose import write_untrained_magicpose
from choreo.pipelines import magicpose_job
from choreo.pipelines.job import animate_to_file, decode_to_file
from choreo.pipelines.magicpose import MagicPoseSettings
from choreo.pipelines.magicpose_job import AnimateMagicPose, DecodeMagicPose, MagicPoseFiles

FRAMES = 3


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return write_untrained_magicpose(tmp_path_factory.mktemp("weights"))


@pytest.fixture
def files(tmp_path, monkeypatch):
    """A reference picture and a folder of skeletons of another size; nothing else on the machine."""
    monkeypatch.setenv("CHOREO_MODELS", str(tmp_path / "nothing here"))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    pictures = np.random.default_rng(0)
    (tmp_path / "poses").mkdir()
    save_picture(tmp_path / "person.png", pictures.integers(0, 256, (90, 70, 3), dtype=np.uint8))
    for number in range(FRAMES):
        drawing = pictures.integers(0, 256, (80, 60, 3), dtype=np.uint8)
        save_picture(tmp_path / "poses" / f"{number:03}.png", drawing)
    return tmp_path


def _job(files, weights, **changes):
    values = {"resolution": 64, "networks": MagicPoseFiles(weights=str(weights)), "side_by_side": False}
    sampling = MagicPoseSettings(steps=2)
    values |= {"reference": files / "person.png", "poses": files / "poses", "output": files / "out.mp4"}
    return AnimateMagicPose(**(values | {"sampling": sampling} | changes))


def test_one_frame_for_every_pose(files, weights):
    path = animate_to_file(_job(files, weights, side_by_side=True))
    frames = list(open_source(path))
    assert len(frames) == FRAMES
    assert frames[0].shape == (64, 64, 3)
    assert probe(files / "out_side_by_side.mp4").width == 3 * 64
    assert not list(files.glob("*.latents.safetensors"))


def test_a_job_broken_off_goes_on_with_the_same_result(files, weights, monkeypatch):
    whole = list(open_source(animate_to_file(_job(files, weights, output=files / "whole.mp4"))))
    generate = magicpose_job.generate

    def broken(*arguments, on_step, **keywords):
        def stop(step, latents):
            on_step(step, latents)
            raise KeyboardInterrupt

        return generate(*arguments, on_step=stop, **keywords)

    monkeypatch.setattr(magicpose_job, "generate", broken)
    with pytest.raises(KeyboardInterrupt):
        animate_to_file(_job(files, weights))
    assert len(list(files.glob("out-*.latents.safetensors"))) == 1
    monkeypatch.setattr(magicpose_job, "generate", generate)
    again = list(open_source(animate_to_file(_job(files, weights))))
    assert all(np.array_equal(one, two) for one, two in zip(whole, again, strict=True))


def test_kept_latents_are_decoded_by_the_vae_of_pictures(files, weights, monkeypatch):
    job = _job(files, weights)
    monkeypatch.setattr("choreo.pipelines.job.decode_to_video", _fails)
    with pytest.raises(OSError, match="disk full"):
        animate_to_file(job)
    monkeypatch.undo()
    (kept,) = files.glob("out-*.latents.safetensors")
    path = decode_to_file(DecodeMagicPose(kept, files / "decoded.mp4", networks=job.networks))
    assert probe(path).num_frames == FRAMES


def _fails(*_arguments):
    raise OSError("disk full")


def test_from_the_command_line(files, weights, capsys):
    command = ["animate", "--model", "magicpose", "--reference", "person.png", "--poses", "poses", "--output", "o.mp4"]
    options = ["--weights", str(weights), "--resolution", "64", "--steps", "2", "--guidance", "3", "--device", "cpu"]
    assert main([*command, *options, "--no-side-by-side"]) == 0
    assert "Wrote o.mp4" in capsys.readouterr().out
    assert main([*command, *options, "--text", "a dancer"]) == 1
    assert "needs the vocabulary of CLIP" in capsys.readouterr().err
    assert main([*command, "--weights", str(weights), "--resolution", "100"]) == 1
    assert "nearest sizes that fit are 128x128" in capsys.readouterr().err


def test_weights_that_are_not_there_are_named(files):
    with pytest.raises(FileNotFoundError, match=r"model_state-110000\.th was not found.*MagicDance"):
        animate_to_file(AnimateMagicPose(files / "person.png", poses=files / "poses"))


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"steps": 0}, "number of DDIM steps must be at least 1"),
        ({"guidance": float("nan")}, "guidance must be a number"),
        ({"eta": 1.5}, "eta must be at most 1"),
        ({"control_mode": "other"}, "Unknown control mode 'other'"),
        ({"batch": 0}, "batch must be at least 1"),
        ({"seed": -1}, "seed must be a whole number"),
    ],
)
def test_settings_that_cannot_work(values, words):
    with pytest.raises(ValueError, match=words):
        MagicPoseSettings(**values)


def test_batches_never_exceed_what_is_asked_for():
    assert MagicPoseSettings().batches() == (16, 8, 4, 2, 1)
    assert MagicPoseSettings(batch=6).batches() == (6, 4, 2, 1)
    assert MagicPoseSettings(batch=32).batches() == (32, 16, 8, 4, 2, 1)
    assert torch.is_tensor(MagicPoseSettings().schedule().timesteps)
