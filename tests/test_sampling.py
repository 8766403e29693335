"""The sampling loop with stand-in UNets: what is asked, in which order, and what comes out."""

from __future__ import annotations

import pytest
import torch
from choreo.conditioning.svd import SVDConditioning, added_time_ids
from choreo.quirks import PUBLISHED, WRAPPER
from choreo.runtime import Runtime, use
from choreo.samplers.sigmas import karras_sigmas, lcm_sigmas
from choreo.samplers.svd import PoseUse, sample_svd, seeded_noise

STEPS, WINDOW, OVERLAP = 3, 4, 2


def _conditioning(frames):
    generator = torch.Generator().manual_seed(frames)

    def values(*shape):
        return torch.randn(shape, generator=generator)

    return SVDConditioning(values(1, 1, 8), values(1, 4, 6, 2), added_time_ids(7, 127, 0.0), values(frames, 5, 6, 2))


class StandIn:
    """A closed-form UNet that mixes frames and remembers how it was called."""

    def __init__(self):
        self.calls = []

    def __call__(self, sample, timestep, image_embeds, time_ids, pose_features):
        self.calls.append((sample.shape, pose_features, image_embeds, timestep))
        v = 0.3 * sample[:, :, :4] + 0.1 * sample.mean(1, keepdim=True)[:, :, 4:] + 0.05 * timestep
        v = v + image_embeds.mean((1, 2)).view(-1, 1, 1, 1, 1) + 0.01 * time_ids.mean()
        if pose_features is not None:
            v = v + pose_features.mean(1, keepdim=True).unflatten(0, sample.shape[:2])
        return v


def _sample(predict=None, frames=9, seed=0, steps=STEPS, **options):
    options = {"window": WINDOW, "overlap": OVERLAP, "sigmas": karras_sigmas(steps)} | options
    return sample_svd(predict or StandIn(), _conditioning(frames), seeded_noise(seed), **options)


@pytest.fixture(autouse=True)
def _on_the_cpu():
    with use(Runtime("cpu", torch.float32)):
        yield


def test_a_seed_is_a_video():
    assert torch.equal(_sample(seed=3), _sample(seed=3))
    assert not torch.allclose(_sample(seed=3), _sample(seed=4), atol=0.01)
    assert _sample().dtype == torch.float32


def test_noise_repeats_every_window_and_does_not_follow_the_length():
    latents = []

    def keep(sample, timestep, image_embeds, time_ids, pose_features):
        latents.append(sample[0, :, :4])
        return torch.zeros_like(sample[:, :, :4])

    for frames in (3, 9):
        _sample(keep, frames=frames, guidance=(1.0, 1.0), seed=5, steps=1)
    assert torch.equal(latents[0], latents[1][:3])
    assert torch.equal(latents[2][2], latents[1][0])  # windows 0 1 2 3 and 0 3 4 5: frame 4 has the noise of frame 0


@pytest.mark.parametrize("frames", [2, 4, 9])
@pytest.mark.parametrize("guidance", [(2.0, 2.0), (1.0, 3.0)])
def test_both_passes_at_once_equal_one_after_the_other(frames, guidance):
    together, apart = StandIn(), StandIn()
    one = _sample(together, frames, guidance=guidance, batch_passes=True)
    two = _sample(apart, frames, guidance=guidance, batch_passes=False)
    torch.testing.assert_close(one, two, rtol=1e-5, atol=1e-5)
    assert {shape[0] for shape, *_ in together.calls} == {2}
    assert {shape[0] for shape, *_ in apart.calls} == {1}
    assert len(apart.calls) == 2 * len(together.calls)


def test_the_cpu_takes_one_pass_at_a_time():
    stand_in = StandIn()
    _sample(stand_in)
    assert {shape[0] for shape, *_ in stand_in.calls} == {1}


def test_no_unconditional_pass_without_guidance():
    stand_in = StandIn()
    plain = _sample(stand_in, frames=4, guidance=(1.0, 1.0))
    assert len(stand_in.calls) == STEPS
    torch.testing.assert_close(plain, _sample(frames=4, guidance=(1.0, 1.0 + 1e-6)), rtol=1e-4, atol=1e-4)


def test_guidance_below_one_leans_towards_the_unconditional_pass_where_published():
    low, zero, plain = (
        _sample(frames=4, guidance=(strength, strength), quirks=WRAPPER) for strength in (0.25, 0.0, 1.0)
    )
    torch.testing.assert_close(plain, _sample(frames=4, guidance=(1.0, 1.0)), rtol=1e-4, atol=1e-4)
    assert (low - zero).abs().max() < 0.5 * (low - plain).abs().max()


def test_the_unconditional_pass_sees_neither_picture_nor_pose():
    stand_in = StandIn()
    seen = []

    def predict(sample, *inputs, pose_features):
        seen.append((sample[0, :, 4:], inputs[1], pose_features))
        return stand_in(sample, *inputs, pose_features=pose_features)

    _sample(predict, frames=4, batch_passes=False)
    for latents, embeds, pose in seen[::2]:
        assert not latents.any()
        assert not embeds.any()
        assert pose is None
    for latents, embeds, pose in seen[1::2]:
        assert latents.any()
        assert embeds.any()
        assert pose.shape == (4, 5, 6, 2)


def test_poses_act_in_their_share_of_the_steps_and_with_their_strength():
    stand_in = StandIn()
    _sample(stand_in, frames=4, steps=10, guidance=(1.0, 1.0), pose_use=PoseUse(0.5, 0.2, 0.4))
    with_poses = [pose is not None for _, pose, *_ in stand_in.calls]
    assert with_poses == [False] * 2 + [True] * 3 + [False] * 5
    torch.testing.assert_close(stand_in.calls[3][1], _conditioning(4).pose_features * 0.5)
    assert not PoseUse(0.0).active(0, 10)
    assert all(PoseUse().active(step, 10) for step in range(10))


def test_memory_that_runs_out_is_met_with_one_pass_at_a_time():
    stand_in, sizes = StandIn(), []

    def predict(sample, *inputs, **keywords):
        sizes.append(len(sample))
        if len(sample) > 1:
            raise torch.OutOfMemoryError("full")
        return stand_in(sample, *inputs, **keywords)

    latents = _sample(predict, batch_passes=True)
    torch.testing.assert_close(latents, _sample(batch_passes=False))
    assert sizes.count(2) == 1

    def never(*_inputs, **_keywords):
        raise torch.OutOfMemoryError("full")

    with pytest.raises(MemoryError, match="predicting 4 frames"):
        _sample(never)


def test_nan_names_step_and_window():
    stand_in = StandIn()

    def predict(sample, *inputs, **keywords):
        v = stand_in(sample, *inputs, **keywords)
        return v * float("nan") if len(stand_in.calls) == 6 else v

    # 9 frames are 4 windows of one pass each, so the sixth call is step 2, window 2
    with pytest.raises(FloatingPointError, match="step 2 of 3, window 2 of 4"):
        _sample(predict, guidance=(1.0, 1.0))


class Watcher(Runtime):
    def __init__(self, stop_after=10**9):
        super().__init__("cpu", torch.float32)
        self.stop_after, self.checks, self.reports, self.previews = stop_after, 0, [], []

    def check_cancelled(self):
        self.checks += 1
        if self.checks > self.stop_after:
            raise KeyboardInterrupt

    def progress(self, stage, done, total):
        self.reports.append((stage, done, total))

    def preview(self, denoised):
        self.previews.append(denoised.shape)


def test_cancel_stops_before_the_next_call():
    stand_in = StandIn()
    with use(Watcher(stop_after=3)), pytest.raises(KeyboardInterrupt):
        _sample(stand_in, batch_passes=False)
    assert len(stand_in.calls) == 3


def test_progress_counts_windows_and_preview_shows_steps():
    with use(Watcher()) as watcher:
        _sample(frames=9)
    assert watcher.reports == [("sampling", done, 4 * STEPS) for done in range(1, 4 * STEPS + 1)]
    assert watcher.previews == [(9, 4, 6, 2)] * STEPS


def test_half_precision_keeps_latents_in_float32():
    kept = []
    latents = _sample(dtype=torch.float16, on_step=lambda _, x: kept.append(x))
    assert {x.dtype for x in kept} == {torch.float32}
    torch.testing.assert_close(latents, _sample(), rtol=0.05, atol=0.05)
    kept.clear()
    published = _sample(dtype=torch.float16, quirks=PUBLISHED, on_step=lambda _, x: kept.append(x))
    assert {x.dtype for x in kept} == {torch.float16}
    torch.testing.assert_close(published, latents, rtol=0.1, atol=0.1)
    kept.clear()
    lcm = {"sampler": "animate_lcm", "sigmas": lcm_sigmas(4), "dtype": torch.float16, "quirks": PUBLISHED}
    _sample(**lcm, on_step=lambda _, x: kept.append(x))
    assert {x.dtype for x in kept} == {torch.float16}


def test_animate_lcm_ends_on_a_denoised_clip_and_draws_noise_between():
    one = _sample(sampler="animate_lcm", sigmas=lcm_sigmas(4))
    assert torch.isfinite(one).all()
    assert torch.equal(one, _sample(sampler="animate_lcm", sigmas=lcm_sigmas(4)))
    asked = []

    def noise(*shape):
        asked.append(shape)
        return torch.zeros(shape)

    sample_svd(StandIn(), _conditioning(9), noise, sigmas=lcm_sigmas(3), window=4, overlap=2, sampler="animate_lcm")
    assert asked == [(1, 4, 4, 6, 2)] + [(1, 9, 4, 6, 2)] * 2


@pytest.mark.parametrize("sampler", ["euler", "animate_lcm"])
def test_a_refinement_sees_every_prediction_and_is_stepped_towards(sampler):
    seen = []

    def refine(x0, step):
        seen.append((step, x0.clone()))
        return torch.zeros_like(x0) if step == STEPS - 1 else x0

    sigmas = (karras_sigmas if sampler == "euler" else lcm_sigmas)(STEPS)
    plain = _sample(sampler=sampler, sigmas=sigmas)
    refined = _sample(sampler=sampler, sigmas=sigmas, refine=refine)
    assert [step for step, _ in seen] == list(range(STEPS))
    torch.testing.assert_close(seen[-1][1], plain)  # at sigma 0 the video is the last prediction
    torch.testing.assert_close(refined, torch.zeros_like(plain))
