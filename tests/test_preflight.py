"""The estimate of memory, against what the networks really allocate and what users of the published program report."""

from __future__ import annotations

import logging
from contextlib import nullcontext
from functools import cache, partial
from types import SimpleNamespace

import pytest
import torch
from choreo.benchmarks.live_bytes import LiveBytes
from choreo.model_loaders.assemble import skeleton
from choreo.model_loaders.mimicmotion import MimicMotionNetworks
from choreo.model_loaders.svd import SVDParts
from choreo.networks.arcface import IResNet
from choreo.networks.attention import CPU_PIECE, GPU_PIECE
from choreo.networks.image_tower import build_image_tower
from choreo.networks.pose_net import PoseNet
from choreo.networks.speedups import faster
from choreo.networks.svd_unet import build_unet, predict
from choreo.networks.video_vae import build_video_vae
from choreo.pipelines import preflight
from choreo.pipelines.preflight import MARGIN, Check, check, check_faces, estimate, face_bytes, largest_window, report
from choreo.runtime import Runtime, use
from choreo.samplers.face_optimisation import FaceOptimisation, chunk_gradient

from .small_networks import small_networks

SIZE = (576, 1024)
GB = 10**9
CLIP = {"size": SIZE, "num_frames": 200, "chunk": 8, "dtype": torch.float16}


@cache
def full_size() -> tuple[MimicMotionNetworks, SVDParts]:
    """Networks of full size without memory, float16."""
    with torch.device("meta"):
        built = [build() for build in (build_unet, PoseNet, build_video_vae, build_image_tower)]
    unet, pose_net, vae, tower = (torch.nn.Module.to(part, "meta", torch.float16).eval() for part in built)
    return MimicMotionNetworks(unet, pose_net, 72), SVDParts(vae, tower)


def weights(module: torch.nn.Module) -> int:
    return sum(weight.nbytes for weight in module.parameters())


def unet_call(unet, frames, size, speedups=True) -> int:
    """Bytes that one call of the UNet allocates at most."""
    weight = next(unet.parameters())
    zeros = partial(torch.zeros, device=weight.device, dtype=weight.dtype)
    h, w = size[0] // 8, size[1] // 8
    width = unet.config.cross_attention_dim
    ids = unet.config.projection_class_embeddings_input_dim // unet.config.addition_time_embed_dim
    inputs = zeros(1, frames, 8, h, w), zeros(()), zeros(1, 1, width), zeros(1, ids)
    poses = zeros(frames, unet.config.block_out_channels[0], h, w)
    with torch.no_grad(), faster(unet) if speedups else nullcontext(), LiveBytes(unet) as live:
        predict(unet, *inputs, pose_features=poses)
    return live.peak


def decoder_call(vae, frames, size, speedups=True) -> int:
    """Bytes that decoding so many frames allocates at most."""
    weight = next(vae.parameters())
    z = torch.zeros(frames, 4, size[0] // 8, size[1] // 8, device=weight.device, dtype=weight.dtype)
    with torch.no_grad(), faster(vae) if speedups else nullcontext(), LiveBytes(vae) as live:
        vae.decode(z, num_frames=frames)
    return live.peak


@pytest.fixture
def _fused_attention(monkeypatch):
    """On the meta device torch would count the attention matrix that fused kernels never make."""
    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", lambda q, *_, **__: torch.empty_like(q))


def activations(networks, parts, frames, **clip) -> tuple[int, int]:
    """Estimated bytes of one UNet call and one decoder call, without weights, pose features and margin."""
    need = estimate(networks, parts, window=frames, **clip)
    channels = networks.unet.config.block_out_channels[0]
    features = frames * clip["size"][0] * clip["size"][1] // 64 * channels * clip["dtype"].itemsize
    return (
        (need.sampling_bytes - weights(networks.unet) - features) / MARGIN,
        (need.decoding_bytes - weights(parts.vae)) / MARGIN,
    )


@pytest.mark.usefixtures("_fused_attention")
@pytest.mark.parametrize("frames", [2, 16, 72])
def test_the_estimate_is_what_a_full_size_call_allocates(frames):
    networks, parts = full_size()
    unet, decoder = activations(networks, parts, frames, **CLIP)
    assert unet == pytest.approx(unet_call(networks.unet, frames, SIZE), rel=0.05)
    assert decoder == pytest.approx(decoder_call(parts.vae, 8, SIZE), rel=0.05)


def test_the_estimate_is_what_a_call_on_the_cpu_allocates():
    config = {"block_out_channels": (64, 128), "num_attention_heads": (1, 2), "layers_per_block": 1}
    blocks = "CrossAttnDownBlockSpatioTemporal", "DownBlockSpatioTemporal"
    config |= {
        "down_block_types": blocks,
        "up_block_types": ("UpBlockSpatioTemporal", "CrossAttnUpBlockSpatioTemporal"),
    }
    config |= {"in_channels": 8, "out_channels": 4, "addition_time_embed_dim": 32, "cross_attention_dim": 32}
    unet = build_unet({**config, "projection_class_embeddings_input_dim": 96}).eval()
    _, parts = small_networks()
    networks = MimicMotionNetworks(unet, PoseNet(64), 4)
    clip = {"size": (192, 256), "num_frames": 8, "chunk": 4, "dtype": torch.float32, "piece": CPU_PIECE}
    estimated, _ = activations(networks, parts, 6, **clip)
    assert estimated == pytest.approx(unet_call(unet, 6, (192, 256)), rel=0.1)


@pytest.mark.usefixtures("_fused_attention")
def test_the_way_of_counting_gives_what_users_of_the_published_program_report():
    """It keeps all networks on the GPU: 16 GB for windows of 72 frames, 8 GB for 16, 16 GB to decode 8 frames."""
    networks, parts = full_size()
    everything = sum(map(weights, (networks.unet, networks.pose_net, parts.vae, parts.image_encoder)))
    for frames, reported in ((72, 16 * GB), (16, 8 * GB)):
        assert everything + unet_call(networks.unet, frames, SIZE, False) == pytest.approx(reported, rel=0.2)
    assert everything + decoder_call(parts.vae, 8, SIZE, False) == pytest.approx(16 * GB, rel=0.2)


def test_ours_needs_less_than_the_published_program():
    assert estimate(*full_size(), window=72, **CLIP).device_bytes < 12 * GB


def test_memory_grows_with_window_size_chunk_and_length():
    def need(**changes):
        return estimate(*full_size(), **{**CLIP, "window": 16, **changes})

    sampling = [need(window=window).sampling_bytes for window in range(2, 100)]
    assert sampling == sorted(sampling)
    assert sampling[-1] > sampling[0]
    larger = need(size=(768, 1344))
    assert larger.sampling_bytes > need().sampling_bytes
    assert larger.decoding_bytes > need().decoding_bytes
    assert need(chunk=16).decoding_bytes > need().decoding_bytes
    assert need(dtype=torch.float32).device_bytes > 1.9 * need().device_bytes
    assert need(num_frames=400).host_bytes > need().host_bytes
    assert need(num_frames=400).device_bytes == need().device_bytes
    assert need(window=500) == need(window=200)  # no window is longer than the clip


@pytest.mark.parametrize("free", [10 * GB, 11 * GB, 16 * GB])
@pytest.mark.parametrize("piece", [CPU_PIECE, GPU_PIECE])
def test_the_largest_window_fits_and_one_more_does_not(free, piece):
    window = largest_window(*full_size(), free_bytes=free, piece=piece, **CLIP)
    assert 2 <= window < 200
    assert estimate(*full_size(), window=window, piece=piece, **CLIP).device_bytes <= free
    assert estimate(*full_size(), window=window + 1, piece=piece, **CLIP).device_bytes > free


def test_the_largest_window_ends_with_the_clip_and_may_not_exist():
    assert largest_window(*full_size(), free_bytes=100 * GB, **CLIP) == 200
    assert largest_window(*full_size(), free_bytes=GB, **CLIP) == 0


@pytest.fixture
def say(monkeypatch):
    """say(free on the GPU, free in main memory): the check of a full-size job of 200 frames on a GPU."""

    def said(gpu: int, main: int = 64 * GB, **changes) -> Check:
        free = {"cuda": gpu, "cpu": main}
        monkeypatch.setattr(preflight, "free_memory", lambda device: free[device.type])
        job = {"size": SIZE, "num_frames": 200, "window": None, "chunk": 8, **changes}
        with use(SimpleNamespace(device=torch.device("cuda:0"), dtype=torch.float16)):
            return check(*full_size(), **job)

    return said


def test_a_job_that_fits(say):
    checked = say(24 * GB)
    assert checked.fits
    assert checked.sentence.startswith("Sampling needs about 10.")
    assert "on cuda:0" in checked.sentence
    assert "24.0 GB is free. The largest window that fits is 200 frames." in checked.sentence


def test_a_window_that_is_too_long_is_told_with_one_that_fits(say):
    checked = say(10 * GB)
    window = largest_window(*full_size(), free_bytes=10 * GB, **CLIP)
    assert checked.fits is False
    assert f"(--window {window})" in checked.sentence
    assert say(10 * GB, window=window).fits


def test_other_ways_out(say):
    assert "--decode-chunk" in say(6 * GB).sentence
    assert "smaller size" in say(3 * GB, chunk=1).sentence
    assert "GB of main memory" in say(24 * GB, main=-10 * GB, num_frames=2000).sentence


def test_the_cpu_has_one_memory_for_everything(monkeypatch):
    networks, parts = small_networks()
    job = {"size": (128, 128), "num_frames": 20, "window": 4, "chunk": 4}
    with use(Runtime("cpu", torch.float32)):
        monkeypatch.setattr(preflight, "free_memory", lambda _device: GB)
        assert check(networks, parts, **job).fits
        monkeypatch.setattr(preflight, "free_memory", lambda _device: 0)
        assert check(networks, parts, **job).fits is False
        monkeypatch.setattr(preflight, "free_memory", lambda _device: None)
        checked = check(networks, parts, **job)
    assert checked.fits is None
    assert checked.sentence.startswith("Sampling needs about")


@pytest.mark.parametrize(("fits", "level"), [(True, "INFO"), (None, "INFO"), (False, "WARNING")])
def test_what_does_not_fit_is_a_warning(caplog, fits, level):
    with caplog.at_level(logging.INFO):
        report(Check("A sentence.", fits))
    assert [(record.levelname, record.message) for record in caplog.records] == [(level, "A sentence.")]


def test_free_memory_is_what_linux_says_or_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(preflight, "MEMINFO", tmp_path / "meminfo")
    assert preflight.free_memory(torch.device("cpu")) is None
    (tmp_path / "meminfo").write_text("MemTotal:       9000 kB\nMemAvailable:    5000 kB\n")
    assert preflight.free_memory(torch.device("cpu")) == 5000 * 1024
    assert preflight.free_memory(torch.device("meta")) is None


def small_faces(**settings):
    """Full-size networks without memory, settings, size and frames of a face optimisation."""
    vae, recogniser = full_size()[1].vae, skeleton(IResNet)
    return vae.decoder, recogniser, FaceOptimisation(**settings), (256, 256), 16


def test_the_face_optimisation_needs_what_its_gradient_allocates():
    decoder, recogniser, settings, size, frames = small_faces(chunk=2, dtype="float16")
    z = torch.zeros(2, 4, 32, 32, device="meta", dtype=torch.float16)
    with LiveBytes(decoder, recogniser) as live:
        chunk_gradient(
            decoder, recogniser.to("meta").eval(), z, [(9, 9, 90, 90)] * 2, torch.zeros(1, 512, device="meta")
        )
    needed = face_bytes(decoder, recogniser, settings, size, frames) - weights(decoder) - weights(recogniser)
    assert live.peak <= needed <= 1.6 * live.peak


def test_what_would_fit_is_named_when_faces_do_not(monkeypatch):
    whole = face_bytes(*small_faces())
    assert whole > 1.8 * face_bytes(*small_faces(dtype="bfloat16")) - weights(skeleton(IResNet))
    for free, fits, words in (
        (whole, True, "is free"),
        (face_bytes(*small_faces(offload=True)), False, "With --face-offload it needs"),
        (face_bytes(*small_faces(offload=True, dtype="bfloat16")), False, "--face-dtype bfloat16 --face-offload"),
        (10**6, False, "smaller size"),
    ):
        monkeypatch.setattr(preflight, "free_memory", lambda _device, free=free: free)
        checked = check_faces(*small_faces())
        assert checked.fits is fits and words in checked.sentence
        assert "chunks of 4 frames in float32" in checked.sentence
    monkeypatch.setattr(preflight, "free_memory", lambda _device: None)
    assert check_faces(*small_faces()).fits is None
