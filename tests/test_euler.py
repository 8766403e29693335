"""Steps and guidance against what they must do on distributions with a known answer."""

from __future__ import annotations

import itertools

import torch
from choreo.samplers.animate_lcm import lcm_step
from choreo.samplers.euler import denoised_from_v, euler_step
from choreo.samplers.guidance import guidance_ramp, guide, needs_unconditional
from choreo.samplers.sigmas import karras_sigmas

X0 = torch.randn(3, 4, 2, 2, generator=torch.Generator().manual_seed(0))
NOISE = torch.randn(3, 4, 2, 2, generator=torch.Generator().manual_seed(1))


def _v(x, x0, sigma):
    """The v-prediction that means x0."""
    return (x / (sigma**2 + 1) - x0) * (sigma**2 + 1) ** 0.5 / sigma


def test_v_prediction_and_denoised_are_inverse():
    for sigma in torch.tensor([0.01, 1.0, 30.0]):
        x = X0 + sigma * NOISE
        torch.testing.assert_close(denoised_from_v(x, _v(x, X0, sigma), sigma), X0, rtol=1e-4, atol=1e-4)


def test_a_perfect_prediction_leads_to_the_clip_whatever_the_schedule():
    sigmas = karras_sigmas(6)
    x = X0 + sigmas[0] * NOISE
    for sigma, sigma_next in itertools.pairwise(sigmas):
        x = euler_step(x, X0, sigma, sigma_next)
        torch.testing.assert_close(x, X0 + sigma_next * NOISE, rtol=1e-4, atol=1e-3)


def test_steps_become_exact_on_a_gaussian():
    """Data N(0, 1): x0 = x / (sigma^2 + 1), and the flow maps x(sigma) to x / sqrt(sigma^2 + 1)."""
    sigmas = karras_sigmas(400)
    x = start = sigmas[0] * NOISE.double()
    for sigma, sigma_next in itertools.pairwise(sigmas):
        x = euler_step(x, x / (sigma**2 + 1), sigma, sigma_next)
    torch.testing.assert_close(x, start / (sigmas[0].double() ** 2 + 1) ** 0.5, rtol=0.01, atol=0.01)


def test_latents_keep_their_dtype_and_are_not_edited():
    x = (X0 * 10).half()
    before = x.clone()
    sigma = torch.tensor(3.0)
    stepped = euler_step(x, denoised_from_v(x, NOISE.half(), sigma), sigma, torch.tensor(1.0))
    assert stepped.dtype == torch.float16
    assert torch.equal(x, before)


def test_lcm_steps_add_fresh_noise_of_the_next_level():
    torch.testing.assert_close(lcm_step(X0, torch.tensor(2.0), NOISE), X0 + 2 * NOISE)


def test_guidance_rises_frame_by_frame():
    ramp = guidance_ramp(1.0, 3.0, 3)
    guided = guide(torch.zeros_like(X0), X0, ramp)
    torch.testing.assert_close(guided, X0 * torch.tensor([1.0, 2.0, 3.0]).view(-1, 1, 1, 1))
    torch.testing.assert_close(guide(NOISE, X0, torch.ones(3)), X0, rtol=1e-6, atol=1e-6)


def test_unconditional_pass_only_where_something_is_guided():
    assert not needs_unconditional(1.0, 1.0)
    assert not needs_unconditional(0.0, 1.0)
    assert needs_unconditional(1.0, 1.1)
    assert needs_unconditional(2.0, 1.0)
