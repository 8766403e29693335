"""Training StableAnimator: what is trained, on what, and what comes out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from choreo.datasets.clips import Clip
from choreo.datasets.open import open_dataset
from choreo.datasets.puppets import Puppets
from choreo.datasets.reading import Reading
from choreo.media.pictures import save_picture
from choreo.media.video import open_source
from choreo.model_loaders.stableanimator import load_stableanimator
from choreo.model_loaders.untrained import UNTRAINED_FACE_ENCODER
from choreo.networks.id_attention import build_id_unet
from choreo.networks.pose_net import PoseNet
from choreo.quirks import CLEAN
from choreo.training import command
from choreo.training.lean import lean
from choreo.training.mimicmotion import MimicMotionTraining
from choreo.training.regions import face_shares
from choreo.training.samples import Mixed, Samples
from choreo.training.settings import Loop, TrainMimicMotion, TrainStableAnimator
from choreo.training.sigmas import InterpolatedCosine, stratified
from choreo.training.stableanimator import RECIPE, IdentityUNet, StableAnimatorTraining, choose_trained
from choreo.training.starts import from_mimicmotion, with_identity
from choreo.training.step import Draws, denoising_loss, noisy_clips
from choreo.training.windows import FaceWindows
from safetensors.torch import load_file

from .small_networks import scrambled, small_networks
from .training_job import train_identity

accelerate = pytest.importorskip("accelerate", reason="the extra `train` is not installed")
FILES = ("unet.safetensors", "pose_net.safetensors", "face_encoder.safetensors")


@pytest.fixture(autouse=True)
def one_thread_and_no_memory_of_other_runs():
    threads = torch.get_num_threads()
    accelerate.state.AcceleratorState._reset_state(True)
    yield
    torch.set_num_threads(threads)


class Colours:
    """Stands in for ArcFace: the colours of the picture's quarters, over and over."""

    def __call__(self, picture: np.ndarray) -> np.ndarray | None:
        height, width = picture.shape[:2]
        means = picture.reshape(2, height // 2, 2, width // 2, 3).mean(axis=(1, 3)).ravel() / 100
        return np.resize(means, 512).astype(np.float32)

    def fingerprint(self) -> str:
        return "colours"


class Nobody(Colours):
    def __call__(self, picture: np.ndarray) -> np.ndarray | None:
        return None


def small_module() -> IdentityUNet:
    networks = small_networks()[0]
    made = with_identity(networks.unet, networks.pose_net, 3, **UNTRAINED_FACE_ENCODER)
    return IdentityUNet(scrambled(made.unet, 1), made.pose_net, scrambled(made.face_encoder, 5))


# --- noise ----------------------------------------------------------------------------------------------------------


def test_noise_levels_run_from_most_to_least() -> None:
    levels = InterpolatedCosine()
    sigma = levels.sigma(torch.linspace(0, 1, 101))
    assert sigma[0].item() == pytest.approx(700, rel=1e-3) and sigma[-1].item() == pytest.approx(0.002, rel=1e-3)
    assert (sigma.diff() < 0).all() and sigma[50].item() == pytest.approx(0.71, rel=0.01)


def test_a_step_has_one_noise_level_of_every_stratum() -> None:
    drawn = Draws.of([torch.Generator().manual_seed(n) for n in range(8)], (1, 4, 1, 1), InterpolatedCosine()).level
    places = torch.tensor([7, 0, 3, 1, 2, 6, 4, 5])
    spread = stratified(drawn, places, 8)
    assert ((spread * 8).floor() == places).all() and (spread * 8 - places).sub(drawn).abs().max() < 1e-6


# --- the module -----------------------------------------------------------------------------------------------------


def step_inputs(recipe=RECIPE, dropout: float = 0.9) -> tuple[dict, object]:
    generator = torch.Generator().manual_seed(7)
    embeds = torch.randn(2, 1, 32, generator=generator)
    draws = Draws.of([torch.Generator().manual_seed(n) for n in (0, 1)], (3, 4, 4, 4), recipe.noise_levels())
    made = noisy_clips(
        torch.randn(2, 3, 8, 4, 4, generator=generator),
        torch.randn(2, 4, 4, 4, generator=generator),
        embeds,
        replace(draws, dropout=torch.full((2,), dropout)),
        noise_aug=torch.full((2,), 0.02),
        recipe=recipe,
        scaling=0.18215,
    )
    poses = torch.randint(0, 255, (2, 3, 32, 32, 3), dtype=torch.uint8, generator=generator)
    identity = torch.randn(2, 1, 512, generator=generator)
    return {**made.inputs(), "pose_pictures": poses, "picture": embeds, "identity": identity}, made


@pytest.mark.parametrize(
    ("recipe", "dropout", "picture", "latents", "faces"),
    [
        (RECIPE, 0.05, False, True, True),
        (RECIPE, 0.15, False, False, True),
        (RECIPE, 0.25, True, False, True),
        (RECIPE, 0.35, True, True, True),
        (replace(RECIPE, quirks=CLEAN), 0.15, False, False, False),
        (replace(RECIPE, quirks=CLEAN), 0.25, True, False, True),
    ],
)
def test_what_is_dropped(recipe, dropout: float, picture: bool, latents: bool, faces: bool) -> None:
    inputs, _ = step_inputs(recipe, dropout)
    names = ("image_embeds", "pose_share", "picture", "identity")
    with torch.no_grad():
        context = small_module().context(**{name: inputs[name] for name in names})
    assert context.shape == (2, 5, 32)
    assert (bool(context[:, :1].any()), bool(inputs["sample"][:, :, 4:].any())) == (picture, latents)
    assert bool(context[:, 1:].any()) == faces == bool(inputs["pose_share"].all())


def test_lean_training_has_the_same_loss_and_gradients() -> None:
    plain, quick = small_module(), small_module()
    for module in (plain, quick):
        choose_trained(module)
    lean(quick.unet)
    inputs, made = step_inputs()
    losses = [denoising_loss(module(**inputs), made).mean() for module in (plain, quick)]
    for loss in losses:
        loss.backward()
    assert torch.allclose(*losses, rtol=1e-5)
    expected = {name: parameter.grad for name, parameter in plain.named_parameters()}
    assert all((grad is not None) == (name[:5] != "unet." or "attentions" in name) for name, grad in expected.items())
    frozen = []
    for name, parameter in quick.named_parameters():
        if parameter.requires_grad:
            scale = float(expected[name].abs().max())
            assert torch.allclose(parameter.grad, expected[name], rtol=1e-3, atol=1e-4 * scale + 1e-7), name
        elif expected[name] is not None:
            frozen.append(name)
            assert expected[name].abs().max() < 1e-8, f"{name} has a gradient, but is frozen"
    assert any("attn2.to_k" in name for name in frozen) and not any("processor" in name for name in frozen)


def test_a_fresh_face_encoder_has_gradients_of_ordinary_size() -> None:
    """One that gives zeros, as published, has norms of 10,000 and more: the adapter divides by their deviation."""
    networks = small_networks()[0]
    made = with_identity(networks.unet, networks.pose_net, 3, **UNTRAINED_FACE_ENCODER)
    module = IdentityUNet(made.unet, made.pose_net, made.face_encoder)
    choose_trained(module)
    inputs, clips = step_inputs()
    denoising_loss(module(**inputs), clips).mean().backward()
    norms = [parameter.grad.norm() for parameter in module.parameters() if parameter.grad is not None]
    assert 0 < torch.stack(norms).norm() < 100


def test_a_start_at_mimicmotion_knows_the_drawings() -> None:
    networks = small_networks()[0]
    before, known = PoseNet(32), torch.rand(1, 3, 32, 32)
    before.load_state_dict(networks.pose_net.state_dict())
    context = torch.randn(1, 1, 32)
    made = from_mimicmotion(networks, **UNTRAINED_FACE_ENCODER)
    with torch.no_grad():
        assert torch.allclose(made.pose_net(known.flip(1)), before(known), atol=1e-6)
        assert made.face_encoder(torch.randn(1, 512), context).shape == (1, 4, 32)
    assert made.unet.state_dict().keys() == build_id_unet(made.unet.config).state_dict().keys() and made.window == 4


# --- data -----------------------------------------------------------------------------------------------------------


def test_faces_are_those_of_the_masks_else_of_the_poses() -> None:
    clip = Puppets(style="stableanimator").clip(0, 3, (64, 64))
    of_poses = face_shares(clip, (8, 8))
    assert of_poses.shape == (3, 8, 8) and (of_poses.flatten(1).sum(1) > 0).any() and of_poses.max() <= 1
    masks = np.zeros((3, 64, 64), np.uint8)
    masks[0, :8, 4:16] = masks[1] = 255
    shares = face_shares(replace(clip, faces=masks), (8, 8))
    assert shares[0, 0, :3].tolist() == [0.5, 1, 0] and shares[1:].sum() == 0, "a white mask singles nothing out"
    assert face_shares(replace(clip, poses=None), (8, 8)).sum() == 0


def test_the_reference_stays_outside_the_window() -> None:
    layout = FaceWindows(3)
    assert layout.choose(4, True, np.random.default_rng(0))[0] == 0
    windows = {tuple(layout.choose(4, True, np.random.default_rng(n))[1]) for n in range(20)}
    assert windows == {(1, 2, 3), (2, 3, 4)}
    encoded = {
        "poses": torch.zeros(5, 8, 8, 3),
        "faces": torch.zeros(5, 1, 1),
        "posed": torch.tensor([True]),
        "moments": torch.arange(5.0).view(5, 1, 1, 1).expand(5, 8, 1, 1),
        "embeds": torch.ones(1, 32),
        "identities": torch.ones(1, 512),
    }
    sample = layout.take(encoded, np.random.default_rng(0))
    assert sample["identity"].shape == (1, 512) and sample["image_embeds"].shape == (1, 32)
    assert not sample["image_latents"].any() and sample["moments"].all()


def test_folders_with_face_masks_and_lists_of_them(tmp_path: Path) -> None:
    for video in ("rec/one", "vec/two"):
        for index in range(6):
            for kind in ("images", "poses", "faces"):
                if (kind, index) != ("faces", 3):
                    save_picture(
                        tmp_path / video / kind / f"frame_{index}.png", np.full((8, 8, 3), 40 * index, np.uint8)
                    )
    (tmp_path / "vec.txt").write_text("vec/two\n\n", encoding="utf-8")
    source = open_dataset(tmp_path / "vec.txt", rate=1, colours="as stored")
    clip = source.clip(0, 4, (16, 8))
    first = int(clip.name.rpartition(" ")[2])
    assert len(source) == 1 and len(open_dataset(tmp_path)) == 2
    assert clip.faces.shape == (4, 16, 8) and clip.faces.dtype == np.uint8
    expected = [0 if n == 3 else 40 * n for n in range(first, first + 4)]
    assert clip.faces[:, 5, 5].tolist() == expected
    (tmp_path / "bad.txt").write_text("rec\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"bad.txt names .*rec, which has no imgs/"):
        open_dataset(tmp_path / "bad.txt")


class Grey:
    """Clips of a number and a size of their own."""

    def __init__(self, clips: int) -> None:
        self.clips = clips

    def __len__(self) -> int:
        return self.clips

    def clip(self, index: int, num_frames: int, size: tuple[int, int], seed: int = 0) -> Clip:
        frames = np.full((num_frames, *size, 3), index, np.uint8)
        return Clip(frames[0], frames, frames, None, 7.0, str(index))


def test_two_data_sets_take_turns_and_give_every_clip_once_an_epoch() -> None:
    sizes = ((16, 16), (32, 16))
    parts = [Samples(Grey(clips), FaceWindows(2), size) for clips, size in zip((5, 4), sizes, strict=True)]
    mixed = Mixed(parts, per_step=2, seed=1)
    steps = [[mixed[2 * step + row] for row in (0, 1)] for step in range(10)]
    seen = [(tuple(first["reference"].shape[1:3]), tuple(second["reference"].shape[1:3])) for first, second in steps]
    assert all(first == second for first, second in seen), "a step has one size"
    turns = [first for first, _ in seen]
    assert turns.count(sizes[0]) == 6 and turns.count(sizes[1]) == 4
    assert sorted(turns[:5]) == sorted(turns[5:]) == sorted([sizes[0]] * 3 + [sizes[1]] * 2) and turns[:5] != turns[5:]
    for size, clips in zip(sizes, (5, 4), strict=True):
        references = [sample["reference"] for step in steps for sample in step]
        own = [int(each[0, 0, 0, 0]) for each in references if tuple(each.shape[1:3]) == size]
        assert sorted(own[:clips]) == [*range(clips)]
    assert [int(sample["number"]) for step in steps for sample in step] == [*range(20)]


@pytest.mark.parametrize(("asked", "clip_frames", "given"), [(1, None, 3), (9, None, 9), (1, 5, 5)])
def test_videos_shorter_than_a_sample_are_left_out(tmp_path, monkeypatch, asked, clip_frames, given) -> None:
    class FoundError(Exception):
        pass

    def opened(_name, **options):
        raise FoundError(options["min_frames"])

    monkeypatch.setattr(command, "open_dataset", opened)
    job = TrainMimicMotion(
        "videos", svd=Path("tiny"), weights=Path("any"), frames=3, clip_frames=clip_frames, size=(32, 32)
    )
    monkeypatch.setattr(command, "mimicmotion_start", lambda _job: command.load_tiny()[0])
    monkeypatch.setattr(MimicMotionTraining, "check_size", lambda *_: None)
    with pytest.raises(FoundError, match=f"^{given}$"):
        command.train_mimicmotion(job, Loop(tmp_path), Reading(min_frames=asked))


# --- runs -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four steps through a latent cache, in one go; checkpoints after two and four."""
    accelerate.state.AcceleratorState._reset_state(True)
    folder = tmp_path_factory.mktemp("identity")
    train_identity(folder / "run", Colours(), batch=2, latent_cache=str(folder / "cache"))
    return folder


def weights(checkpoint: Path) -> dict[str, torch.Tensor]:
    return {f"{file}:{name}": t for file in FILES for name, t in load_file(checkpoint / file).items()}


def test_attentions_pose_net_and_face_encoder_are_trained(run: Path) -> None:
    before, after = (weights(run / f"run/checkpoint-{step}") for step in (2, 4))
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    never = {name for name in before if name.startswith("unet") and "attentions" not in name}
    assert not changed & never and any("transformer_blocks.0.attn1" in name for name in changed)
    assert any(name.endswith("processor.id_to_v.weight") for name in changed)
    assert {f"{FILES[1]}:scale", f"{FILES[2]}:proj.0.weight", f"{FILES[2]}:norm.weight"} <= changed


def test_a_run_goes_on_to_the_same_bits_with_a_cache_that_needs_no_recogniser(run: Path, tmp_path: Path) -> None:
    class Unasked(Colours):
        def __call__(self, picture):
            pytest.fail("a face was looked for again")

    (tmp_path / "parts").symlink_to(run / "parts")
    train_identity(tmp_path / "run", Unasked(), batch=2, latent_cache=str(run / "cache"), steps=2)
    train_identity(tmp_path / "run", Unasked(), batch=2, latent_cache=str(run / "cache"))
    whole, resumed = (weights(folder / "run/checkpoint-4") for folder in (run, tmp_path))
    assert whole.keys() == resumed.keys() and all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_a_checkpoint_opens_as_released_weights_do(run: Path) -> None:
    networks = load_stableanimator(run / "run/checkpoint-4")
    assert networks.window == 3 and networks.face_encoder.id_embeddings_dim == 512
    start = TrainStableAnimator("puppets", svd=Path("tiny"), weights=run / "run/checkpoint-4")
    again = command.stableanimator_start(start)
    assert all(torch.equal(t, again.unet.state_dict()[name]) for name, t in networks.unet.state_dict().items())


def test_two_sizes_without_a_cache_or_a_face(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The reference gets its noise, identity is zero, and the validation runs the real sampler."""
    sizes, loss = [], StableAnimatorTraining.loss

    def noting(system, module, batch, generators):
        sizes.append(tuple(batch["moments"].shape[-2:]))
        assert not batch["identity"].any() and batch["noise_aug"].tolist() == pytest.approx([0.02])
        return loss(system, module, batch, generators)

    monkeypatch.setattr(StableAnimatorTraining, "loss", noting)
    for index in range(8):
        for kind in ("images", "poses"):
            save_picture(tmp_path / f"vec/one/{kind}/{index}.png", np.full((32, 64, 3), 30 * index, np.uint8))
    more = {"more_data": str(tmp_path / "vec"), "more_size": (32, 64), "clips": 1}
    settings = {"steps": 2, "checkpoint_every": 2, "validate_every": 2, "unet_part": "none"}
    train_identity(tmp_path / "run", Nobody(), **settings, **more)
    assert sorted(sizes) == [(4, 4), (4, 8)]
    video = open_source(tmp_path / "run/validation/step-000002-clip-0.mp4")
    assert (video.size, video.num_frames) == ((32, 128), 4)


def test_what_cannot_work_is_said_in_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="one of --weights, --unet, --mimicmotion and --config"):
        TrainStableAnimator("puppets", svd=Path("svd"))
    with pytest.raises(FileNotFoundError, match=r"nowhere.onnx was not found"):
        train_identity(tmp_path / "run", None, face_detector="nowhere.onnx")
