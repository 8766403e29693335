"""Decoding in chunks: the chunk is part of the result, the length of the clip and the consumer are not."""

from __future__ import annotations

from itertools import islice

import pytest
import torch
from choreo.quirks import PUBLISHED
from choreo.runtime import Runtime, use
from choreo.samplers.decode import decode_frames, to_uint8, to_unit

from .small_networks import small_networks

LATENTS = torch.randn(11, 4, 4, 3, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def vae():
    return small_networks()[1].vae


@pytest.fixture(autouse=True)
def _on_the_cpu():
    with use(Runtime("cpu", torch.float32)):
        yield


def _decoded(vae, latents, **options):
    return torch.stack(list(decode_frames(vae, latents, **options)))


def test_frames_equal_the_plain_decoder_chunk_by_chunk(vae):
    frames = _decoded(vae, LATENTS, chunk=4)
    assert frames.shape == (11, 32, 24, 3)
    plain = torch.cat([vae.decode(z / 0.18215, num_frames=len(z)).sample for z in LATENTS.split(4)])
    torch.testing.assert_close(frames, (plain / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1), rtol=1e-4, atol=1e-5)


def test_chunks_do_not_see_the_length_of_the_clip(vae):
    assert torch.equal(_decoded(vae, LATENTS, chunk=4)[:8], _decoded(vae, LATENTS[:8], chunk=4))
    assert not torch.allclose(_decoded(vae, LATENTS, chunk=4)[:8], _decoded(vae, LATENTS[:8], chunk=2), atol=1e-3)


def test_skipped_frames_still_act_on_their_chunk(vae):
    assert torch.equal(_decoded(vae, LATENTS, chunk=4, skip=1), _decoded(vae, LATENTS, chunk=4)[1:])
    assert torch.equal(_decoded(vae, LATENTS, chunk=4, skip=5), _decoded(vae, LATENTS, chunk=4)[5:])


def test_frames_come_as_they_are_decoded(vae):
    decoded = []
    handle = vae.decoder.register_forward_hook(lambda *_: decoded.append(1))
    frames = decode_frames(vae, LATENTS, chunk=4)
    assert len(list(islice(frames, 4))) == 4
    assert len(decoded) == 1
    frames.close()
    handle.remove()


def test_nothing_stays_on_the_vae_when_decoding_stops_early(vae):
    weights = {name: tensor.clone() for name, tensor in vae.state_dict().items()}
    frames = decode_frames(vae, LATENTS, chunk=4)
    next(frames)
    frames.close()
    assert not any("forward" in vars(part) or part._forward_pre_hooks for part in vae.modules())
    assert all(torch.equal(tensor, weights[name]) for name, tensor in vae.state_dict().items())
    assert all(tensor.is_contiguous() for tensor in vae.state_dict().values())


def test_values_are_clamped_and_rounded():
    unit = to_unit(torch.tensor([-3.0, -1.0, 0.0, 1.0, 9.0]))
    assert unit.tolist() == [0, 0, 0.5, 1, 1]
    values = torch.tensor([0.0, 0.7 / 255, 254.6 / 255, 1.0])
    assert to_uint8(values).tolist() == [0, 1, 255, 255]
    assert to_uint8(values, PUBLISHED).tolist() == [0, 0, 254, 255]


def test_nan_names_the_frames(vae):
    latents = LATENTS.clone()
    latents[5] = float("nan")
    with pytest.raises(FloatingPointError, match="frames 4 to 7"):
        list(decode_frames(vae, latents, chunk=4))
