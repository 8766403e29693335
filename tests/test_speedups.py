"""The exact speed-ups: the same answer as diffusers' own forward, and nothing left behind."""

from __future__ import annotations

import pytest
import torch
from choreo.networks.id_attention import identity_strength
from choreo.networks.speedups import faster
from choreo.networks.svd_unet import predict

from .small_networks import small_id_unet, small_networks, small_unet


@pytest.fixture(scope="module")
def unet():
    return small_unet()


def _inputs(batch=1, frames=5, height=8, width=6, tokens=1):
    generator = torch.Generator().manual_seed(batch + frames)
    sample = torch.randn(batch, frames, 8, height, width, generator=generator)
    embeds = torch.randn(batch, tokens, 32, generator=generator)
    pose = torch.randn(batch * frames, 32, height, width, generator=generator)
    return (sample, torch.tensor(0.7), embeds, torch.tensor([[6.0, 127.0, 0.02]]).expand(batch, -1)), pose


def _same(fast, plain):
    assert (fast - plain).abs().max() <= 1e-5 * plain.abs().max()


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("frames", [1, 2, 5])
@pytest.mark.parametrize("image_only", [False, True])
@torch.no_grad()
def test_unet_gives_the_same(unet, batch, frames, image_only):
    inputs, pose = _inputs(batch, frames)
    plain = predict(unet, *inputs, pose_features=pose, image_only=image_only)
    with faster(unet):
        fast = predict(unet, *inputs, pose_features=pose, image_only=image_only)
    _same(fast, plain)


@torch.no_grad()
def test_other_sizes_and_contexts_within_one_run(unet):
    calls = [_inputs(), _inputs(2), _inputs(frames=3), _inputs(height=4, width=10), _inputs(tokens=3), _inputs()]
    plain = [predict(unet, *inputs, pose_features=pose) for inputs, pose in calls]
    with faster(unet):
        for _ in range(2):
            for (inputs, pose), expected in zip(calls, plain, strict=True):
                _same(predict(unet, *inputs, pose_features=pose), expected)


@pytest.mark.parametrize(("frames", "strength", "tokens"), [(2, 1.0, 5), (1, 0.4, 5), (2, 1.0, 7)])
@torch.no_grad()
def test_unet_with_identity_adapter_gives_the_same(frames, strength, tokens):
    unet = small_id_unet()
    inputs, pose = _inputs(2, frames, tokens=tokens)
    inputs[2][0] = 0  # the unconditional pass
    with identity_strength(unet, strength):
        plain = predict(unet, *inputs, pose_features=pose)
        with faster(unet):
            _same(predict(unet, *inputs, pose_features=pose), plain)
            _same(predict(unet, *inputs, pose_features=pose), plain)
    if strength != 1:
        assert (predict(unet, *inputs, pose_features=pose) - plain).abs().max() > 1e-3


@torch.no_grad()
def test_the_identity_adapter_does_less_work_but_not_for_adapted_layers():
    unet = small_id_unet()
    attention = unet.mid_block.attentions[0].transformer_blocks[0].attn2
    inputs, _ = _inputs(tokens=5)
    seen = []
    attention.to_q.register_forward_hook(lambda *_: seen.append(1))
    with faster(unet):
        predict(unet, *inputs)
    assert not seen, "queries are not projected"
    attention.to_q = torch.nn.Sequential(attention.to_q)
    plain = predict(unet, *inputs)
    with faster(unet):
        _same(predict(unet, *inputs), plain)
    assert len(seen) == 2, "a layer of others is called"


@torch.no_grad()
def test_half_precision_stays_within_its_rounding(unet):
    unet = small_unet().to(torch.bfloat16)
    inputs = tuple(value.to(torch.bfloat16) for value in _inputs()[0])
    plain = predict(unet, *inputs)
    with faster(unet):
        fast = predict(unet, *inputs)
    assert (fast - plain).abs().max() <= 0.03 * plain.abs().max()


@torch.no_grad()
def test_changed_weights_count_in_the_next_run():
    unet = small_unet()
    inputs, _ = _inputs()
    with faster(unet):
        before = predict(unet, *inputs)
    block = unet.down_blocks[0].attentions[0].transformer_blocks[0]
    block.attn2.to_v.weight.mul_(-3)
    with faster(unet):
        after = predict(unet, *inputs)
    _same(after, predict(unet, *inputs))
    assert (after - before).abs().max() > 1e-3


@torch.no_grad()
def test_other_processors_are_left_alone(unet):
    calls = []

    class Watched:
        def __call__(self, attn, hidden_states, encoder_hidden_states=None, **_):
            calls.append(encoder_hidden_states is not None)
            return hidden_states

    unet = small_unet()
    attention = unet.mid_block.attentions[0].transformer_blocks[0].attn2
    attention.set_processor(Watched())
    inputs, _ = _inputs()
    plain = predict(unet, *inputs)
    with faster(unet):
        _same(predict(unet, *inputs), plain)
    assert calls == [True, True]


@torch.no_grad()
def test_a_forward_of_others_is_used_and_stays():
    unet = small_unet()
    block = unet.mid_block.resnets[0]
    calls, plain_forward = [], block.forward

    def watched(*arguments, **keywords):
        calls.append(1)
        return plain_forward(*arguments, **keywords)

    block.forward = watched
    inputs, _ = _inputs()
    plain = predict(unet, *inputs)
    with faster(unet):
        with faster(unet):
            _same(predict(unet, *inputs), plain)
        _same(predict(unet, *inputs), plain)
    assert len(calls) == 3
    assert [part for part in unet.modules() if "forward" in vars(part)] == [block]


@torch.no_grad()
def test_nothing_stays_on_the_module(unet):
    before = {name: (tensor.clone(), tensor.stride()) for name, tensor in unet.state_dict().items()}
    inputs, _ = _inputs()
    originals = [value.clone() for value in inputs]
    with pytest.raises(RuntimeError), faster(unet):
        predict(unet, *inputs)
        raise RuntimeError
    assert not any("forward" in vars(part) or part._forward_pre_hooks or part._forward_hooks for part in unet.modules())
    after = unet.state_dict()
    assert all(torch.equal(after[name], tensor) for name, (tensor, _) in before.items())
    assert all(after[name].stride() == stride for name, (_, stride) in before.items())
    assert all(torch.equal(value, original) for value, original in zip(inputs, originals, strict=True))


@pytest.mark.parametrize("frames", [1, 2, 5])
@torch.no_grad()
def test_vae_decoder_gives_the_same(frames):
    vae = small_networks()[1].vae
    latents = torch.randn(frames, 4, 4, 6, generator=torch.Generator().manual_seed(0))
    plain = vae.decode(latents, num_frames=frames).sample
    with faster(vae):
        _same(vae.decode(latents, num_frames=frames).sample, plain)
