"""PoseNet and the SVD networks: shapes, hooks that leave nothing behind, no memory on the meta device."""

from __future__ import annotations

import pytest
import torch
from choreo.model_loaders.assemble import skeleton
from choreo.model_loaders.random_weights import random_weights
from choreo.model_loaders.untrained import UNTRAINED_IMAGE_TOWER, UNTRAINED_UNET, UNTRAINED_VAE
from choreo.networks.image_tower import build_image_tower
from choreo.networks.pose_net import PoseNet
from choreo.networks.svd_unet import build_unet, predict
from choreo.networks.video_vae import build_video_vae

FRAMES, HEIGHT, WIDTH = 3, 6, 4


@pytest.fixture(scope="module")
def unet():
    module = build_unet(UNTRAINED_UNET)
    module.load_state_dict(random_weights(lambda: build_unet(UNTRAINED_UNET), seed=0, dtype=torch.float32))
    return module.eval().requires_grad_(False)


def _inputs(batch=1):
    generator = torch.Generator().manual_seed(0)
    sample = torch.randn(batch, FRAMES, 8, HEIGHT, WIDTH, generator=generator)
    embeds = torch.randn(batch, 1, 32, generator=generator)
    pose = torch.randn(batch * FRAMES, 32, HEIGHT, WIDTH, generator=generator)
    return (sample, 0.7, embeds, torch.tensor([[6.0, 127.0, 0.0]]).repeat(batch, 1)), pose


def _num_hooks(module):
    return sum(len(part._forward_hooks) + len(part._forward_pre_hooks) for part in module.modules())


def test_fresh_pose_net_adds_nothing_and_has_the_published_size():
    pose_net = PoseNet()
    assert sum(p.numel() for p in pose_net.parameters()) == 205_557
    assert pose_net.scale.shape == (1,)
    assert pose_net.scale.item() == 2
    assert not pose_net(torch.rand(1, 3, 16, 24)).any()


def test_pose_net_takes_clips_and_pictures():
    pose_net = PoseNet(32)
    torch.nn.init.normal_(pose_net.final_proj.weight)
    clips = torch.rand(2, 3, 3, 32, 24) * 2 - 1
    features = pose_net(clips)
    assert features.shape == (6, 32, 4, 3)
    assert torch.equal(features, pose_net(clips.flatten(0, 1)))


def test_pose_features_act_and_the_hook_goes(unet):
    inputs, pose = _inputs()
    before = [tensor.clone() if isinstance(tensor, torch.Tensor) else tensor for tensor in inputs]
    plain = predict(unet, *inputs)
    posed = predict(unet, *inputs, pose_features=pose)
    assert plain.shape == (1, FRAMES, 4, HEIGHT, WIDTH)
    assert (posed - plain).std() > 0.1
    assert torch.equal(predict(unet, *inputs), plain)
    assert torch.equal(predict(unet, *inputs, pose_features=torch.zeros_like(pose)), plain)
    assert _num_hooks(unet) == 0
    for tensor, copy in zip(inputs, before, strict=True):
        assert torch.equal(torch.as_tensor(tensor), torch.as_tensor(copy))


def test_a_batch_equals_its_clips(unet):
    inputs, pose = _inputs(batch=2)
    both = predict(unet, *inputs, pose_features=pose)
    for clip in range(2):
        one = [value[clip : clip + 1] if isinstance(value, torch.Tensor) else value for value in inputs]
        alone = predict(unet, *one, pose_features=pose[clip * FRAMES :][:FRAMES])
        torch.testing.assert_close(both[clip : clip + 1], alone, rtol=1e-4, atol=1e-4)


def test_pose_of_another_size_is_explained_and_the_hooks_go(unet):
    inputs, pose = _inputs()
    with pytest.raises(ValueError, match=r"shape \(2, 32, 6, 4\).*gave \(3, 32, 6, 4\)"):
        predict(unet, *inputs, pose_features=pose[:2], image_only=True)
    assert _num_hooks(unet) == 0


def test_image_only_takes_every_frame_for_itself(unet):
    inputs, pose = _inputs()
    changed = (torch.cat([inputs[0][:, :2], inputs[0][:, 2:] + 1], 1), *inputs[1:])
    for image_only in (True, False):
        before = predict(unet, *inputs, pose_features=pose, image_only=image_only)
        after = predict(unet, *changed, pose_features=pose, image_only=image_only)
        assert torch.equal(before[:, :2], after[:, :2]) is image_only
    assert _num_hooks(unet) == 0


def test_every_conditioning_reaches_the_tiny_unet(unet):
    (sample, timestep, embeds, ids), _ = _inputs()
    plain = predict(unet, sample, timestep, embeds, ids)
    others = [(timestep + 1, embeds, ids), (timestep, embeds + 1, ids), (timestep, embeds, ids + 40)]
    for other in others:
        assert (predict(unet, sample, *other) - plain).std() > 0.01


def test_gradients_reach_the_pose(unet):
    inputs, pose = _inputs()
    pose = pose.requires_grad_(True)
    predict(unet, *inputs, pose_features=pose).square().mean().backward()
    assert pose.grad.abs().sum() > 0


@pytest.mark.parametrize(
    ("build", "config"),
    [(build_unet, UNTRAINED_UNET), (build_video_vae, UNTRAINED_VAE), (build_image_tower, UNTRAINED_IMAGE_TOWER)],
)
def test_skeletons_take_no_memory_for_weights(build, config):
    module = skeleton(lambda: build({"_class_name": "ignored", **config}))
    in_memory = [p.numel() for p in module.parameters() if not p.is_meta]
    assert sum(in_memory) < 100  # mixing factors, single numbers
    assert not any(buffer.is_meta for buffer in module.buffers())


def test_full_unet_has_the_published_size():
    assert sum(p.numel() for p in skeleton(build_unet).parameters()) == 1_524_623_082


def test_tower_from_a_skeleton_equals_a_tower_built_with_memory():
    weights = random_weights(lambda: build_image_tower(UNTRAINED_IMAGE_TOWER), seed=0, dtype=torch.float32)
    plain, assigned = (
        build_image_tower(UNTRAINED_IMAGE_TOWER),
        skeleton(lambda: build_image_tower(UNTRAINED_IMAGE_TOWER)),
    )
    plain.load_state_dict(weights)
    assigned.load_state_dict(weights, assign=True)
    pixels = torch.rand(1, 3, 224, 224)
    assert torch.equal(plain.eval()(pixels).image_embeds, assigned.eval()(pixels).image_embeds)
