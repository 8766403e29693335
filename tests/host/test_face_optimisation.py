"""Face optimisation in stock samplers, on networks that nodes have loaded in inference mode, and faces themselves."""

from __future__ import annotations

from pathlib import Path
from unittest import mock

import pytest
import torch

from .harness import Host, Value
from .memory_modes import memory_mode
from .stableanimator_job import ARCFACE_FILE, clip, core, core_networks, give_files, loaders, written
from .svd_job import SIZE, TINY, image, picture, pose_pictures, relative, unscaled
from .test_bad_input import check_sentence
from .test_svd_sampling import CFG, OVERLAP, WINDOW, ksampler, stock_noise

FRAMES, STEPS = 3, 4
BOXES = [(20, 10, 49, 39), None, (30, 20, 69, 49)]  # x1, y1, x2, y2; the second frame has no face
PICTURE_BOX = (10, 5, 59, 44)


@pytest.fixture(autouse=True)
def files(host: Host, monkeypatch) -> Path:
    return give_files(host, monkeypatch)


def masks(boxes: list) -> Value:
    """A MASK with these boxes."""
    found = torch.zeros(len(boxes), *SIZE)
    for mask, box in zip(found, boxes, strict=True):
        if box is not None:
            x1, y1, x2, y2 = box
            mask[y1 : y2 + 1, x1 : x2 + 1] = 1
    return Value(found)


def faces_node(**changed) -> tuple[str, dict]:
    inputs = {
        "model": ("fused", 0),
        "vae": ("parts", 0),
        "face_analyser": ("analyser", 0),
        "picture": image(picture()),
        "masks": masks(BOXES),
        "picture_mask": masks([PICTURE_BOX]),
        "start": 1,
        "end": 2,
        "chunk": 2,
    }
    return ("ChoreoFaceOptimisation", inputs | changed)


def graph(**changed) -> dict:
    """KSampler with two optimised steps of four."""
    return loaders() | {
        "analyser": ("ChoreoLoadFaceAnalyser", {"detector": TINY, "recogniser": TINY}),
        "condition": ("ChoreoStableAnimatorConditioning", clip(pose_pictures(FRAMES), noise_aug_strength=0.0)),
        "fused": ("ChoreoLatentFusion", {"model": ("load", 0), "window": WINDOW, "overlap": OVERLAP}),
        "faces": faces_node(**changed),
        "sampled": ("KSampler", ksampler("faces", steps=STEPS)),
    }


def core_answer(host: Host) -> torch.Tensor:
    """The core's latents of the same job, scaled."""
    optimisation, runtime = host.module("samplers.face_optimisation"), host.module("runtime")
    recogniser = host.module("model_loaders.arcface").load_arcface(written(host) / ARCFACE_FILE).float()
    settings = optimisation.FaceOptimisation(start=1, end=2, chunk=2)
    vae = core_networks(host)[1].vae
    with runtime.use(runtime.Runtime("cpu", torch.float32)):
        pixels = torch.from_numpy(picture()).permute(2, 0, 1).float() / 127.5 - 1
        embedding = optimisation.reference_embedding(recogniser, pixels, PICTURE_BOX)
    target = optimisation.FaceTarget(BOXES, embedding)
    refine = optimisation.FaceOptimiser(vae, recogniser, target, settings=settings, steps=STEPS)
    start = stock_noise(FRAMES)
    options = {"window": WINDOW, "overlap": OVERLAP, "guidance_first": CFG, "guidance_last": CFG}
    return core(host, pose_pictures(FRAMES), start, refine=refine, noise_aug_strength=0.0, **options)


def share_alike(found: torch.Tensor, wanted: torch.Tensor) -> float:
    """The share of values that are equal but for a hundredth; Adam goes by the sign of gradients, however small."""
    return ((found - wanted).abs() < 0.01 * wanted.abs().max()).float().mean().item()


def test_two_optimised_steps_of_ksampler_are_the_cores_fully_and_partly_loaded(host: Host) -> None:
    whole = host.queue(graph())
    assert whole.error is None
    found = whole.outputs["sampled"][0]["samples"]
    plain = graph() | {"sampled": ("KSampler", ksampler("fused", steps=STEPS))}
    assert relative(host.queue(plain).outputs["sampled"][0]["samples"], found) > 0.01
    assert share_alike(found, unscaled(core_answer(host))) > 0.99
    host.fresh()
    with memory_mode("--novram"):
        parted = host.queue(graph())
        assert parted.error is None
        model = parted.outputs["load"][0]
        assert model.loaded_size() < 0.9 * model.model_size()
    assert share_alike(parted.outputs["sampled"][0]["samples"], found) > 0.99


def test_weights_can_be_differentiated_through_after_the_host_has_moved_them(host: Host) -> None:
    """What moves a network under inference mode makes tensors that gradients cannot pass; here on purpose."""
    module = host.module("host.face_optimisation")
    vae = host.run(*loaders()["parts"][:1], **loaders()["parts"][1])[0]
    networks = module.networks_for_faces(vae, written(host) / ARCFACE_FILE, "float32")
    pixels = torch.from_numpy(picture()).permute(2, 0, 1).float() / 127.5 - 1
    before = module.reference_face(networks, pixels, PICTURE_BOX)
    with torch.inference_mode():
        for patcher in (networks.decoder, networks.recogniser):
            patcher.model.load_state_dict({k: t.clone() for k, t in patcher.model.state_dict().items()}, assign=True)
        assert next(networks.decoder.model.parameters()).is_inference()
        assert torch.equal(module.reference_face(networks, pixels, PICTURE_BOX), before)
    assert not any(tensor.is_inference() for tensor in networks.recogniser.model.state_dict().values())


def test_the_decoder_is_the_vaes(host: Host) -> None:
    vae = host.run(*loaders()["parts"][:1], **loaders()["parts"][1])[0]
    networks = host.module("host.face_optimisation").networks_for_faces(vae, written(host) / ARCFACE_FILE, "float32")
    z = torch.randn(3, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        wanted = vae.first_stage_model.decode(z.clone())
        found = networks.decoder.model(z, num_frames=3, image_only_indicator=torch.zeros(1, 3))
    assert relative(found, wanted) < 1e-4


def test_nan_leaves_a_step_out_and_is_said(host: Host, caplog) -> None:
    optimisation = host.module("samplers.face_optimisation")

    def spoiled(*args: object, **kwargs: object) -> object:
        raise FloatingPointError("NaN or infinity in the gradient of the face loss")

    plain = graph() | {"sampled": ("KSampler", ksampler("fused", steps=STEPS))}
    wanted = host.queue(plain).outputs["sampled"][0]["samples"]
    with mock.patch.object(optimisation, "optimise_faces", spoiled):
        result = host.queue(graph())
    assert result.error is None
    assert torch.equal(result.outputs["sampled"][0]["samples"], wanted)
    assert "NaN" in caplog.text


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"masks": masks(BOXES[:2])}, "3 frames, the face masks of Face Optimisation 2"),
        ({"masks": Value(torch.zeros(0, *SIZE))}, "masks is empty"),
        ({"picture_mask": masks([None])}, "picture_mask does not say"),
        ({"picture": image(picture()[:, :64])}, "96x64"),
        ({"start": 3, "end": 1}, "start"),
    ],
    ids=["other length", "no masks", "no face", "other size", "start after end"],
)
def test_input_that_cannot_work_is_explained(host: Host, changed: dict, words: str) -> None:
    check_sentence(host.queue(graph(**changed)).error, words)


def test_a_picture_without_a_face_needs_a_mask(host: Host) -> None:
    job = graph(picture=Value(torch.zeros(1, *SIZE, 3)))
    del job["faces"][1]["picture_mask"]
    check_sentence(host.queue(job).error, "No face was found", "picture_mask")


def test_too_little_memory_is_said_before_sampling(host: Host, monkeypatch) -> None:
    import comfy.model_management as mm

    monkeypatch.setattr(mm, "get_total_memory", lambda *_args, **_more: 25 << 20)
    error = host.queue(graph()).error
    check_sentence(error, "chunk of 2 frames of 96x64 in float32", "choose a chunk of 1")
