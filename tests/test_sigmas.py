"""Noise schedules descend from 700 to 0 and keep their published anchors."""

from __future__ import annotations

import pytest
import torch
from choreo.samplers.sigmas import (
    ALIGN_YOUR_STEPS,
    ays_sigmas,
    given_sigmas,
    initial_scale,
    karras_sigmas,
    lcm_sigmas,
    timesteps,
)


@pytest.mark.parametrize("schedule", [karras_sigmas, ays_sigmas, lcm_sigmas])
@pytest.mark.parametrize("steps", [1, 2, 7, 10, 25, 40])
def test_schedules_descend_to_zero(schedule, steps):
    sigmas = schedule(steps)
    assert sigmas.shape == (steps + 1,)
    assert sigmas.dtype == torch.float32
    assert sigmas[0] == pytest.approx(700, rel=1e-6)
    assert sigmas[-1] == 0
    assert (sigmas.diff() < 0).all()
    assert torch.isfinite(timesteps(sigmas)).all()


def test_karras_ends_at_sigma_min():
    assert karras_sigmas(25)[-2] == pytest.approx(0.002, rel=1e-5)
    assert karras_sigmas(5, 0.1, 3.0)[[0, -2]].tolist() == pytest.approx([3.0, 0.1], rel=1e-5)


def test_ten_steps_of_ays_are_its_anchors():
    assert ays_sigmas(10)[:-1].tolist() == pytest.approx(ALIGN_YOUR_STEPS[:-1])
    assert ays_sigmas(10, above_zero=True)[-1] == pytest.approx(0.002)
    assert ays_sigmas(9, above_zero=True)[-1] == 0


def test_given_sigmas_end_with_zero():
    assert given_sigmas([10, 1]).tolist() == [10, 1, 0]
    assert given_sigmas([10, 1, 0]).tolist() == [10, 1, 0]


@pytest.mark.parametrize("sigmas", [[], [0.0], [1, 2], [1, 1], [3, -1], [3, 0, 0], [float("nan")], [float("inf")]])
def test_sigmas_that_cannot_work_are_refused(sigmas):
    with pytest.raises(ValueError, match="sigmas"):
        given_sigmas(sigmas)


@pytest.mark.parametrize(("schedule", "steps"), [(karras_sigmas, 0), (ays_sigmas, -1), (lcm_sigmas, 41)])
def test_numbers_of_steps_that_cannot_work_are_refused(schedule, steps):
    with pytest.raises(ValueError, match="steps"):
        schedule(steps)


def test_initial_scale_belongs_to_the_largest_sigma():
    assert initial_scale(torch.tensor([3.0, 1.0, 0.0])) == pytest.approx(10**0.5)
