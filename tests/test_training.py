"""Training runs: resume, processes, cache, export, and what users do wrong."""

from __future__ import annotations

import errno
import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from choreo.datasets.clips import Clip
from choreo.datasets.puppets import Puppets
from choreo.media.video import open_source
from choreo.model_loaders.mimicmotion import load_mimicmotion
from choreo.model_loaders.svd import load_svd_parts
from choreo.model_loaders.tiny import SVD_FOLDER, UNET_FILE
from choreo.model_loaders.untrained import UNTRAINED_UNET
from choreo.pipelines.mimicmotion import Settings, animate
from choreo.runtime import Runtime, use
from choreo.training.checkpoints import checkpoints
from choreo.training.mimicmotion import MimicMotionTraining
from choreo.training.samples import Numbers, Samples
from choreo.training.settings import Loop, TrainMimicMotion
from choreo.training.starts import mimicmotion_start
from choreo.training.step import Recipe
from choreo.training.windows import HandWindows
from safetensors.torch import load_file, save_file

from .training_job import loss_on_clip, small_parts, train

accelerate = pytest.importorskip("accelerate", reason="the extra `train` is not installed")
EXPORT = "MimicMotion.safetensors"


@pytest.fixture(autouse=True)
def one_thread_and_no_memory_of_other_runs():
    threads = torch.get_num_threads()
    accelerate.state.AcceleratorState._reset_state(True)
    yield
    torch.set_num_threads(threads)


def started(output: Path, changes: dict, **environment: str) -> subprocess.Popen:
    job = Path(__file__).with_name("training_job.py")
    command = [sys.executable, "-P", str(job), str(output), json.dumps(changes)]
    variables = {**os.environ, "OMP_NUM_THREADS": "1", **environment}
    return subprocess.Popen(command, env=variables, stderr=subprocess.PIPE, text=True)


def curve(output: Path, name: str = "loss") -> list[float]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(output / "logs"))
    events.Reload()
    return [event.value for event in events.Scalars(name)]


def same(one: Path, other: Path) -> bool:
    first, second = load_file(one), load_file(other)
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


# --- resume ---------------------------------------------------------------------------------------------------------


def test_a_killed_run_goes_on_to_the_same_weights(tmp_path: Path) -> None:
    settings = {"steps": 5, "ema": 0.9, "batch": 2, "schedule": "cosine"}
    train(tmp_path / "whole", **settings)
    killed = started(tmp_path / "killed", settings | {"die": 4})
    assert killed.wait(timeout=600) == -signal.SIGKILL, killed.stderr.read()
    assert [path.name for path in checkpoints(tmp_path / "killed")] == ["checkpoint-2"]
    train(tmp_path / "killed", **settings)
    whole, resumed = (tmp_path / name / "checkpoint-5" for name in ("whole", "killed"))
    for file in (EXPORT, "ema.safetensors", "state/model.safetensors"):
        assert same(whole / file, resumed / file), file
    assert curve(tmp_path / "whole")[2:] == curve(tmp_path / "killed")[-3:]
    assert not list((tmp_path / "killed").glob(".*"))


def test_two_processes_are_one_with_twice_the_batch(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    place = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    small_parts(tmp_path / "parts")
    both = [started(tmp_path / "two", {"batch": 1}, RANK=rank, LOCAL_RANK=rank, **place) for rank in ("0", "1")]
    train(tmp_path / "one", batch=2)
    accelerate.state.AcceleratorState._reset_state(True)
    train(tmp_path / "sums", batch=1, accumulate=2)
    for process in both:
        assert process.wait(timeout=600) == 0, process.stderr.read()
    for other in ("two", "sums"):
        assert curve(tmp_path / other) == pytest.approx(curve(tmp_path / "one"), rel=1e-4)
        found, expected = (load_file(tmp_path / name / "checkpoint-4" / EXPORT) for name in (other, "one"))
        assert all(torch.allclose(found[name], expected[name], atol=2e-4) for name in expected)


def test_sample_numbers_are_shared_out() -> None:
    whole = list(Numbers(3, 5, 4, 0, 1))
    assert whole == [[12, 13, 14, 15], [16, 17, 18, 19]]
    halves = [list(Numbers(3, 5, 2, process, 2)) for process in (0, 1)]
    assert [[*a, *b] for a, b in zip(*halves, strict=True)] == whole


class Numbered:
    """Clips that hold nothing but their number; every third one is damaged."""

    def __len__(self) -> int:
        return 6

    def clip(self, index: int, num_frames: int, size: tuple[int, int], seed: int = 0) -> Clip:
        if index % 3 == 2:
            raise ValueError(f"video {index} is damaged")
        frames = np.full((num_frames, *size, 3), index, np.uint8)
        return Clip(frames[0], frames, frames, None, 7.0, str(index))


def test_every_clip_comes_once_an_epoch_and_damaged_ones_are_replaced(caplog: pytest.LogCaptureFixture) -> None:
    samples = Samples(Numbered(), HandWindows(2), (16, 16), seed=3)
    places = [samples.place(number) for number in range(12)]
    assert sorted(places[:6]) == sorted(places[6:]) == [*range(6)] and places[:6] != places[6:]
    seen = [int(samples[number]["reference"][0, 0, 0, 0]) for number in range(6)]
    expected = [place if place % 3 != 2 else (place + 1) % 6 for place in places[:6]]
    assert seen == expected
    assert "video 2 is damaged" in caplog.text


def test_the_reference_opens_the_window() -> None:
    rng = np.random.default_rng(0)
    assert HandWindows(4).choose(4, False, rng) == (0, [1, 2, 3, 4])
    assert HandWindows(4).choose(3, True, rng) == (0, [0, 1, 2, 3])
    for _ in range(20):
        reference, window = HandWindows(4, reference="frame").choose(8, True, rng)
        assert window[0] == reference and 1 <= reference <= 8
        assert window[1:] == [*range(window[1], window[1] + 3)] and window[1] >= 1 and window[3] <= 8
    starts = {HandWindows(4).choose(8, True, rng)[1][1] for _ in range(100)}
    assert starts == {*range(1, 7)}
    with pytest.raises(ValueError, match="needs 4 frames"):
        HandWindows(4).choose(3, False, rng)


# --- what a run learns and leaves -----------------------------------------------------------------------------------


def fixed_loss(weights: Path, parts_folder: Path) -> float:
    """The loss of some noise on the first clip."""
    networks, parts = load_mimicmotion(weights), load_svd_parts(parts_folder / SVD_FOLDER)
    system = MimicMotionTraining(networks, parts, HandWindows(3), Recipe(dropout=0.0))
    return loss_on_clip(system, Puppets().clip(0, 3, (32, 32)))


@pytest.fixture(scope="module")
def cached_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on one clip of a latent cache, long enough to learn it, with validation."""
    accelerate.state.AcceleratorState._reset_state(True)
    folder = tmp_path_factory.mktemp("cached")
    settings = {"clips": 1, "batch": 2, "lr": 3e-3, "keep": 2, "checkpoint_every": 15, "log_every": 5}
    train(folder / "run", steps=45, validate_every=45, latent_cache=str(folder / "cache"), **settings)
    return folder


def test_one_clip_is_learned(cached_run: Path) -> None:
    first = cached_run / "start"
    train(first, steps=1, clips=1, lr=0.0)
    before, after = (
        fixed_loss(folder / EXPORT, cached_run / "parts")
        for folder in (first / "checkpoint-1", cached_run / "run/checkpoint-45")
    )
    assert after < 0.7 * before


def test_the_newest_checkpoints_are_kept_and_open(cached_run: Path) -> None:
    run = cached_run / "run"
    assert [path.name for path in checkpoints(run)] == ["checkpoint-30", "checkpoint-45"]
    networks = load_mimicmotion(run / "checkpoint-45" / EXPORT)
    parts = load_svd_parts(cached_run / "parts" / SVD_FOLDER)
    assert networks.window == 3
    clip = Puppets().clip(0, 2, (32, 32))
    with use(Runtime("cpu", torch.float32)):
        poses = [clip.reference_pose, *clip.pose_pictures]
        frames = list(animate(networks, parts, clip.reference, poses, Settings(steps=1, overlap=1)))
    assert [frame.shape for frame in frames] == [(32, 32, 3), (32, 32, 3)]


def test_validation_shows_the_clip_beside_the_truth(cached_run: Path) -> None:
    video = open_source(cached_run / "run/validation/step-000045-clip-0.mp4")
    assert (video.size, video.num_frames) == ((32, 128), 4)
    assert len(curve(cached_run / "run", "validation_PSNR")) == len(curve(cached_run / "run", "validation_SSIM")) == 1


def test_a_full_cache_needs_no_data(cached_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Puppets, "clip", lambda *_, **__: pytest.fail("a clip was made again"))
    monkeypatch.setattr(MimicMotionTraining, "encode_rows", lambda *_: pytest.fail("a clip was encoded again"))
    train(cached_run / "again", steps=1, clips=1, latent_cache=str(cached_run / "cache"))


def test_a_step_without_finite_gradients_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loss = MimicMotionTraining.loss

    def failing(system, module, batch, generators):
        value, logs = loss(system, module, batch, generators)
        return value * float("nan"), logs

    monkeypatch.setattr(MimicMotionTraining, "loss", failing)
    train(tmp_path / "run", steps=2, checkpoint_every=1)
    first, second = (tmp_path / "run" / f"checkpoint-{step}" / EXPORT for step in (1, 2))
    assert same(first, second)
    assert curve(tmp_path / "run", "skipped_steps") == [1, 2]


def test_pose_net_alone_in_half_precision_from_a_plain_unet(tmp_path: Path) -> None:
    """And with gradient checkpointing, another process that reads, and a float16 export."""
    parts = small_parts(tmp_path / "parts")
    unet = {name: t for name, t in load_file(parts / UNET_FILE).items() if name.startswith("unet.")}
    plain = tmp_path / "svd_unet.safetensors"
    save_file({name[5:]: t for name, t in unet.items()}, plain, {"config": json.dumps({"unet": UNTRAINED_UNET})})
    fresh = mimicmotion_start(TrainMimicMotion("puppets", svd=parts / SVD_FOLDER, unet=plain, frames=3))
    assert not fresh.pose_net.final_proj.weight.any()
    settings = {"train": "pose_net", "mixed_precision": "bf16", "gradient_checkpointing": True, "workers": 1}
    train(tmp_path / "run", config=None, unet=plain, steps=2, half=True, **settings)
    found = load_file(tmp_path / "run/checkpoint-2" / EXPORT)
    assert all(torch.equal(found[name], tensor) for name, tensor in unet.items())
    assert found["pose_net.final_proj.weight"].any() and found["pose_net.scale"].dtype == torch.float16
    assert load_file(tmp_path / "run/checkpoint-2/state/model.safetensors")["pose_net.scale"].dtype == torch.float32


# --- what users do wrong --------------------------------------------------------------------------------------------


def test_what_cannot_work_is_said_in_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no data set .*nowhere"):
        train(tmp_path / "run", data=str(tmp_path / "nowhere"))
    with pytest.raises(ValueError, match=r"40x32.*multiples of 16"):
        train(tmp_path / "run", size=(32, 40))
    with pytest.raises(ValueError, match="--clips"):
        train(tmp_path / "run", clips=None, latent_cache=str(tmp_path / "cache"))
    with pytest.raises(FileNotFoundError, match="no checkpoint of a training"):
        train(tmp_path / "run", resume=str(tmp_path))
    with pytest.raises(ValueError, match="one of --weights, --unet and --config"):
        TrainMimicMotion("puppets", svd=Path("svd"))
    with pytest.raises(ValueError, match="steps must be at least 1"):
        Loop(steps=0)
    with pytest.raises(ValueError, match="leave out --noise-aug"):
        TrainMimicMotion("puppets", svd=Path("svd"), config=Path("x"), latent_cache=Path("y"), noise_aug=0.1)


def test_a_checkpoint_of_other_settings_is_refused(cached_run: Path) -> None:
    cache = str(cached_run / "cache")
    with pytest.raises(ValueError, match=r"other settings: .*frames 3 \(now 2\).*lr 0.003 \(now 0.001\)"):
        train(cached_run / "run", clips=1, frames=2, latent_cache=cache)
    with pytest.raises(ValueError, match="earlier run"):
        train(cached_run / "run", resume="none", clips=1, latent_cache=cache)


def test_a_full_disk_leaves_the_checkpoint_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    export = MimicMotionTraining.export

    def full(system, folder, weights):
        if "checkpoint-2." in folder.name:
            raise OSError(errno.ENOSPC, "No space left on device")
        export(system, folder, weights)

    monkeypatch.setattr(MimicMotionTraining, "export", full)
    with pytest.raises(OSError, match=r"disk of .* is full.*checkpoint-1; free some space"):
        train(tmp_path / "run", steps=2, checkpoint_every=1)
    assert [path.name for path in (tmp_path / "run").iterdir() if "checkpoint" in path.name] == ["checkpoint-1"]


def test_missing_packages_are_named_with_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "accelerate", None)
    with pytest.raises(ImportError, match=r"comfyui-choreo\[train\]"):
        train(tmp_path / "run")
    monkeypatch.undo()
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(ImportError, match="bitsandbytes"):
        train(tmp_path / "run", eight_bit_adam=True)
