"""MimicMotion as a whole on small random networks, and the recorded cases that come with the tests."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from choreo.pipelines.mimicmotion import Settings, animate, size_multiple
from choreo.quirks import PUBLISHED
from choreo.runtime import Runtime, use

from .goldens.walk import PASS, find_cases, run_case
from .small_networks import small_networks

GOLDENS = Path(__file__).parent / "golden_files"
CASES = [case for case in find_cases(GOLDENS, ["mimicmotion"]) if "pose_align" not in case.name]
HEIGHT, WIDTH = 48, 32
QUICK = Settings(steps=2, overlap=2, decode_chunk=3)


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_recorded_case(case):
    result = run_case(case)
    assert result.status == PASS, str(result)


@pytest.fixture(scope="module")
def networks():
    return small_networks()


@pytest.fixture(autouse=True)
def _on_the_cpu():
    with use(Runtime("cpu", torch.float32)):
        yield


def _picture(seed, height=HEIGHT, width=WIDTH):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def _poses(frames):
    return [_picture(seed) for seed in range(1, frames + 2)]


def _animate(networks, frames=6, settings=QUICK, **options):
    return np.stack(list(animate(*networks, _picture(0), _poses(frames), settings, **options)))


@pytest.mark.parametrize("frames", [1, 2, 3, 6])
def test_one_frame_per_driving_pose_whatever_the_window(networks, frames):
    video = _animate(networks, frames)
    assert video.shape == (frames, HEIGHT, WIDTH, 3)
    assert video.dtype == np.uint8


def test_a_seed_is_a_video_and_settings_act(networks):
    video = _animate(networks)
    assert np.array_equal(video, _animate(networks))
    changes = {"seed": 43, "pose_strength": 0.2, "schedule": "ays", "image_embed_strength": 0.0, "fps_id": 30}
    for name, value in changes.items():
        changed = _animate(networks, settings=Settings(steps=2, overlap=2, decode_chunk=3, **{name: value}))
        assert not np.array_equal(video, changed), name


@pytest.mark.parametrize(
    "settings",
    [
        Settings(steps=2, sampler="animate_lcm", overlap=2),
        Settings(sigmas=(700.0, 3.0), overlap=2),
        Settings(steps=1, window=3, overlap=1, guidance_first=1.0, guidance_last=1.0),
        Settings(steps=2, overlap=2, clip_method="centre crop", quirks=PUBLISHED),
    ],
)
def test_other_ways_of_sampling_work(networks, settings):
    assert _animate(networks, settings=settings).std() > 0


def test_pictures_and_networks_are_not_edited(networks):
    picture, poses = _picture(0), _poses(3)
    copies = [array.copy() for array in (picture, *poses)]
    modules = [networks[0].unet, networks[0].pose_net, networks[1].vae, networks[1].image_encoder]
    weights = [{name: tensor.clone() for name, tensor in module.state_dict().items()} for module in modules]
    list(animate(*networks, picture, iter(poses), QUICK))
    for array, copy in zip((picture, *poses), copies, strict=True):
        assert np.array_equal(array, copy)
    for module, before in zip(modules, weights, strict=True):
        assert all(torch.equal(tensor, before[name]) for name, tensor in module.state_dict().items())


def test_poses_are_read_a_few_at_a_time(networks):
    read = []

    def poses():
        for seed in range(40):
            read.append(seed)
            yield _picture(seed)

    seen = []
    handle = networks[0].pose_net.register_forward_pre_hook(lambda *_: seen.append(len(read)))
    try:
        frames = animate(*networks, _picture(0), poses(), Settings(steps=1, window=16))
        next(frames)
        frames.close()
    finally:
        handle.remove()
    assert seen == [16, 32, 40]


def test_the_runtime_gives_the_dtype_and_only_moves_what_it_uses():
    networks = small_networks()
    moves = []

    class Watcher(Runtime):
        def progress(self, stage, done, total):
            moves.append(stage)

    with use(Watcher("cpu", torch.bfloat16)):
        video = _animate(networks)
    assert video.std() > 0
    assert networks[0].unet.dtype == torch.bfloat16
    assert list(dict.fromkeys(moves)) == ["pose features", "sampling", "decoding"]


def test_bad_input_is_explained_before_any_work(networks):
    def never():
        raise AssertionError("a pose was read")
        yield

    assert size_multiple(*networks) == 16
    with pytest.raises(ValueError, match="multiples of 16"):
        animate(*networks, _picture(0, 40, 32), never(), QUICK)
    with pytest.raises(ValueError, match="only 1x1"):
        animate(*networks, _picture(0, 1, 1), never(), QUICK)
    with pytest.raises(ValueError, match="overlap"):
        animate(*networks, _picture(0), never(), Settings(overlap=4))  # the networks' own window is 4
    with pytest.raises(ValueError, match="Pose picture 2"):
        next(animate(*networks, _picture(0), [_picture(1), _picture(2), _picture(3, 64, 64)], QUICK))


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"steps": 0}, "steps"),
        ({"sampler": "ddim"}, "euler, animate_lcm"),
        ({"schedule": "linear"}, "karras, ays"),
        ({"clip_method": "pad"}, "squash"),
        ({"guidance_last": float("nan")}, "guidance_last"),
        ({"pose_strength": -1.0}, "pose_strength"),
        ({"pose_start": 0.7, "pose_end": 0.2}, "pose_start"),
        ({"decode_chunk": 0}, "decode_chunk"),
        ({"window": 1, "overlap": 1}, "window"),
        ({"window": 16, "overlap": 16}, "overlap"),
        ({"sampler": "animate_lcm", "schedule": "ays"}, "noise levels"),
        ({"sampler": "animate_lcm", "steps": 50}, "40 steps"),
        ({"sigmas": (1.0, 2.0)}, "descend"),
    ],
)
def test_settings_that_cannot_work_are_explained(values, words):
    with pytest.raises(ValueError, match=words):
        Settings(**values)


def test_cancel_stops_within_one_call_and_takes_the_hooks_away(networks):
    calls = []

    class Impatient(Runtime):
        def check_cancelled(self):
            if len(calls) == 2:
                raise KeyboardInterrupt

    handle = networks[0].unet.register_forward_hook(lambda *_: calls.append(1))
    with use(Impatient("cpu", torch.float32)), pytest.raises(KeyboardInterrupt):
        _animate(networks)
    handle.remove()
    assert len(calls) == 2
    assert not any("forward" in vars(part) or part._forward_pre_hooks for part in networks[0].unet.modules())
