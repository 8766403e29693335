"""The pure functions of a training step: noise, dropout, loss, hands."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from choreo.conditioning.svd import added_time_ids
from choreo.networks.svd_unet import predict
from choreo.pose.poses import LEFT_HAND, NUM_POINTS, RIGHT_HAND, Poses
from choreo.quirks import PUBLISHED
from choreo.samplers.euler import denoised_from_v
from choreo.training.lean import lean
from choreo.training.regions import hand_boxes, hand_shares, region_weights
from choreo.training.sigmas import LogNormal
from choreo.training.step import Draws, Recipe, denoising_loss, kept_conditions, noisy_clips, posterior_sample
from choreo.training.svd import PosedUNet

from .small_networks import small_networks

SHAPE = (3, 4, 4, 4)  # F, 4, h, w
RECIPE = Recipe()


def draws(batch: int = 1, dropout: float = 0.9) -> Draws:
    made = Draws.of([torch.Generator().manual_seed(number) for number in range(batch)], SHAPE)
    return Draws(made.posterior, made.noise, made.level, torch.full((batch,), dropout))


def clips(batch: int = 1, dropout: float = 0.9, recipe: Recipe = RECIPE):
    generator = torch.Generator().manual_seed(7)
    return noisy_clips(
        torch.randn(batch, 3, 8, 4, 4, generator=generator),
        torch.randn(batch, 4, 4, 4, generator=generator),
        torch.randn(batch, 1, 32, generator=generator),
        draws(batch, dropout),
        noise_aug=torch.full((batch,), 0.02),
        recipe=recipe,
        scaling=0.18215,
    )


def test_noise_levels_follow_the_distribution() -> None:
    made = Draws.of([torch.Generator().manual_seed(number) for number in range(2000)], (1, 1, 1, 1))
    moments = torch.zeros(2000, 1, 2, 1, 1)
    other = Recipe(LogNormal(0.1, 0.2))
    for recipe, mean, std in ((Recipe(), 0.7, 1.6), (Recipe(quirks=PUBLISHED), 1.6, 0.7), (other, 0.1, 0.2)):
        noisy = noisy_clips(
            moments,
            torch.zeros(2000, 1, 1, 1),
            torch.zeros(2000, 1, 1),
            made,
            noise_aug=torch.zeros(2000),
            recipe=recipe,
            scaling=1.0,
        )
        ln_sigma = noisy.timestep * 4
        assert ln_sigma.mean().item() == pytest.approx(mean, abs=0.1)
        assert ln_sigma.std().item() == pytest.approx(std, rel=0.05)


def test_a_clips_numbers_do_not_depend_on_its_batch() -> None:
    together = Draws.of([torch.Generator().manual_seed(number) for number in (5, 6)], SHAPE)
    alone = Draws.of([torch.Generator().manual_seed(6)], SHAPE)
    for name in ("posterior", "noise", "level", "dropout"):
        assert torch.equal(getattr(together, name)[1:], getattr(alone, name))


def test_a_perfect_prediction_costs_nothing_and_an_error_of_v_what_it_is() -> None:
    made = clips(2)
    v = (made.noisy / (made.sigma**2 + 1) - made.latents) * (made.sigma**2 + 1) ** 0.5 / made.sigma
    assert torch.allclose(denoised_from_v(made.noisy, v, made.sigma), made.latents, atol=1e-4)
    assert denoising_loss(v, made).max() < 1e-6
    assert torch.allclose(denoising_loss(v + 0.5, made), torch.tensor(0.25), atol=1e-3)


def test_hands_count_more() -> None:
    made = clips()
    v = torch.randn(1, *SHAPE, generator=torch.Generator().manual_seed(1))
    shares = torch.zeros(1, 3, 4, 4)
    assert torch.equal(denoising_loss(v, made, region_weights(shares, 10)), denoising_loss(v, made))
    assert torch.allclose(denoising_loss(v, made, region_weights(shares + 1, 10)), 10 * denoising_loss(v, made))
    shares[:, 1, 2:] = 1
    weighted = denoising_loss(v, made, region_weights(shares, 10))
    squared = (denoised_from_v(made.noisy, v, made.sigma) - made.latents) ** 2 * ((made.sigma**2 + 1) / made.sigma**2)
    inside = squared[0, 1, :, 2:].sum() / squared.numel()
    assert torch.allclose(weighted, denoising_loss(v, made) + 9 * inside)


def hands_at(left_score: float, right_score: float) -> Poses:
    """A person whose left hand lies in x 0.25..0.5, y 0.5..0.75 and whose right hand in x 0.75..1, y 0..0.25."""
    points, scores = np.zeros((1, 1, NUM_POINTS, 2)), np.zeros((1, 1, NUM_POINTS))
    for hand, corner, score in ((LEFT_HAND, (0.25, 0.5), left_score), (RIGHT_HAND, (0.75, 0.0), right_score)):
        points[0, 0, hand] = np.linspace(corner, np.add(corner, 0.25), 21)
        scores[0, 0, hand] = score
    return Poses(points, scores, np.ones((1, 1), bool), (64, 64), None)


def test_boxes_of_hands_that_were_seen_well() -> None:
    assert hand_boxes(hands_at(0.9, 0.9), (64, 64), margin=0) == [[(32, 48, 16, 32), (0, 16, 48, 64)]]
    assert hand_boxes(hands_at(0.9, 0.6), (64, 64), margin=0) == [[(32, 48, 16, 32)]]
    assert hand_boxes(hands_at(0.9, 0.6), (128, 64), margin=4 / 64) == [[(60, 100, 12, 36)]]
    one_weak = hands_at(0.9, 0.0)
    scores = one_weak.scores.copy()
    scores[0, 0, LEFT_HAND.start + 5] = 0.7
    assert hand_boxes(one_weak.with_points(one_weak.points, scores), (64, 64)) == [[]]


def test_boxes_reach_the_latents_as_shares() -> None:
    shares = hand_shares(hands_at(0.9, 0.9), (64, 64), (8, 8), threshold=0.7)
    assert shares.shape == (1, 8, 8)
    assert shares[0, 5, 2:4].eq(1).all() and shares[0, 7, 7] == 0 and shares.max() <= 1
    outside = Poses(hands_at(1, 1).points + 2, hands_at(1, 1).scores, np.ones((1, 1), bool), (64, 64))
    assert hand_shares(outside, (64, 64), (8, 8)).max() == 0


def test_dropout_has_three_kinds_of_one_chance_each() -> None:
    draw = (torch.arange(1000) + 0.5) / 1000
    embeds, latents, poses = kept_conditions(draw, 0.1)
    kinds = torch.stack([embeds, latents, poses]).T
    counts = {tuple(kind.tolist()): int((kinds == kind).all(dim=1).sum()) for kind in kinds.unique(dim=0)}
    assert counts == {(0.0, 1.0, 1.0): 100, (0.0, 0.0, 0.0): 100, (1.0, 0.0, 1.0): 100, (1.0, 1.0, 1.0): 700}
    assert kept_conditions(draw, 0.1, PUBLISHED)[2].all()
    assert all(kept.all() for kept in kept_conditions(draw, 0.0))


def test_without_condition_the_unet_sees_what_inference_shows_it() -> None:
    """The unconditional pass of `samplers.svd`: zero embedding, zero picture latents, no poses, the same time ids."""
    made = clips(dropout=0.15)
    assert not made.image_embeds.any() and not made.sample[:, :, 4:].any()
    assert torch.equal(made.time_ids, added_time_ids(7, 127, 0.02))
    networks, _parts = small_networks()
    module = PosedUNet(networks.unet, networks.pose_net)
    poses = torch.randint(0, 255, (1, 3, 32, 32, 3), dtype=torch.uint8)
    with torch.no_grad():
        trained = module(**made.inputs(), pose_pictures=poses)
        shown = predict(networks.unet, made.sample, made.timestep[0], made.image_embeds, made.time_ids)
    assert torch.allclose(trained, shown, atol=1e-5)


def test_time_ids_are_those_of_inference_unless_published() -> None:
    assert clips().time_ids.tolist() == [pytest.approx([6, 127, 0.02])]
    assert clips(recipe=Recipe(quirks=PUBLISHED)).time_ids.tolist() == [pytest.approx([6, 0.02, 127])]


def test_the_posterior_is_sampled() -> None:
    moments = torch.cat([torch.full((1, 4, 2, 2), 3.0), torch.full((1, 4, 2, 2), math.log(4.0))], dim=1)
    assert torch.allclose(posterior_sample(moments, torch.full((1, 4, 2, 2), 0.5)), torch.tensor(4.0))


@pytest.mark.parametrize("checkpointing", [False, True])
def test_lean_training_has_the_same_loss_and_gradients(checkpointing: bool) -> None:
    made_twice = (small_networks()[0] for _ in range(2))
    plain, quick = (PosedUNet(each.unet, each.pose_net).train().requires_grad_(True) for each in made_twice)
    lean(quick.unet)
    if checkpointing:
        quick.unet.enable_gradient_checkpointing()
    assert list(plain.state_dict()) == list(quick.state_dict())
    made, generator = clips(2), torch.Generator().manual_seed(3)
    poses = torch.randint(0, 255, (2, 3, 32, 32, 3), dtype=torch.uint8, generator=generator)
    losses = []
    for module in (plain, quick):
        v = module(**made.inputs(), pose_pictures=poses)
        losses.append(denoising_loss(v, made).mean())
        losses[-1].backward()
    assert torch.allclose(*losses, rtol=1e-5)
    expected = {name: parameter.grad for name, parameter in plain.named_parameters()}
    for name, parameter in quick.named_parameters():
        if parameter.requires_grad:
            scale = expected[name].abs().max()
            assert torch.allclose(parameter.grad, expected[name], rtol=1e-3, atol=1e-4 * float(scale) + 1e-7), name
        else:
            assert expected[name].abs().max() < 1e-8, f"{name} has a gradient, but is frozen"
