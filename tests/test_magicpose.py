"""MagicPose's networks, its loop, and its way from pictures to frames, in small."""

from __future__ import annotations

import json
import weakref
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from choreo.conditioning.magicpose import encode_poses, fit_picture
from choreo.conditioning.text import encode_texts, tokenize
from choreo.model_loaders.motion_module import load_motion_module, read_motion_modules
from choreo.model_loaders.random_weights import random_weights
from choreo.model_loaders.untrained_magicpose import UNTRAINED_SD15_UNET, untrained_magicpose
from choreo.networks.appearance import compute_bank, dead_weights, reading, transformer_blocks
from choreo.networks.motion_module import build_motion_module, move
from choreo.networks.sd15_unet import build_sd15_unet, pose_residuals, predict_noise
from choreo.pipelines import magicpose
from choreo.pipelines.magicpose import MagicPoseSettings, animate, generate
from choreo.quirks import MAGICPOSE
from choreo.runtime import Runtime, use
from choreo.samplers.ddim import add_noise, alphas_cumprod, ddim_step, schedule
from safetensors.torch import save_file

SIZE = (64, 64)
SETTINGS = MagicPoseSettings(steps=3)
CLOSE = 1e-5  # of the largest value; other batches round differently


@pytest.fixture(scope="module")
def model():
    return untrained_magicpose()


@pytest.fixture(autouse=True)
def _cpu():
    with use(Runtime("cpu", torch.float32)):
        yield


def _pictures(number, seed=0, size=SIZE):
    return np.random.default_rng(seed).integers(0, 256, (number, *size, 3), dtype=np.uint8)


PICTURE, POSES = _pictures(1, 1)[0], _pictures(5, 2)


def _close(one, two):
    return bool((one - two).abs().max() <= CLOSE * two.abs().max())


def _counted(monkeypatch, network):
    """Batch sizes of the calls of a network."""
    calls, forward = [], network.forward

    def counting(sample, *arguments, **keywords):
        calls.append(len(sample))
        return forward(sample, *arguments, **keywords)

    monkeypatch.setattr(network, "forward", counting)
    return calls


# The appearance bank


def test_ending_early_changes_nothing_in_the_bank(model):
    ours = model[0].appearance
    whole = build_sd15_unet(UNTRAINED_SD15_UNET)
    whole.load_state_dict(ours.state_dict(), strict=False)
    latents, text = torch.randn(2, 4, 8, 8), torch.randn(2, 7, 32)
    with torch.no_grad():
        banks = [compute_bank(network, latents, torch.tensor(500), text) for network in (ours, whole)]
    assert len(banks[0]) == len(transformer_blocks(whole)) == 4
    assert all(torch.equal(one, two) for one, two in zip(*banks, strict=True))


def test_gradients_reach_all_that_has_an_effect(model):
    _, appearance = model[0].unet, untrained_magicpose()[0].appearance.requires_grad_(True)
    x, text = torch.randn(1, 4, 8, 8), torch.randn(1, 7, 32)
    with reading(model[0].unet, compute_bank(appearance, x, torch.tensor(5), text)):
        predict_noise(model[0].unet, x, torch.tensor(5), text).sum().backward()
    without = {name for name, parameter in appearance.named_parameters() if parameter.grad is None}
    assert without == dead_weights(appearance)


def test_what_is_read_is_attention_over_own_and_banked_tokens(model):
    block = transformer_blocks(model[0].unet)[0]
    own, banked = torch.randn(2, 64, 64), torch.randn(1, 16, 64)
    network = SimpleNamespace(transformer_blocks=[block])
    with torch.no_grad():
        expected = block.attn1(own, encoder_hidden_states=torch.cat([own, banked.expand(2, -1, -1)], 1))
        with reading(network, [banked]):
            assert torch.allclose(block.attn1(own), expected, atol=1e-5)


def test_readers_are_gone_after_an_error(model):
    before = [block.attn1.processor for block in transformer_blocks(model[0].unet)]
    bank = compute_bank(model[0].appearance, torch.randn(1, 4, 8, 8), torch.tensor(5), torch.randn(1, 7, 32))
    with pytest.raises(KeyboardInterrupt), reading(model[0].unet, bank):
        raise KeyboardInterrupt
    assert [block.attn1.processor for block in transformer_blocks(model[0].unet)] == before
    with pytest.raises(ValueError, match=r"bank has 3 entries, but the UNet has 4"), reading(model[0].unet, bank[:3]):
        pass


def test_hints_of_another_size_are_refused(model):
    features = encode_poses(model[0].controlnet, list(_pictures(1, size=(128, 64))))
    with pytest.raises(ValueError, match="64x64 pixels"):
        pose_residuals(model[0].controlnet, torch.randn(1, 4, 8, 8), torch.tensor(1), torch.randn(1, 7, 32), features)


# DDIM


@pytest.mark.parametrize("steps", [1, 2, 4, 5, 8, 10, 20, 25, 40, 50, 100, 200, 250, 500])
def test_divisors_of_1000_give_the_published_timesteps(steps):
    ours, published = schedule(steps), schedule(steps, quirks=MAGICPOSE)
    assert torch.equal(ours.timesteps, published.timesteps)
    assert len(ours) == steps


@pytest.mark.parametrize(
    ("steps", "published"), [(3, 3), (7, 8), (9, 9), (30, 31), (64, 67), (110, 111), (400, 500), (501, 999)]
)
def test_other_numbers_of_steps(steps, published):
    """Exactly as many as asked for; the published number only on request, without the timestep it breaks off at."""
    ours = schedule(steps)
    assert len(ours) == steps
    assert ours.timesteps.diff().max() < 0
    assert ours.timesteps.max() <= 999
    assert ours.timesteps.min() == 1
    asked = schedule(steps, quirks=MAGICPOSE)
    assert len(asked) == published
    breaks = 999 % (1000 // steps) == 0
    assert bool(ours.note) == bool(asked.note) == breaks
    if breaks:
        assert f"cannot do {steps} steps" in ours.note


def test_too_many_steps_become_all_there_are():
    assert len(schedule(5000)) == 999
    assert "999 are done" in schedule(5000).note
    with pytest.raises(ValueError, match="at least 1"):
        schedule(0)


@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_the_same_as_diffusers(eta):
    from diffusers import DDIMScheduler

    theirs = DDIMScheduler(
        beta_schedule="scaled_linear",
        beta_start=0.00085,
        beta_end=0.012,
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
        timestep_spacing="leading",
    )
    theirs.alphas_cumprod, theirs.final_alpha_cumprod = alphas_cumprod(), alphas_cumprod()[0]
    theirs.set_timesteps(20)
    ours, x = schedule(20, eta), torch.randn(2, 4, 8, 8)
    assert torch.equal(ours.timesteps, theirs.timesteps)
    for i, t in enumerate(ours.timesteps):
        noise, fresh = torch.randn(2, 2, 4, 8, 8)
        expected = theirs.step(noise, t, x, eta=eta, variance_noise=fresh).prev_sample
        x, _ = ddim_step(x, noise, ours, i, fresh)
        assert torch.allclose(x, expected, atol=2e-5)


def test_a_right_prediction_gives_the_picture():
    picture, noise, steps = torch.randn(1, 4, 8, 8), torch.randn(1, 4, 8, 8), schedule(10)
    noisy = add_noise(picture, noise, steps.timesteps[:1])
    x, denoised = ddim_step(noisy, noise, steps, 0)
    assert torch.allclose(denoised, picture, atol=1e-4)
    assert torch.allclose(x, add_noise(picture, noise, steps.timesteps[1:2]), atol=1e-4)


# From pictures to frames


def test_a_frame_does_not_depend_on_its_neighbours(model, monkeypatch):
    whole = generate(*model, PICTURE, iter(POSES), SETTINGS)
    assert whole.shape == (5, 4, 8, 8)
    assert whole.std(dim=0).max() > 0.01, "poses act"
    assert _close(generate(*model, PICTURE, POSES[3:4], SETTINGS), whole[3:4])
    assert _close(generate(*model, PICTURE, POSES, replace(SETTINGS, batch=2)), whole)
    monkeypatch.setattr(magicpose, "GROUP", 2)
    noisy = replace(SETTINGS, eta=1.0, noisy_reference=True)
    grouped = generate(*model, PICTURE, POSES, noisy)
    monkeypatch.setattr(magicpose, "GROUP", 64)
    assert _close(grouped, generate(*model, PICTURE, POSES, noisy))
    assert not _close(grouped, whole)


def test_a_bank_is_computed_once_a_step_for_the_clip(model, monkeypatch):
    monkeypatch.setattr(magicpose, "GROUP", 2)
    looks, frames = _counted(monkeypatch, model[0].appearance), _counted(monkeypatch, model[0].unet)
    generate(*model, PICTURE, POSES, SETTINGS)
    assert looks == [1, 1, 1]
    assert frames == [2, 1, 2, 2, 2, 2] * 2 + [1, 1, 1, 1, 1, 1], "one unconditional frame in the first step"


def test_memory_is_flat(model, monkeypatch):
    """Poses are read as they are needed, and features of finished groups are let go."""
    monkeypatch.setattr(magicpose, "GROUP", 2)
    read, behind, held = 0, [], []
    encode = magicpose.encode_poses

    def poses():
        nonlocal read
        for pose in np.tile(POSES, (3, 1, 1, 1)):
            read += 1
            yield pose

    def encoding(*arguments):
        features = encode(*arguments)
        held.append(weakref.ref(features))
        assert sum(reference() is not None for reference in held) <= 2
        return features

    monkeypatch.setattr(magicpose, "encode_poses", encoding)
    generate(
        *model, PICTURE, poses(), replace(SETTINGS, steps=1), on_step=lambda _step, x: behind.append(read - len(x))
    )
    assert read == 15
    assert max(behind) <= 2


def test_what_the_unconditional_prediction_is(model, monkeypatch):
    important = generate(*model, PICTURE, POSES[:1], SETTINGS)
    plain = generate(*model, PICTURE, POSES[:1], replace(SETTINGS, guidance=1.0))
    same = generate(*model, PICTURE, POSES[:1], replace(SETTINGS, control_mode="balance"))
    assert torch.equal(same, plain), "with equal texts both predictions of balance are one"
    assert not _close(important, plain)
    calls = _counted(monkeypatch, model[0].unet)
    generate(*model, PICTURE, POSES[:1], replace(SETTINGS, guidance=1.0))
    assert calls == [1, 1, 1]


def test_going_on_gives_the_same(model, monkeypatch):
    monkeypatch.setattr(magicpose, "GROUP", 2)
    kept = []
    settings = replace(SETTINGS, eta=0.5)
    whole = generate(*model, PICTURE, POSES, settings, on_step=lambda step, x: kept.append((step + 1, x)))
    assert [step for step, _ in kept] == list(range(1, 10))
    assert magicpose.num_steps(settings, len(POSES)) == 9
    for state in kept[::3]:
        assert _close(generate(*model, PICTURE, POSES, settings, resume=state), whole)


def test_fewer_frames_at_once_when_memory_is_short(model, monkeypatch):
    whole = generate(*model, PICTURE, POSES, SETTINGS)
    forward = model[0].unet.forward

    def short(sample, *arguments, **keywords):
        if len(sample) > 2:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
        return forward(sample, *arguments, **keywords)

    monkeypatch.setattr(model[0].unet, "forward", short)
    assert _close(generate(*model, PICTURE, POSES, SETTINGS), whole)


def test_nan_names_the_step(model, monkeypatch):
    forward, calls = model[0].unet.forward, []

    def broken(*arguments, **keywords):
        calls.append(1)
        factor = float("nan") if len(calls) == 3 else 1
        return tuple(part * factor for part in forward(*arguments, **keywords))

    monkeypatch.setattr(model[0].unet, "forward", broken)
    with pytest.raises(FloatingPointError, match="step 2 of 3"):
        generate(*model, PICTURE, POSES[:1], SETTINGS)


def test_pictures_of_other_kinds_and_sizes(model):
    grey, rgba = np.full((90, 120), 77, np.uint8), np.full((70, 200, 4), 50, np.uint8)
    frames = list(animate(*model, grey, [rgba, grey], SETTINGS, size=(64, 128)))
    assert [frame.shape for frame in frames] == [(64, 128, 3)] * 2
    assert np.array_equal(fit_picture(rgba, SIZE, "It"), np.full((*SIZE, 3), 50))
    assert np.array_equal(fit_picture(PICTURE, SIZE, "It"), PICTURE)
    with pytest.raises(ValueError, match="Pose picture 1 must be a uint8 array"):
        generate(*model, PICTURE, [POSES[0], POSES[0] / 255], SETTINGS)
    with pytest.raises(ValueError, match="at least one pose picture"):
        generate(*model, PICTURE, [], SETTINGS)
    with pytest.raises(ValueError, match="nearest sizes that fit"):
        generate(*model, PICTURE, POSES, SETTINGS, size=(60, 64))
    with pytest.raises(ValueError, match="no pose ControlNet"):
        generate(replace(model[0], controlnet=None), model[1], PICTURE, POSES, SETTINGS)


def test_inputs_are_not_edited(model):
    picture, poses = PICTURE.copy(), POSES.copy()
    list(animate(*model, picture, poses, replace(SETTINGS, eta=1.0, noisy_reference=True)))
    assert np.array_equal(picture, PICTURE)
    assert np.array_equal(poses, POSES)


# Texts


def test_the_empty_text_needs_no_vocabulary(model):
    tokens = tokenize("  ", model[1].text_encoder)
    assert tokens.shape == (1, 77)
    assert tokens[0, 0] == 49406
    assert (tokens[0, 1:] == 49407).all()
    with pytest.raises(ValueError, match="needs the vocabulary of CLIP"):
        tokenize("a dancer", model[1].text_encoder)


def test_texts_are_cut_and_filled_up(model, tmp_path):
    words = {"a</w>": 0, "b</w>": 1, "<|startoftext|>": 49406, "<|endoftext|>": 49407}
    (tmp_path / "vocab.json").write_text(json.dumps(words))
    (tmp_path / "merges.txt").write_text("#version: 0.2\n")
    assert tokenize("a b", model[1].text_encoder, tmp_path)[0, :5].tolist() == [49406, 0, 1, 49407, 49407]
    long = tokenize("a " * 100, model[1].text_encoder, tmp_path)[0].tolist()
    assert long == [49406, *75 * [0], 49407]
    one, two, three = encode_texts(model[1].text_encoder, ["a", "b", "a"], tmp_path)
    assert one.shape == (1, 77, 32)
    assert one is three
    assert not torch.equal(one, two)


# Motion modules


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("down_blocks.1.motion_modules.0", "down_blocks.1.motion_modules.0"),
        ("model.diffusion_model.input_blocks_motion_module.3.0", "down_blocks.1.motion_modules.1"),
        ("model.diffusion_model.output_blocks_motion_module.7.0", "up_blocks.2.motion_modules.1"),
    ],
)
def test_motion_modules_of_a_file(name, place, tmp_path):
    build = lambda: build_motion_module(64)  # noqa: E731
    weights = random_weights(build, 1, torch.float32)
    back = {"pos_embed": "attention_blocks.0.pos_encoder", "attn1": "attention_blocks.0", "attn2": "attention_blocks.1"}
    back |= {"norm1": "norms.0", "norm2": "norms.1", "norm3": "ff_norm"}
    named = {}
    for key, tensor in weights.items():
        parts = key.split(".")
        inside = ".".join([*parts[:2], back.get(parts[2], parts[2]), *parts[3:]]) if len(parts) > 3 else key
        named[f"{name}.temporal_transformer.{inside}"] = tensor
        if "pos_embed" in key:
            named[f"{name}.temporal_transformer.{inside.replace('blocks.0.pos', 'blocks.1.pos')}"] = tensor.clone()
    save_file(named, tmp_path / "mm.safetensors")
    found = read_motion_modules(tmp_path / "mm.safetensors")
    assert list(found) == [place]
    module = load_motion_module(found[place], tmp_path)
    features = torch.randn(4, 64, 2, 3)
    assert move(module, features, 2).shape == features.shape
    with pytest.raises(ValueError, match="24 frames at most"):
        move(module, features.repeat(25, 1, 1, 1), 25)
    with pytest.raises(ValueError, match="motion modules of AnimateDiff were expected"):
        save_file({"x": torch.zeros(1)}, tmp_path / "x.safetensors")
        read_motion_modules(tmp_path / "x.safetensors")
