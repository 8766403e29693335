"""The picture's geometry and values, CLIP preprocessing, and pose features of a streamed clip."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from choreo.conditioning.clip_image import clip_pixels, resize_with_antialiasing
from choreo.conditioning.mimicmotion import condition
from choreo.conditioning.picture import (
    centre_square,
    check_size,
    cover_crop,
    cover_size,
    to_signed,
    truncating_round_trip,
    video_size,
)
from choreo.conditioning.svd import encode_poses
from choreo.model_loaders.svd import SVDParts
from choreo.model_loaders.untrained import UNTRAINED_IMAGE_TOWER
from choreo.networks.image_tower import build_image_tower
from choreo.quirks import PUBLISHED
from choreo.runtime import Runtime, use
from choreo.samplers.svd import seeded_noise

from .small_networks import scrambled, small_networks


def _picture(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def networks():
    return small_networks()


@pytest.fixture(autouse=True)
def _on_the_cpu():
    with use(Runtime("cpu", torch.float32)):
        yield


def test_published_sizes():
    assert video_size(800, 600) == (1024, 576)
    assert video_size(600, 800) == video_size(700, 700) == (576, 1024)


@pytest.mark.parametrize("height", [37, 64, 201, 576, 1023])
@pytest.mark.parametrize("width", [36, 64, 200, 333, 1025])
@pytest.mark.parametrize("target", [(1024, 576), (64, 128), (128, 128)])
def test_a_cover_covers_and_hardly_more(height, width, target):
    size = cover_size(height, width, target)
    assert all(side - wanted >= 0 for side, wanted in zip(size, target, strict=True))
    assert min(side - wanted for side, wanted in zip(size, target, strict=True)) <= 1


def test_cover_crop_keeps_a_picture_that_fits_and_its_centre():
    picture = _picture(64, 128)
    before = picture.copy()
    assert np.array_equal(cover_crop(picture, (64, 128)), picture)
    assert np.array_equal(cover_crop(picture, (64, 64)), picture[:, 32:96])
    assert np.array_equal(picture, before)


def test_cover_crop_shows_both_ends_of_the_short_side():
    picture = np.zeros((90, 60, 3), np.uint8)
    picture[:, 0], picture[:, -1] = 255, 255
    cropped = cover_crop(picture, (128, 128))
    assert cropped.shape == (128, 128, 3)
    assert (cropped[:, [0, -1]] == 255).all()
    assert (cropped[:, 40:80] == 0).all()


@pytest.mark.parametrize(
    ("picture", "words"),
    [
        (_picture(1, 1), "only 1x1"),
        (_picture(20, 400), "crop it"),
        (np.zeros((64, 64, 4), np.uint8), "shape"),
        (np.zeros((64, 64, 3)), "uint8"),
    ],
)
def test_pictures_that_cannot_be_used_are_explained(picture, words):
    with pytest.raises(ValueError, match=words):
        cover_crop(picture, (64, 64))


def test_sizes_that_do_not_fit_name_the_nearest():
    check_size(1024, 576)
    with pytest.raises(ValueError, match="512x768, 576x768"):
        check_size(768, 540)
    with pytest.raises(ValueError, match="64x64"):
        check_size(0, 64)


def test_centre_square_is_the_middle():
    picture = _picture(40, 20)
    assert np.array_equal(centre_square(picture, 20), picture[10:30])


def test_round_trip_loses_what_it_published():
    values = torch.arange(256, dtype=torch.uint8)
    assert (truncating_round_trip(values) != values).sum() == 63
    assert (truncating_round_trip(values, torch.float16) != values).sum() == 20
    assert to_signed(values).aminmax() == (-1, 1)


def test_antialiased_resize_keeps_a_flat_picture_and_removes_stripes():
    flat = torch.full((1, 3, 90, 50), 0.3)
    torch.testing.assert_close(resize_with_antialiasing(flat, (28, 28)), torch.full((1, 3, 28, 28), 0.3))
    stripes = torch.arange(224 * 8).remainder(2).float().expand(1, 3, 300, -1)
    assert resize_with_antialiasing(stripes, (224, 224))[..., 4:-4].std() < 0.01


def test_squash_sees_the_borders_and_centre_crop_does_not():
    wide = np.zeros((100, 300, 3), np.uint8)
    wide[:, :90] = 255
    squashed, cropped = (clip_pixels(wide, method) for method in ("squash", "centre crop"))
    assert squashed.shape == cropped.shape == (1, 3, 224, 224)
    assert squashed[..., 0].min() > 1.5
    assert cropped.max() < 0
    with pytest.raises(ValueError, match="squash"):
        clip_pixels(wide, "stretch")


def test_pose_features_do_not_depend_on_how_frames_are_grouped(networks):
    pose_net = networks[0].pose_net
    poses = [_picture(32, 48, seed) for seed in range(19)]
    features = encode_poses(pose_net, iter(poses), (32, 48))
    assert len(features) == 19
    for pose, feature in zip(poses, features, strict=True):
        alone = pose_net(to_signed(torch.from_numpy(pose).permute(2, 0, 1))[None])[0]
        torch.testing.assert_close(feature, alone, rtol=1e-4, atol=1e-5)


def test_pose_features_take_the_dtype_of_the_runtime(networks):
    poses = [_picture(32, 32, seed) for seed in range(2)]
    pose_net = small_networks()[0].pose_net
    with use(Runtime("cpu", torch.bfloat16)):
        assert {feature.dtype for feature in encode_poses(pose_net, poses, (32, 32))} == {torch.bfloat16}


def test_poses_that_do_not_fit_are_explained(networks):
    pose_net = networks[0].pose_net
    with pytest.raises(ValueError, match=r"Pose picture 1 is 32x48 pixels.*48x32"):
        encode_poses(pose_net, [_picture(32, 48), _picture(48, 32)], (32, 48))
    with pytest.raises(ValueError, match="at least one driving pose"):
        condition(*networks, _picture(32, 48), [_picture(32, 48)], seeded_noise(0))
    with pytest.raises(ValueError, match="no pose pictures"):
        encode_poses(pose_net, [], (32, 48))


def test_conditioning_shapes_strength_and_noise(networks):
    picture, poses = _picture(32, 48), [_picture(32, 48, seed) for seed in range(3)]
    asked = []

    def noise(*shape):
        asked.append(shape)
        return torch.ones(shape)

    plain = condition(*networks, picture, poses, noise)
    strong = condition(*networks, picture, poses, noise, image_embed_strength=0.5, noise_aug_strength=0.3)
    assert asked == [(1, 3, 32, 48)] * 2
    assert plain.num_frames == 3
    assert plain.image_embeds.shape == (1, 1, 32)
    assert plain.image_latents.shape == (1, 4, 4, 6)
    assert plain.time_ids.tolist() == [[6, 127, 0]]
    torch.testing.assert_close(strong.image_embeds, plain.image_embeds * 0.5)
    assert not torch.allclose(strong.image_latents, plain.image_latents, atol=1e-3)


def test_the_picture_comes_to_the_size_of_the_tower(networks):
    tower = scrambled(build_image_tower(UNTRAINED_IMAGE_TOWER | {"image_size": 96}), 3)
    parts = SVDParts(networks[1].vae, tower)
    picture = _picture(32, 48)
    embeds = condition(networks[0], parts, picture, [picture] * 2, seeded_noise(0)).image_embeds
    torch.testing.assert_close(embeds[0], tower(clip_pixels(picture, size=96)).image_embeds)


def test_a_network_that_gives_nan_is_named(networks):
    parts = small_networks()[1]
    parts.vae.encoder.conv_in.weight.fill_(float("nan"))
    with pytest.raises(FloatingPointError, match="VAE latents"):
        condition(networks[0], parts, _picture(32, 32), [_picture(32, 32)] * 2, seeded_noise(0))


def test_published_round_trip_changes_the_picture_a_little(networks):
    picture, poses = _picture(32, 32), [_picture(32, 32)] * 2
    clean = condition(*networks, picture, poses, seeded_noise(0))
    published = condition(*networks, picture, poses, seeded_noise(0), quirks=PUBLISHED)
    difference = (clean.image_latents - published.image_latents).abs().max()
    assert 0 < difference < 0.1 * clean.image_latents.abs().max()
