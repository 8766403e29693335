"""The scripts that make the tiny set: the ONNX files compute what torch trains, in the conventions of the real ones."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from choreo.pose import simcc
from choreo.pose.onnx_models import open_model
from choreo.pose.wholebody import openpose_134
from choreo.training.tiny import detector, pose_network
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
