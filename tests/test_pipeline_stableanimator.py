"""StableAnimator from pictures to frames: lengths, guidance, identity, sizes, mistakes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from choreo.conditioning.picture import lanczos_fit
from choreo.conditioning.stableanimator import condition, face_tokens
from choreo.networks.id_attention import id_adapters
from choreo.pipelines.stableanimator import Settings, animate, generate
from choreo.quirks import CLEAN, PUBLISHED_STABLEANIMATOR, Quirks
from choreo.runtime import Runtime, use
from choreo.samplers.svd import seeded_noise

from .small_networks import small_stableanimator

QUICK = Settings(steps=2, window=4, overlap=2)
FACE = np.random.default_rng(5).normal(size=512).astype(np.float32)


@pytest.fixture(scope="module")
def networks():
    return small_stableanimator()


@pytest.fixture(autouse=True)
def _on_the_cpu():
    with use(Runtime("cpu", torch.float32)):
        yield


def _picture(seed, height=32, width=32):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def _poses(frames, height=32, width=32):
    return [_picture(seed, height, width) for seed in range(1, frames + 1)]


def _latents(networks, frames=3, settings=QUICK, identity=FACE, **options):
    return generate(*networks, _picture(0), _poses(frames), settings, identity=identity, **options)


@pytest.mark.parametrize("frames", [1, 3, 6])
def test_one_frame_for_every_pose_also_of_clips_shorter_than_a_window(networks, frames):
    video = list(animate(*networks, _picture(0, 40, 56), iter(_poses(frames)), QUICK, identity=FACE))
    assert len(video) == frames
    assert all(frame.shape == (32, 32, 3) and frame.dtype == np.uint8 and frame.std() > 0 for frame in video)


@pytest.mark.parametrize(("guidance", "calls"), [((1.0, 1.0), 2), ((0.0, 1.0), 2), ((1.0, 1.5), 4)])
def test_the_unconditional_pass_is_left_out_up_to_guidance_1(networks, guidance, calls):
    seen = []
    handle = networks[0].unet.register_forward_hook(lambda *_: seen.append(1))
    first, last = guidance
    latents = _latents(networks, settings=replace(QUICK, guidance_first=first, guidance_last=last))
    handle.remove()
    assert len(seen) == calls and latents.isfinite().all()


def test_the_face_acts_as_strongly_as_asked(networks):
    with_face, without = _latents(networks), _latents(networks, identity=None)
    assert (with_face - without).abs().max() > 1e-2
    off = replace(QUICK, identity_strength=0.0)
    assert torch.equal(_latents(networks, settings=off), _latents(networks, identity=None, settings=off))
    assert {adapter.scale for adapter in id_adapters(networks[0].unet)} == {1.0}


def test_no_face_is_the_published_zeros(networks):
    encoder, clip = networks[0].face_encoder, torch.randn(1, 1, 32, generator=torch.Generator().manual_seed(0))
    nothing = face_tokens(encoder, None, clip)
    assert torch.equal(nothing, face_tokens(encoder, np.zeros(512, np.float32), clip))
    assert nothing.abs().max() > 0, "tokens are made all the same"
    assert (face_tokens(encoder, FACE, clip) - nothing).abs().max() > 0
    with pytest.raises(ValueError, match="512 numbers, got 16"):
        face_tokens(encoder, np.zeros(16), clip)
    with pytest.raises(FloatingPointError, match="face embedding"):
        face_tokens(encoder, np.full(512, np.nan), clip)


def _conditioned(networks, picture, poses, quirks=CLEAN):
    return condition(*networks, picture, poses, seeded_noise(0), size=(32, 32), identity=FACE, quirks=quirks)


def test_the_reference_is_cropped_for_the_vae_and_whole_for_clip(networks):
    wide, poses = _picture(0, 32, 64), _poses(1)
    middle = np.ascontiguousarray(wide[:, 16:48])
    whole, cut = _conditioned(networks, wide, poses), _conditioned(networks, middle, poses)
    assert torch.equal(whole.image_latents, cut.image_latents)
    assert (whole.image_embeds - cut.image_embeds).abs().max() > 1e-3
    stretched = _conditioned(networks, wide, poses, Quirks(stretched_reference=True))
    assert (stretched.image_latents - whole.image_latents).abs().max() > 1e-3
    assert torch.equal(stretched.image_embeds, whole.image_embeds)
    assert whole.image_embeds.shape == (1, 5, 32)
    assert whole.time_ids[0].tolist() == pytest.approx([6, 127, 0.02])


def test_a_picture_of_the_right_ratio_is_what_the_published_stretch_gives():
    picture = _picture(3, 96, 48)
    assert np.array_equal(lanczos_fit(picture, (64, 32)), lanczos_fit(picture, (64, 32), stretch=True))
    assert np.array_equal(lanczos_fit(picture, (96, 48)), picture)
    tall = lanczos_fit(np.vstack([np.zeros((40, 48, 3), np.uint8), picture, np.zeros((40, 48, 3), np.uint8)]), (96, 48))
    assert np.array_equal(tall, picture)


def test_pose_pictures_of_another_size_are_stretched(networks):
    from PIL import Image

    given = _picture(1, 48, 64)
    fitted = np.asarray(Image.fromarray(given).resize((32, 32), Image.Resampling.BICUBIC))
    ours, theirs = (_conditioned(networks, _picture(0), [pose]).pose_features[0] for pose in (given, fitted))
    assert torch.equal(ours, theirs)


def test_what_a_step_predicts_can_be_refined_and_a_run_goes_on_where_it_was(networks):
    kept, seen = {}, []

    def refine(x0, step):
        seen.append((step, tuple(x0.shape)))
        return x0 + 1

    latents = _latents(networks, on_step=lambda step, x: kept.update({step: x}))
    assert torch.equal(_latents(networks, resume=(1, kept[0])), latents)
    assert not torch.equal(_latents(networks, refine=refine), latents)
    assert seen == [(0, (3, 4, 4, 4)), (1, (3, 4, 4, 4))]


def test_published_settings_are_the_defaults():
    settings = Settings()
    assert (settings.steps, settings.guidance_first, settings.guidance_last) == (25, 3, 3)
    assert (settings.overlap, settings.noise_aug_strength, settings.decode_chunk) == (4, 0.02, 4)
    assert (settings.fps_id, settings.motion_bucket_id, settings.window) == (7, 127, None)
    assert PUBLISHED_STABLEANIMATOR.stretched_reference


def test_mistakes_are_explained_before_any_network_runs(networks):
    bad = {
        "overlap": (_poses(2), Settings(overlap=4), None),  # the networks' own window is 4
        "multiples of 16": (_poses(2, 40, 32), QUICK, None),
        "no pose pictures": ([], QUICK, None),
        "uint8": ([np.zeros((32, 32, 3))], QUICK, None),
    }
    handle = networks[0].pose_net.register_forward_pre_hook(lambda *_: pytest.fail("a network ran"))
    for words, (poses, settings, size) in bad.items():
        with pytest.raises(ValueError, match=words):
            generate(*networks, _picture(0), poses, settings, size=size)
    handle.remove()
    for values in ({"identity_strength": -1.0}, {"identity_strength": float("nan")}, {"overlap": 16, "window": 16}):
        with pytest.raises(ValueError, match=next(iter(values))):
            Settings(**values)
