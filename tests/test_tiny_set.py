"""The scripts that make the tiny set: the ONNX files compute what torch trains, in the conventions of the real ones."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from choreo.datasets.puppets import Puppets
from choreo.pose import simcc
from choreo.pose.face import FaceAnalyser, arcface_input
from choreo.pose.onnx_models import open_model
from choreo.pose.wholebody import openpose_134
from choreo.runtime import Runtime, use
from choreo.training.tiny import detector, faces, identity, pose_network, tower
from choreo.training.tiny.config import IMAGE_TOWER
from choreo.training.tiny.loop import fit


def test_points_come_back_in_openpose_order():
    rng = np.random.default_rng(0)
    points, scores = rng.random((1, 134, 2)), np.ones((1, 134))
    picked = list(pose_network.POINTS)
    back, _ = openpose_134(points[:, picked], scores[:, picked])
    others = np.delete(np.arange(134), 1)  # 1 is the neck, made from the shoulders
    np.testing.assert_array_equal(back[:, others], points[:, others])


def test_heat_maps_are_read_where_the_points_are():
    rng = np.random.default_rng(1)
    points, scores = rng.uniform((20, 20), (268, 364), (133, 2)), rng.uniform(0.3, 1, 133)
    maps = pose_network.heat_maps(points / pose_network.CELL, scores)[None]
    x = maps.max(2) @ pose_network.enlarging(pose_network.WIDTH)
    y = maps.max(3) @ pose_network.enlarging(pose_network.HEIGHT)
    found, found_scores = simcc.decode(x, y)
    assert abs(found[0] / simcc.BINS_PER_PIXEL - points).max() < 2.0
    np.testing.assert_allclose(found_scores[0], scores, atol=0.1)


def test_the_pose_file_computes_what_torch_trained(tmp_path):
    torch.manual_seed(0)
    network = pose_network.pose_network()
    pose_network.save_pose_network(network, tmp_path)
    pictures = torch.randn(2, 3, 384, 288)
    with open_model(tmp_path / "dw_tiny.onnx", "cpu") as model:
        x, y = model.run(pictures.numpy())
    with torch.no_grad():
        maps = network(pictures).numpy()
    assert x.shape == (2, 133, 576) and y.shape == (2, 133, 768)
    np.testing.assert_allclose(x, maps.max(2) @ pose_network.enlarging(36), atol=1e-4)
    np.testing.assert_allclose(y, maps.max(3) @ pose_network.enlarging(48), atol=1e-4)


def test_the_detector_file_computes_what_torch_trained(tmp_path):
    torch.manual_seed(0)
    network = detector.detector()
    detector.save_detector(network, tmp_path)
    square = torch.rand(1, 3, 640, 640) * 255
    with open_model(tmp_path / "yolox_tiny.onnx", "cpu") as model:
        (rows,) = model.run(square.numpy())
    with torch.no_grad():
        out = network(square)[0].flatten(1).T.numpy()
    assert rows.shape == (1, 8400, 85) and not rows[0, :8000].any()
    np.testing.assert_allclose(rows[0, 8000:, :4], out[:, :4], atol=1e-4)
    np.testing.assert_allclose(rows[0, 8000:, 4], 1 / (1 + np.exp(-out[:, 4])), atol=1e-5)
    assert (rows[0, 8000:, 5] == 1).all() and not rows[0, 8000:, 6:].any()


def test_the_face_detector_file_finds_what_its_network_says(tmp_path):
    """A network that sees one face, in pictures of two sizes; and the recogniser's file."""

    class OneFace(torch.nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            grid = torch.nn.functional.avg_pool2d(images[:, :1], 32) * 0
            hot = torch.zeros(1, 1, 20, 20)
            hot[0, 0, 3, 5] = 1
            hot = hot[..., : grid.shape[2], : grid.shape[3]]
            return torch.cat([40 * hot - 20, *(grid + n / 4 for n in range(1, 15))], 1)

    faces.save_face_detector(OneFace(), tmp_path)
    torch.manual_seed(0)
    network = faces.recogniser()
    faces.save_recogniser(network, tmp_path)
    with FaceAnalyser(tmp_path / faces.DETECTOR_FILE, tmp_path / faces.RECOGNISER_FILE, "cpu") as analyser:
        for side in (640, 320):
            found = analyser.find(np.zeros((side, side, 3), np.uint8), size=(side, side))
            assert len(found) == 1
            np.testing.assert_allclose(found.boxes[0], [160 - 8, 96 - 16, 160 + 24, 96 + 32], atol=1e-3)
            np.testing.assert_allclose(found.landmarks[0], [[160 + 8 * n, 96 + 8 * n + 8] for n in range(5, 15, 2)])
        picture = np.random.default_rng(0).integers(0, 256, (112, 112, 3), dtype=np.uint8)
        embedding = analyser.embed_aligned(picture)
    with torch.no_grad():
        expected = network(torch.from_numpy(arcface_input(picture)))[0].numpy()
    np.testing.assert_allclose(embedding, expected, atol=1e-4)


def test_two_views_of_a_puppet_are_faces(monkeypatch):
    views = list(faces.face_views(Puppets().character(0), 2, np.random.default_rng(0)))
    assert [view.shape for view in views] == [(3, 112, 112)] * 2 and not np.array_equal(*views)
    monkeypatch.setattr(faces, "SEEN_PICTURES", 6)
    blobs, targets, weights = faces.face_pictures(Puppets())
    assert blobs.shape == (6, 3, 160, 160) and weights.unique().tolist() in ([1.0], [0.0, 1.0])
    seen = targets[~targets[:, 0].isnan()]
    assert len(seen) and (seen[:, :2] < seen[:, 2:4]).all()
    middle = (seen[:, None, :2] + seen[:, None, 2:4]) / 2
    assert (seen[:, 4:].unflatten(1, (5, 2)) - middle).abs().max() < (seen[:, 2:4] - seen[:, :2]).max()


def test_colours_are_exchanged_in_pictures_and_looks_alike():
    told = torch.rand(4, 35)
    pixels = told[:, :3, None, None] * torch.linspace(0, 1, 5)
    orders = set()
    for seed in range(200):
        seen, target = tower.varied(pixels, told, np.random.default_rng(seed))
        torch.testing.assert_close(seen.amax((2, 3)), target[:, :3], rtol=0, atol=0)
        torch.testing.assert_close(target[:, 27:], told[:, 27:], rtol=0, atol=0)
        for whole, part in zip(told[:, :27].split(3, 1), target[:, :27].split(3, 1), strict=True):
            torch.testing.assert_close(part.sort(1).values, whole.sort(1).values, rtol=0, atol=0)
        orders.add((tuple(target[0, 24:27].tolist()), bool(seen[0, 0, 0, 0] > seen[0, 0, 0, -1])))
    assert len(orders) == 12, "every order of the channels, both ways round"


def test_the_tower_takes_a_step(tmp_path):
    small = IMAGE_TOWER | {"image_size": 64}
    told = tower.train_image_tower(small, 1, tmp_path, pictures=tower.PICTURES)
    assert not told.training and told.config.projection_dim == 64
    state = torch.load(tmp_path / "tower.pt", weights_only=True)
    assert state["step"] == 1 and state["network"]["tell.weight"].shape == (35, 64)


def test_a_covered_head_is_all_that_a_reference_loses():
    def embed(picture: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
        return np.concatenate([picture.mean((0, 1)), landmarks[2]])

    source = identity.FacedPuppets(Puppets(), embed, lambda index: index == 1)
    for index in (0, 1):
        whole, _ = Puppets().reference(index, (128, 128))
        reference = source.clip(index, 2, (128, 128)).reference
        changed = (reference != whole).any(-1)
        assert changed.any() == (index == 1) and changed.mean() < 0.1
        np.testing.assert_allclose(source(reference)[:3], whole.mean((0, 1)))
        if index:
            x, y = source(reference)[3:].astype(int)
            assert (reference[y, x] == identity.GREY).all() and (reference[changed] == identity.GREY).all()
    with pytest.raises(KeyError):
        source(whole)


def test_a_tiny_adapter_is_trained_and_judged_with_covered_and_shown_faces(tmp_path, monkeypatch):
    torch.manual_seed(0)
    faces.save_recogniser(faces.recogniser().eval(), tmp_path)
    monkeypatch.setattr(identity, "SAMPLING", replace(identity.SAMPLING, steps=1, window=2, overlap=1))
    judged = replace(identity.JUDGED, clips=2, frames=2)
    with use(Runtime("cpu", torch.float32)):
        trained = identity.train_identity(tmp_path, steps=1, clips=2)
        assert (trained / "face_encoder.safetensors").is_file() and len(
            list((tmp_path / "identity").glob("cache/*/0*"))
        ) == 2
        reports = identity.judge_identity(tmp_path, trained, judged)
    psnr = {key: report.values("result", "psnr") for key, report in reports.items()}
    assert [len(values) for values in psnr.values()] == [2] * 4
    assert (psnr["shown", "on"] != psnr["shown", "off"]).all() and (
        psnr["shown", "off"] != psnr["covered", "off"]
    ).all()
    table = identity.identity_table(reports)
    assert table.count("on - off") == 2 and "truth" in table and "nan" not in table


def test_a_fit_goes_on_where_it_stopped(tmp_path):
    def run(steps: int, name: str) -> torch.Tensor:
        torch.manual_seed(0)
        layer = torch.nn.Linear(3, 1)

        def loss(step: int) -> tuple[torch.Tensor, dict[str, float]]:
            if step == steps:
                raise InterruptedError
            value = layer(torch.full((1, 3), float(step % 3))).square().sum()
            return value, {"loss": value.item()}

        try:
            fit(layer, loss, 8, 0.1, tmp_path / name)
        except InterruptedError:
            return run(8, name)
        return layer.weight.detach()

    from choreo.training.tiny import loop

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "SAVE_EVERY", -1.0)
        torch.testing.assert_close(run(5, "broken.pt"), run(8, "whole.pt"), rtol=0, atol=0)
    assert (tmp_path / "broken.pt").is_file()
