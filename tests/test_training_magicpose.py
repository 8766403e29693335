"""Training MagicPose: what is trained in each stage, on what, and what comes out."""

from __future__ import annotations

import socket
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from choreo.conditioning.magicpose import MagicPoseConditioning, encode_poses
from choreo.datasets.clips import Clip
from choreo.datasets.published import TEST_SET, TRAIN_SET
from choreo.datasets.puppets import Puppets
from choreo.media.pictures import save_picture
from choreo.media.video import open_source
from choreo.model_loaders.magicpose import APPEARANCE_PREFIX, POSE_PREFIX, load_magicpose
from choreo.model_loaders.recognise import recognise
from choreo.model_loaders.sd15 import CONTROL_PREFIX, TEXT_PREFIX, UNET_PREFIX, VAE_PREFIX
from choreo.model_loaders.untrained_magicpose import untrained_magicpose
from choreo.model_loaders.weights import read_weights
from choreo.networks.appearance import dead_weights, transformer_blocks
from choreo.pipelines.magicpose import MagicPoseSettings, animate
from choreo.runtime import Runtime, use
from choreo.samplers.ddim import add_noise, schedule
from choreo.samplers.magicpose import ClipNoise, MagicPoseSampler
from choreo.training.checkpoints import checkpoints
from choreo.training.command import MAGICPOSE_LOOP, train_magicpose
from choreo.training.magicpose import (
    EXPORT,
    AppearanceControl,
    Draws,
    MagicPoseTraining,
    PairLayout,
    PairRecipe,
    choose_trained,
    noise_loss,
)
from choreo.training.settings import TrainMagicPose
from choreo.training.starts import magicpose_start
from choreo.training.validation import Validation
from safetensors.torch import load_file, save_file

from .test_training import curve, same, started
from .training_job import loss_on_clip, small_magicpose, train_pairs

accelerate = pytest.importorskip("accelerate", reason="the extra `train` is not installed")
SHAPE = (4, 4, 4)
HEIGHT = WIDTH = 32
PLAIN = PairRecipe()


@pytest.fixture(autouse=True)
def one_thread_and_no_memory_of_other_runs():
    threads = torch.get_num_threads()
    accelerate.state.AcceleratorState._reset_state(True)
    with use(Runtime("cpu", torch.float32)):
        yield
    torch.set_num_threads(threads)


def module(stage: int = 2, part: str = "both", fix_hint: bool = False) -> AppearanceControl:
    networks = untrained_magicpose()[0]
    made = AppearanceControl(networks if stage == 2 else replace(networks, controlnet=None)).train()
    networks.unet.train()
    choose_trained(made, part, fix_hint)
    return made


def inputs(batch: int = 2) -> SimpleNamespace:
    g = torch.Generator().manual_seed(7)
    return SimpleNamespace(
        frame=torch.randn(batch, *SHAPE, generator=g),
        reference=torch.randn(batch, *SHAPE, generator=g),
        draws=Draws.of([torch.Generator().manual_seed(number) for number in range(batch)], SHAPE),
        text=torch.randn(1, 5, 32, generator=g),
        poses=torch.randint(0, 256, (batch, HEIGHT, WIDTH, 3), generator=g, dtype=torch.uint8),
    )


def loss_of(made: AppearanceControl, given: SimpleNamespace, recipe: PairRecipe = PLAIN) -> torch.Tensor:
    return noise_loss(
        made, given.frame, given.reference, given.draws, text=given.text, pose_pictures=given.poses, recipe=recipe
    )


def gradients(made: AppearanceControl) -> dict[str, torch.Tensor | None]:
    return {name: parameter.grad for name, parameter in made.named_parameters() if parameter.requires_grad}


# --- a step ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stage", [1, 2])
def test_what_is_trained_gets_a_gradient_and_nothing_else_does(stage: int) -> None:
    """Else every process of a distributed run would wait for gradients that never come."""
    made = module(stage)
    loss_of(made, inputs()).backward()
    found = gradients(made)
    assert all(gradient is not None and gradient.isfinite().all() for gradient in found.values())
    assert all(gradient.any() for gradient in found.values())
    assert not any(parameter.requires_grad for parameter in made.unet.parameters())
    assert {name for name in found if name.startswith("appearance.")} == {
        f"appearance.{name}"
        for name, _ in made.appearance.named_parameters()
        if name not in dead_weights(made.appearance)
    }
    assert any(name.startswith("controlnet.") for name in found) == (stage == 2)


def test_parts_and_the_hint_encoder_can_be_left_as_they_are() -> None:
    def trained(**options) -> set[str]:
        return {name.split(".")[0] for name in gradients(module(**options))}

    assert trained(part="appearance") == {"appearance"} and trained(part="controlnet") == {"controlnet"}
    fixed = gradients(module(fix_hint=True))
    assert not any("cond_embedding" in name for name in fixed) and any("controlnet_mid" in name for name in fixed)
    with pytest.raises(ValueError, match="no ControlNet to train"):
        module(1, "controlnet")


def test_training_sees_what_the_sampler_shows() -> None:
    given, made = inputs(), module().eval()
    steps = schedule(5)
    t, noisy = steps.timesteps[2], torch.randn(2, *SHAPE)
    reference = given.reference[:1]
    share = torch.ones(2)
    with torch.no_grad():
        trained = made(
            latents=noisy,
            timesteps=t.expand(2),
            text=given.text.expand(2, -1, -1),
            reference=reference.expand(2, -1, -1, -1),
            pose_pictures=given.poses,
            pose_share=share,
        )
        made.release()
        networks = SimpleNamespace(unet=made.unet, appearance=made.appearance, controlnet=made.controlnet)
        conditioning = MagicPoseConditioning(reference, given.text, given.text)
        sampler = MagicPoseSampler(networks, conditioning, ClipNoise(noisy[:1]), steps)
        shown, plain = sampler.predictions(noisy, 2, encode_poses(made.controlnet, list(given.poses.numpy())))
    assert torch.allclose(trained, shown, atol=1e-5) and not torch.allclose(trained, plain, atol=1e-2)


def test_the_unet_goes_with_the_module_and_is_not_in_its_state() -> None:
    made = module()
    assert made.double().unet.dtype == torch.float64
    assert not any("unet" in name for name in made.state_dict())
    own = [block.attn1.processor for block in transformer_blocks(made.unet)]
    made.float()
    loss_of(made, inputs())
    assert [block.attn1.processor for block in transformer_blocks(made.unet)] != own
    made.release()
    assert [block.attn1.processor for block in transformer_blocks(made.unet)] == own


def test_computing_activations_twice_has_the_same_loss_and_gradients() -> None:
    given, plain, again = inputs(), module(), module()
    for network in (again.unet, again.appearance, again.controlnet):
        network.enable_gradient_checkpointing()
    losses = [loss_of(made, given) for made in (plain, again)]
    for loss in losses:
        loss.backward()
    assert torch.equal(*losses)
    others = gradients(again)
    for name, gradient in gradients(plain).items():
        assert torch.allclose(gradient, others[name], rtol=1e-4, atol=1e-7), name


def test_the_reference_is_clean_unless_it_is_to_be_noisy_and_poses_can_be_dropped() -> None:
    given, made = inputs(), module()
    with torch.no_grad():
        plain, noisy, dropped = (
            loss_of(made, given, recipe)
            for recipe in (PLAIN, PairRecipe(noisy_reference=True), PairRecipe(pose_dropout=1.0))
        )
        given.poses = torch.zeros_like(given.poses)
        assert torch.equal(dropped, loss_of(made, given)) and dropped != plain
        given = inputs()
        given.reference = add_noise(given.reference, given.draws.noise, given.draws.timesteps)
        assert torch.allclose(noisy, loss_of(made, given)) and noisy != plain


def test_random_numbers_of_a_sample_do_not_depend_on_its_batch() -> None:
    together = Draws.of([torch.Generator().manual_seed(number) for number in (5, 6)], SHAPE)
    alone = Draws.of([torch.Generator().manual_seed(6)], SHAPE)
    for name in ("posterior", "noise", "timesteps", "dropout"):
        assert torch.equal(getattr(together, name)[1:], getattr(alone, name))
    times = Draws.of([torch.Generator().manual_seed(number) for number in range(3000)], (1, 1, 1)).timesteps
    assert times.min() < 10 and times.max() > 989 and times.float().mean() == pytest.approx(499.5, abs=25)


def test_a_sample_is_a_frame_with_its_pose_and_a_reference() -> None:
    clip = Puppets(style="classic").clip(0, 4, (HEIGHT, WIDTH))
    clips = PairLayout(frames=4).rows(clip)
    rng, seen, others = np.random.default_rng(0), set(), set()
    for _ in range(60):
        sample = PairLayout().take(clips, rng)
        assert torch.equal(sample["pictures"][1], torch.from_numpy(clip.reference))
        number = next(f for f in range(4) if torch.equal(sample["poses"], torch.from_numpy(clip.pose_pictures[f])))
        assert torch.equal(sample["pictures"][0], torch.from_numpy(clip.frames[number]))
        seen.add(number)
        pair = PairLayout("frame").take(clips, rng)["pictures"]
        others.add(next(f for f in range(4) if torch.equal(pair[1], torch.from_numpy(clip.frames[f]))))
    assert seen == others == {0, 1, 2, 3}
    with pytest.raises(ValueError, match="a single colour"):
        PairLayout().rows(replace(clip, frames=np.full_like(clip.frames, 90)))


# --- runs -----------------------------------------------------------------------------------------------------------


def fixed_loss(weights: Path) -> float:
    """The loss of some noise on the first clip."""
    system = MagicPoseTraining(*load_magicpose(weights))
    return loss_on_clip(system, Puppets(style="classic").clip(0, 1, (HEIGHT, WIDTH)))


@pytest.fixture(scope="module")
def cached_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of stage 2 on one clip of a latent cache, long enough to learn it, with validation."""
    accelerate.state.AcceleratorState._reset_state(True)
    folder = tmp_path_factory.mktemp("cached")
    settings = {"clips": 1, "batch": 4, "lr": 2e-3, "checkpoint_every": 10, "log_every": 5, "validate_every": 20}
    settings |= {"latent_cache": str(folder / "cache"), "clip_frames": 2, "ema": 0.5}
    train_pairs(folder / "run", steps=20, **settings)
    return folder


def test_one_clip_is_learned_by_what_is_trained_and_the_rest_stays(cached_run: Path) -> None:
    before, after = cached_run / "parts", cached_run / "run/checkpoint-20" / EXPORT
    start = small_magicpose(before)
    assert fixed_loss(after) < 0.8 * fixed_loss(start)
    first, last = (read_weights(path) for path in (start, after))
    assert first.keys() == last.keys() and recognise(last).kind == "magicpose"
    for name, tensor in first.items():
        if name.startswith((UNET_PREFIX, VAE_PREFIX, TEXT_PREFIX)):
            assert torch.equal(tensor.float(), last[name]), name
    for prefix in (APPEARANCE_PREFIX, POSE_PREFIX):
        assert any(not torch.equal(t.float(), last[name]) for name, t in first.items() if name.startswith(prefix))


def test_the_checkpoint_animates_and_the_validation_shows_it(cached_run: Path) -> None:
    clip = Puppets(style="classic").clip(0, 2, (HEIGHT, WIDTH))
    networks, parts = load_magicpose(cached_run / "run/checkpoint-20" / EXPORT)
    frames = list(animate(networks, parts, clip.reference, clip.pose_pictures, MagicPoseSettings(steps=1)))
    assert [frame.shape for frame in frames] == 2 * [(HEIGHT, WIDTH, 3)]
    video = open_source(cached_run / "run/validation/step-000020-clip-0.mp4")
    assert (video.size, video.num_frames) == ((HEIGHT, 4 * WIDTH), 4)
    assert len(curve(cached_run / "run", "validation_PSNR")) == 1


def test_a_run_that_was_stopped_goes_on_to_the_same_weights(tmp_path: Path) -> None:
    settings = {"checkpoint_every": 2, "gradient_checkpointing": True, "pose_dropout": 0.5}
    train_pairs(tmp_path / "whole", steps=3, **settings)
    accelerate.state.AcceleratorState._reset_state(True)
    train_pairs(tmp_path / "parted", steps=2, **settings)
    accelerate.state.AcceleratorState._reset_state(True)
    train_pairs(tmp_path / "parted", steps=3, **settings)
    for file in (EXPORT, "state/model.safetensors"):
        assert same(tmp_path / "whole/checkpoint-3" / file, tmp_path / "parted/checkpoint-3" / file), file
    accelerate.state.AcceleratorState._reset_state(True)
    with pytest.raises(ValueError, match=r"other settings: .*pose_dropout 0\.5 \(now 0\.1\)"):
        train_pairs(tmp_path / "parted", steps=4, **settings | {"pose_dropout": 0.1})


def test_two_processes_are_one_with_twice_the_batch(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    place = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    small_magicpose(tmp_path / "parts")
    settings = {"magicpose": True, "steps": 2, "batch": 1}
    both = [started(tmp_path / "two", settings, RANK=rank, LOCAL_RANK=rank, **place) for rank in ("0", "1")]
    train_pairs(tmp_path / "one", steps=2, batch=2)
    for process in both:
        assert process.wait(timeout=600) == 0, process.stderr.read()
    assert curve(tmp_path / "two") == pytest.approx(curve(tmp_path / "one"), rel=1e-4)
    found, expected = (load_file(tmp_path / name / "checkpoint-2" / EXPORT) for name in ("two", "one"))
    assert all(torch.allclose(found[name], expected[name], atol=2e-4) for name in expected)


def test_stage_1_starts_from_a_plain_stable_diffusion_and_stage_2_from_stage_1(tmp_path: Path) -> None:
    whole = load_file(small_magicpose(tmp_path / "parts"))
    metadata = {"config": open_metadata(small_magicpose(tmp_path / "parts"))}
    plain, control = tmp_path / "sd15.safetensors", tmp_path / "control.safetensors"
    own = (UNET_PREFIX, VAE_PREFIX, TEXT_PREFIX)
    save_file({name: t for name, t in whole.items() if name.startswith(own)}, plain, metadata)
    pose = {
        CONTROL_PREFIX + name.removeprefix(POSE_PREFIX): t for name, t in whole.items() if name.startswith(POSE_PREFIX)
    }
    save_file(pose, control, metadata)
    networks, _ = magicpose_start(TrainMagicPose("puppets", stage=1, base=plain))
    copied = networks.appearance.state_dict()
    assert networks.controlnet is None and len(copied)
    assert all(torch.equal(tensor, networks.unet.state_dict()[name]) for name, tensor in copied.items())
    train_pairs(tmp_path / "one", weights=None, base=plain, stage=1, steps=1, half=True)
    stage1 = tmp_path / "one/checkpoint-1" / EXPORT
    assert recognise(read_weights(stage1)).kind == "magicpose_stage1"
    accelerate.state.AcceleratorState._reset_state(True)
    train_pairs(tmp_path / "two", weights=stage1, controlnet=control, stage=2, train="controlnet", steps=1)
    made = read_weights(tmp_path / "two/checkpoint-1" / EXPORT)
    assert recognise(made).kind == "magicpose"
    for name, tensor in read_weights(stage1).items():
        assert torch.equal(tensor.float(), made[name.replace(CONTROL_PREFIX, APPEARANCE_PREFIX)]), name
    with pytest.raises(FileNotFoundError, match="no pose ControlNet for stage 2"):
        magicpose_start(TrainMagicPose("puppets", weights=stage1))


def open_metadata(path: Path) -> str:
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        return file.metadata()["config"]


def test_tiktok_is_trained_on_and_its_test_set_validates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[Clip] = []
    animated = MagicPoseTraining.animate

    def animate_with(system, weights, clip, seed):
        shown.append(clip)
        return animated(system, weights, clip, seed)

    monkeypatch.setattr(MagicPoseTraining, "animate", animate_with)
    clip = Puppets(style="classic").clip(0, 4, (48, HEIGHT))
    for part, poses in (TRAIN_SET, TEST_SET):
        for number in range(4):
            save_picture(tmp_path / "set" / part / "00001" / f"{number:04d}.png", clip.frames[number])
            save_picture(tmp_path / "set" / poses / "00001" / f"{number:04d}.png", clip.pose_pictures[number])
    train_pairs(tmp_path / "run", data=str(tmp_path / "set"), clips=None, steps=1, validate_every=1, stage=2)
    (seen,) = shown
    middle = clip.frames[:, 8:40]
    assert np.array_equal(seen.reference, middle[0]) and np.array_equal(seen.frames, middle[1:])
    assert np.array_equal(seen.pose_pictures, clip.pose_pictures[1:, 8:40])


def test_validating_leaves_the_frozen_networks_as_they_were(tmp_path: Path) -> None:
    frozen = torch.nn.Linear(3, 3).requires_grad_(False)
    before = frozen.weight.clone()
    clip = Puppets().clip(0, 2, (HEIGHT, WIDTH))

    def animate_in_half(_weights, clip, _seed):
        frozen.half()
        return clip.frames

    system = SimpleNamespace(frozen=(frozen,), animate=animate_in_half)
    assert Validation(system, [clip], tmp_path)({}, 1)["validation SSIM"] == 1
    assert torch.equal(frozen.weight, before)


def test_what_cannot_work_is_said_in_a_sentence(tmp_path: Path) -> None:
    weights = small_magicpose(tmp_path / "parts")
    with pytest.raises(ValueError, match="Name --weights or --base"):
        TrainMagicPose("puppets")
    with pytest.raises(ValueError, match="Stage 1 has no ControlNet"):
        TrainMagicPose("puppets", weights=weights, stage=1, train="controlnet")
    with pytest.raises(ValueError, match="pose_dropout must be between 0 and 1"):
        TrainMagicPose("puppets", weights=weights, pose_dropout=2.0)
    with pytest.raises(ValueError, match="no poses to validate with"):
        train_magicpose(TrainMagicPose("puppets", weights=weights, stage=1), replace(MAGICPOSE_LOOP, validate_every=1))
    with pytest.raises(ValueError, match=r"40x32.*multiples of 16"):
        train_pairs(tmp_path / "run", size=(32, 40))
    assert not checkpoints(tmp_path / "run")
