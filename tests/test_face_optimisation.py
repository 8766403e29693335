"""Face optimisation: the gradient is the published one, whatever is spared on the way; what cannot work is said."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from choreo.benchmarks.published_face_optimisation import published_gradient
from choreo.model_loaders.untrained import UNTRAINED_VAE
from choreo.networks.arcface import IResNet
from choreo.networks.decoder_gradient import decode_for_gradient
from choreo.networks.video_vae import build_video_vae
from choreo.runtime import Runtime, use
from choreo.samplers import face_optimisation
from choreo.samplers.face_optimisation import (
    FaceOptimisation,
    FaceOptimiser,
    FaceTarget,
    face_crops,
    face_gradient,
    reference_embedding,
)
from torch import nn
from torch.nn import functional

from .small_networks import scrambled

FRAMES, SIDE = 5, 4  # latent pixels
VAE = UNTRAINED_VAE
LARGER = VAE | {"block_out_channels": (32, 32, 64, 64), "layers_per_block": 2}  # attention, and shortcuts of each kind
BOXES = [(4, 6, 20, 30), (0, 0, 31, 31), (10, 8, 25, 21), (3, 3, 20, 30), (11, 12, 20, 31)]
QUICK = FaceOptimisation(iterations=1, chunk=3)


@pytest.fixture(scope="module")
def vae():
    return scrambled(build_video_vae(VAE), 4)


@pytest.fixture(scope="module")
def recogniser():
    torch.manual_seed(5)
    return IResNet((1, 1), (8, 8), 8, 6, 16).eval().requires_grad_(False)


@pytest.fixture(scope="module")
def latents():
    return torch.randn(FRAMES, 4, SIDE, SIDE, generator=torch.Generator().manual_seed(6)) * 0.18


@pytest.fixture(scope="module")
def target():
    return FaceTarget(BOXES, torch.randn(1, 6, generator=torch.Generator().manual_seed(7)))


@pytest.fixture(autouse=True)
def _on_the_cpu():
    with use(Runtime("cpu", torch.float32)):
        yield


def plain_gradient(vae, recogniser, latents, target, chunk):
    return published_gradient(vae, recogniser, latents, target.boxes, target.embedding, chunk)


def lean_gradient(vae, recogniser, latents, target, chunk, **options):
    factor = vae.config.scaling_factor
    return face_gradient(vae.decoder, recogniser, latents, target, scaling_factor=factor, chunk=chunk, **options)


def optimiser(vae, recogniser, target, settings=QUICK, steps=25, **options):
    return FaceOptimiser(vae, recogniser, target, settings=settings, steps=steps, **options)


@pytest.mark.parametrize("chunk", [1, 2, 8])
def test_the_gradient_is_that_of_the_whole_graph(vae, recogniser, latents, target, chunk):
    loss, gradient = plain_gradient(vae, recogniser, latents, target, chunk)
    found = lean_gradient(vae, recogniser, latents, target, chunk)
    assert found.loss == pytest.approx(loss.item(), rel=1e-5)
    assert (found.gradient - gradient).abs().max() < 1e-5 * gradient.abs().max()
    assert found.embeddings.shape == (FRAMES, 6)


def test_decoding_and_its_gradient_are_exact_in_double_precision(vae):
    double = scrambled(build_video_vae(LARGER), 4).double()
    z = torch.randn(2, 4, SIDE, SIDE, dtype=torch.float64, requires_grad=True)
    plain, lean = double.decode(z, num_frames=2).sample, decode_for_gradient(double.decoder, z)
    torch.testing.assert_close(lean, plain, rtol=1e-11, atol=1e-11)
    weights = torch.randn_like(plain)
    expected, found = (torch.autograd.grad(images, z, weights)[0] for images in (plain, lean))
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


def test_frames_of_a_chunk_act_on_one_another(vae, recogniser, latents, target):
    whole, halves = (lean_gradient(vae, recogniser, latents, target, chunk).gradient for chunk in (4, 2))
    assert (whole - halves)[:4].norm() > 0.05 * whole[:4].norm()
    torch.testing.assert_close(whole[4], halves[4])  # alone in its chunk in both


def test_frames_without_a_face_are_not_judged_and_their_chunks_not_decoded(
    vae, recogniser, latents, target, monkeypatch
):
    decoded = []

    def counted(decoder, z):
        decoded.append(len(z))
        return decode_for_gradient(decoder, z)

    monkeypatch.setattr(face_optimisation, "decode_for_gradient", counted)
    some = FaceTarget([BOXES[0], None, None, None, BOXES[4]], target.embedding)
    found = lean_gradient(vae, recogniser, latents, some, 2)
    assert decoded == [2, 1]
    assert found.gradient[1].any() and not found.gradient[2:4].any()
    both = [
        lean_gradient(vae, recogniser, latents, FaceTarget(boxes, target.embedding), 2).gradient
        for boxes in ([BOXES[0], None, None, None, None], [None, None, None, None, BOXES[4]])
    ]
    torch.testing.assert_close(found.gradient, sum(both) / 2)


def test_nothing_to_do_without_any_face(vae, recogniser, latents, target):
    refine = optimiser(vae, recogniser, FaceTarget([None] * FRAMES, target.embedding))
    assert refine(latents, 3) is latents
    assert "no face" in refine.report()


def test_iterations_are_adams_with_a_falling_rate(vae, recogniser, latents, target):
    settings = FaceOptimisation(start=2, end=4, iterations=2, eta=0.2, chunk=2)
    assert settings.learning_rate(5, 25) == pytest.approx(0.16)
    z = latents.clone()
    adam = torch.optim.Adam([z], lr=0.2 * (1 - 3 / 10), betas=(0.9, 0.999), eps=1e-8)
    for _ in range(2):
        z.grad = plain_gradient(vae, recogniser, z, target, 2)[1]
        adam.step()
    before = latents.clone()
    refine = optimiser(vae, recogniser, target, settings, steps=10)
    refined = refine(latents, 3)
    assert torch.equal(latents, before)
    assert (refined - z).abs().max() < 1e-3 * (z - latents).abs().max()
    assert refine(latents, 1) is latents and refine(latents, 5) is latents


def test_likeness_rises(vae, recogniser, latents, target):
    refine = optimiser(vae, recogniser, target, FaceOptimisation(iterations=2, chunk=5, eta=0.02))
    for step in range(3):
        latents = refine(latents, step)
    (first, _), (_, last) = refine.losses[0], refine.losses[-1]
    assert last < first - 0.05
    assert f"from {1 - first:.2f} to {1 - last:.2f}" in refine.report()


def test_a_step_that_is_not_finite_is_skipped_and_said(vae, recogniser, latents, target, caplog):
    class SometimesNaN(nn.Module):
        calls, size = 0, 16

        def __init__(self):
            super().__init__()
            self.inner = recogniser

        def forward(self, x):
            self.calls += 1
            return self.inner(x) * (float("nan") if self.calls == 3 else 1)

    settings = FaceOptimisation(iterations=1, chunk=5)
    refine = optimiser(vae, SometimesNaN(), target, settings)
    steps = [refine(latents, step) for step in range(3)]
    assert [torch.equal(step, latents) for step in steps] == [False, False, True]
    assert refine.skipped == [2]
    assert "Step 3 goes on without face optimisation: NaN" in caplog.text
    assert "steps 3" in refine.report()


@pytest.mark.parametrize("offload", [False, True])
def test_works_inside_inference_mode_with_weights_made_there(vae, recogniser, latents, target, offload):
    expected = optimiser(vae, recogniser, target)(latents, 0)
    with torch.inference_mode():
        made_here = scrambled(build_video_vae(VAE), 4)
        made_here.load_state_dict(vae.state_dict())
        assert next(made_here.parameters()).is_inference()
        inference = torch.zeros_like(latents).copy_(latents)
        refine = optimiser(made_here, recogniser, target, replace(QUICK, offload=offload))
        for _ in range(2):
            assert torch.equal(refine(inference, 0), expected)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_points_the_same_way(vae, recogniser, latents, target, dtype):
    full = lean_gradient(vae, recogniser, latents, target, 2).gradient
    faint = FaceTarget([*BOXES[:4], None], target.embedding)
    half = scrambled(build_video_vae(VAE), 4).to(getattr(torch, dtype))
    found = lean_gradient(half, recogniser, latents, target, 2).gradient
    assert functional.cosine_similarity(found.flatten(), full.flatten(), dim=0) > 0.97
    assert lean_gradient(half, recogniser, latents, faint, 2).gradient[3].any()


def test_networks_are_where_they_were(vae, recogniser, latents, target):
    unet, moves = nn.Linear(2, 2).half(), []
    runtime = Runtime("cpu", torch.float16)
    runtime.free = lambda: moves.append((next(vae.decoder.parameters()).dtype, unet.weight.dtype))
    with use(runtime):
        optimiser(vae, recogniser, target, away=(unet,))(latents, 0)
    assert unet.weight.dtype == torch.float16 and len(moves) == 3
    assert moves[-1] == (torch.float32, torch.float16)


def test_running_out_of_memory_is_said(vae, recogniser, latents, target, monkeypatch):
    def full(*_arguments):
        raise torch.cuda.OutOfMemoryError("out of memory")

    monkeypatch.setattr(face_optimisation, "decode_for_gradient", full)
    with pytest.raises(MemoryError, match="optimising faces"):
        optimiser(vae, recogniser, target)(latents, 0)


def test_boxes_have_to_belong_to_the_clip(vae, recogniser, latents, target):
    with pytest.raises(ValueError, match="boxes of 4 frames for a clip of 5"):
        optimiser(vae, recogniser, FaceTarget(BOXES[:4], target.embedding))(latents, 0)
    with pytest.raises(ValueError, match=r"\(0, 0, 48, 30\) does not lie in the picture of 48x48"):
        reference_embedding(recogniser, torch.zeros(3, 48, 48), (0, 0, 48, 30))


def test_crops_hold_both_corners_of_their_box():
    images = torch.arange(2 * 3 * 8 * 8, dtype=torch.float32).view(2, 3, 8, 8) / 100
    crops = face_crops(images, [(2, 3, 3, 6), None], 4)
    assert crops.shape == (1, 3, 4, 4)
    assert crops.max() == 1
    torch.testing.assert_close(crops[0, 0, :, 0], images[0, 0, 3:7, 2])


def test_the_reference_is_embedded_as_the_frames_are(recogniser):
    picture = torch.rand(3, 48, 40) * 2 - 1
    expected = recogniser(functional.interpolate(picture[None, :, 5:30, 8:25], (16, 16), mode="bilinear"))
    torch.testing.assert_close(reference_embedding(recogniser, picture, (8, 5, 24, 29)), expected)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"start": 3, "end": 2}, "start <= end"),
        ({"iterations": 0}, "iterations"),
        ({"chunk": 0}, "chunk"),
        ({"eta": 0.0}, "eta"),
        ({"eta": float("nan")}, "eta"),
    ],
)
def test_settings_that_cannot_work_are_refused(wrong, words):
    with pytest.raises(ValueError, match=words):
        FaceOptimisation(**wrong)
