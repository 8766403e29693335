"""Measures of pictures, poses and colours, against their definitions."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from choreo.evaluation import metrics
from choreo.evaluation.appearance import REGIONS, body_colours, colour_similarity, diagonal_rows, similarity_matrix
from choreo.evaluation.disco import grey_ssim, l1_per_pixel, wrapped_psnr
from choreo.evaluation.metrics import (
    Lpips,
    border_jump,
    change_error,
    counted_points,
    frame_jumps,
    l1,
    pck,
    person_sizes,
    psnr,
    ssim,
)
from choreo.pose.poses import BODY, LEFT_HAND, Poses

CANVAS = (100, 200)  # height, width


def clip(seed: int = 0, frames: int = 2, size: tuple[int, int] = (16, 20)) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (frames, *size, 3), dtype=np.uint8)


def noisy(frames: np.ndarray, sigma: float) -> np.ndarray:
    noise = np.random.default_rng(7).normal(0, sigma, frames.shape)
    return np.clip(np.rint(frames + noise), 0, 255).astype(np.uint8)


def person(frames: int = 2, size: tuple[int, int] = CANVAS) -> Poses:
    """Everything in view; the body is 60 pixels high and at most 30 wide."""
    rng = np.random.default_rng(1)
    pixels = rng.uniform((80, 20), (110, 80), (frames, 1, 134, 2))
    pixels[:, :, 0], pixels[:, :, 10] = (90, 20), (95, 80)
    return Poses(pixels / size[::-1], np.ones((frames, 1, 134)), np.ones((frames, 1), bool), size)


def shifted(poses: Poses, dx: float, dy: float = 0.0) -> Poses:
    return poses.with_points(poses.points + np.array([dx / poses.size[1], dy / poses.size[0]]))


def share(found: Poses, true: Poses, **options) -> float:
    right, judged = pck(found, true, **options)
    return right / judged


def test_equal_pictures() -> None:
    frames = clip()
    assert np.isinf(psnr(frames, frames)).all()
    np.testing.assert_array_equal(ssim(frames, frames), 1)
    np.testing.assert_array_equal(l1(frames, frames), 0)


@pytest.mark.parametrize("measure", [psnr, ssim, l1])
def test_measures_of_pictures_are_symmetric_per_frame_and_know_no_type(measure) -> None:
    one, other = clip(0), clip(1)
    values = measure(one, other)
    assert values.shape == (2,) and values.dtype == np.float64
    np.testing.assert_allclose(values, measure(other, one), rtol=1e-12)
    np.testing.assert_allclose(values[1:], measure(one[1], other[1]), rtol=1e-12)
    np.testing.assert_allclose(values, measure(one / 255, other / 255), rtol=1e-12)


def test_more_noise_is_worse_in_every_measure() -> None:
    frames = clip(size=(32, 32))
    levels = [noisy(frames, sigma) for sigma in (2, 5, 10, 20, 40)]
    for measure, direction in ((psnr, -1), (ssim, -1), (l1, 1)):
        assert (np.diff([measure(level, frames).mean() for level in levels]) * direction > 0).all()


def test_psnr_and_l1_of_known_differences() -> None:
    black, white = np.zeros((1, 12, 12, 3), np.uint8), np.full((1, 12, 12, 3), 255, np.uint8)
    assert psnr(black, white) == 0 and l1(black, white) == 1
    assert psnr(black, black + 51) == pytest.approx(20 * np.log10(5))
    assert l1(black + 51, black) == pytest.approx(0.2)
    half = black.copy()
    half[:, :6] = 255  # unsigned differences would wrap here
    assert psnr(half, black) == pytest.approx(10 * np.log10(2)) and l1(black, half) == pytest.approx(0.5)


def test_ssim_follows_the_paper_window_by_window() -> None:
    one, other = (frames[0] / 255 for frames in (clip(0, 1, (13, 14)), clip(1, 1, (13, 14))))
    distance = np.arange(11) - 5
    window = np.exp(-(distance[:, None] ** 2 + distance[None] ** 2) / (2 * 1.5**2))
    window = (window / window.sum())[..., None]
    values = []
    for y in range(3):
        for x in range(4):
            a, b = one[y : y + 11, x : x + 11], other[y : y + 11, x : x + 11]
            mean_a, mean_b = (window * a).sum((0, 1)), (window * b).sum((0, 1))
            var_a, var_b = (window * (a - mean_a) ** 2).sum((0, 1)), (window * (b - mean_b) ** 2).sum((0, 1))
            both = (window * (a - mean_a) * (b - mean_b)).sum((0, 1))
            c1, c2 = 0.01**2, 0.03**2
            likeness = (2 * mean_a * mean_b + c1) * (2 * both + c2)
            values.append(likeness / ((mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2)))
    assert ssim(one, other) == pytest.approx(np.mean(values), abs=1e-12)


def test_pictures_that_cannot_be_compared() -> None:
    frames = clip()
    with pytest.raises(ValueError, match="one shape"):
        psnr(frames, frames[:1])
    with pytest.raises(ValueError, match="at least 11"):
        ssim(frames[:, :8], frames[:, :8])
    with pytest.raises(ValueError, match="uint8, or floating"):
        l1(frames.astype(int), frames)
    with pytest.raises(ValueError, match=r"0\.\.1"):
        l1(frames / 100, frames)
    with pytest.raises(ValueError, match="frames, height, width"):
        psnr(frames[0, 0], frames[0, 0])
    broken = frames / 255
    broken[1, 3, 4, 0] = np.nan
    with pytest.raises(FloatingPointError, match="frame 1 of the result"):
        psnr(broken, frames)


def test_pck_of_the_truth_and_of_people_elsewhere() -> None:
    true = person()
    assert share(true, true) == 1
    assert share(shifted(true, 100), true) == 0


def test_pck_measures_by_the_larger_side_in_pixels() -> None:
    true = person()
    np.testing.assert_allclose(person_sizes(true), 60)
    for direction in ((1, 0), (0, -1), (0.6, 0.8)):
        assert share(shifted(true, *(5.99 * np.array(direction))), true) == 1
        assert share(shifted(true, *(6.01 * np.array(direction))), true) == 0
    assert share(shifted(true, 11), true, threshold=0.2) == 1
    small = person(size=(1000, 2000))  # the same pixels on a larger canvas
    assert share(shifted(small, 5.99), small) == 1 and share(shifted(small, 0, 6.01), small) == 0


def test_pck_is_the_share_of_judged_points() -> None:
    true = person()
    points = np.array(true.points)
    points[0, 0, BODY][:9] += 0.4
    assert pck(true.with_points(points), true) == (27, 36)
    scores = np.array(true.scores)
    scores[0, 0, :9] = 0.2
    assert pck(true.with_points(points), true.with_points(true.points, scores)) == (27, 27)


def test_points_outside_the_picture_are_not_judged() -> None:
    true = person()
    points = np.array(true.points)
    points[1, 0, 4], points[1, 0, 5] = (1.0, 0.5), (0.5, -0.01)
    moved = true.with_points(points)
    assert counted_points(moved)[1, [3, 4, 5]].tolist() == [True, False, False]
    assert pck(true, moved)[1] == 34


def test_parts_are_judged_by_themselves_with_the_size_of_the_body() -> None:
    true = person()
    points = np.array(true.points)
    points[:, :, LEFT_HAND] += 0.4
    found = true.with_points(points)
    shares = [share(found, true, part=part) for part in ("body", "face", "hands")]
    assert shares == [1, 1, 0.5]


def test_nobody_found_is_wrong_and_nobody_there_is_not_judged() -> None:
    true = person()
    missing = Poses(true.points, true.scores, np.array([[True], [False]]), true.size)
    assert share(missing, true) == 0.5
    assert pck(true, missing) == (18, 18)
    nobody = Poses.from_frames([(np.zeros((0, 134, 2)), np.zeros((0, 134)))] * 2, CANVAS)
    assert pck(nobody, true) == (0, 36)
    with pytest.raises(ValueError, match="1 frames"):
        pck(true[0], true)


def test_jumps_at_borders_above_those_of_the_truth() -> None:
    level = np.array([0.1, 0.12, 0.14, 0.16, 0.18, 0.2])
    true = np.ones((6, 4, 4, 3)) * level[:, None, None, None]
    found = true.copy()
    found[3:] += 0.3
    np.testing.assert_allclose(frame_jumps(found), [0.02, 0.02, 0.32, 0.02, 0.02])
    assert border_jump(found, true, [3]) == pytest.approx(0.3)
    assert border_jump(found, true, [2]) == pytest.approx(-0.3 / 4)
    assert border_jump(true, true, [3]) == pytest.approx(0)
    assert np.isnan(border_jump(found, true, [])) and np.isnan(border_jump(found, true, [1, 2, 3, 4, 5]))
    assert np.isnan(border_jump(found[:1], true[:1], [1]))


def test_only_errors_that_flicker_count_as_errors_of_change() -> None:
    true = clip(0, 4) // 2
    np.testing.assert_allclose(change_error(true + 20, true), 0, atol=1e-12)
    flickering = true + np.array([0, 20, 0, 20], np.uint8)[:, None, None, None]
    np.testing.assert_allclose(change_error(flickering, true), 20 / 255)
    np.testing.assert_allclose(change_error(true[[0, 0, 0, 0]], true), frame_jumps(true))
    assert len(change_error(true[:1], true[:1])) == 0


def test_published_psnr_wraps_whatever_the_quality() -> None:
    true = clip(0, 1, (40, 52))[0]
    for sigma in (30, 60):
        assert wrapped_psnr(noisy(true, sigma), true) == pytest.approx(28.3, abs=0.5)
    assert wrapped_psnr(true, true) == np.inf
    assert wrapped_psnr(np.full((8, 8, 3), 16, np.uint8), np.zeros((8, 8, 3), np.uint8)) == np.inf, "256 wraps to 0"


def test_published_measures_bring_pictures_to_the_size_of_the_truth() -> None:
    true = np.full((20, 30, 3), 100, np.uint8)
    small = np.full((10, 15, 3), 90, np.uint8)
    assert l1_per_pixel(small, true) == pytest.approx(10 / 600)
    assert grey_ssim(small, true) == pytest.approx((2 * 9000 + 6.5025) / (8100 + 10000 + 6.5025))
    assert grey_ssim(true, true) == 1
    with pytest.raises(ValueError, match="at least 7"):
        grey_ssim(true[:6], true[:6])
    with pytest.raises(ValueError, match="must be uint8"):
        l1_per_pixel(true / 255, true)


def test_published_ssim_follows_its_definition_window_by_window() -> None:
    import cv2

    one, other = clip(0, 1, (9, 8))[0], clip(1, 1, (9, 8))[0]
    x, y = (cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY).astype(float) for picture in (one, other))
    values = []
    for top in range(3):
        for left in range(2):
            a, b = x[top : top + 7, left : left + 7].ravel(), y[top : top + 7, left : left + 7].ravel()
            c1, c2, both = 2.55**2, 7.65**2, np.cov(a, b)
            likeness = (2 * a.mean() * b.mean() + c1) * (2 * both[0, 1] + c2)
            values.append(likeness / ((a.mean() ** 2 + b.mean() ** 2 + c1) * (both[0, 0] + both[1, 1] + c2)))
    assert grey_ssim(one, other) == pytest.approx(np.mean(values), rel=1e-9)


def dressed(colour: tuple[int, int, int]) -> np.ndarray:
    return np.full((2, *CANVAS, 3), colour, np.uint8)


def test_colours_are_taken_along_the_limbs() -> None:
    poses = person(1)
    points = np.array(poses.points)
    points[0, 0, [2, 3]], points[0, 0, [5, 6]] = ((0.1, 0.1), (0.1, 0.5)), ((0.3, 0.1), (0.3, 0.5))
    frame = np.zeros((1, *CANVAS, 3), np.uint8)
    frame[0, :, 10:30], frame[0, :, 50:70] = (200, 0, 0), (100, 0, 0)
    colours = body_colours(frame, poses.with_points(points))
    names = list(REGIONS)
    np.testing.assert_allclose(colours[names.index("upper arms")], [150 / 255, 0, 0])
    hidden = np.array(poses.scores)
    hidden[0, 0, [3, 10, 13]] = 0
    colours = body_colours(frame, poses.with_points(points, hidden))
    np.testing.assert_allclose(colours[names.index("upper arms")], [100 / 255, 0, 0])
    assert np.isnan(colours[names.index("shins")]).all()


def test_likeness_of_colours() -> None:
    poses = person()
    red, green, dark = (body_colours(dressed(colour), poses) for colour in ((250, 0, 0), (0, 250, 0), (180, 0, 0)))
    assert colour_similarity(red, red) == 0
    assert colour_similarity(red, green) == colour_similarity(green, red) < colour_similarity(red, dark) < 0
    unseen = np.full_like(red, np.nan)
    assert np.isnan(colour_similarity(red, unseen))
    assert diagonal_rows(similarity_matrix([red, green], [red, green])) == 2
    assert diagonal_rows(similarity_matrix([green, red], [red, green])) == 0
    assert diagonal_rows(similarity_matrix([red, red], [red, green])) == 1
    assert diagonal_rows(similarity_matrix([red, green], [red, red])) == 0, "a tie tells nothing apart"
    assert diagonal_rows(similarity_matrix([red, unseen], [red, green])) == 1


def test_lpips_is_only_asked_for(monkeypatch, tmp_path) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(metrics, "find_spec", lambda name: None)
    assert not Lpips.ready()
    with pytest.raises(ImportError, match="pip install lpips"):
        Lpips()
    monkeypatch.setattr(metrics, "find_spec", lambda name: SimpleNamespace(name=name))
    assert not Lpips.ready(), "the weights would have to be downloaded"
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "alexnet-owt-7be5be79.pth").touch()
    assert Lpips.ready()


def test_lpips_gets_pictures_from_minus_one_to_one(monkeypatch) -> None:
    class Network(torch.nn.Module):
        def forward(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
            assert a.shape == (1, 3, 4, 5) and a.dtype == torch.float32
            return (a - b).abs().max().view(1, 1, 1, 1)

    monkeypatch.setitem(sys.modules, "lpips", SimpleNamespace(LPIPS=lambda **_: Network()))
    monkeypatch.setattr(metrics, "find_spec", lambda name: SimpleNamespace(name=name))
    white = np.full((2, 4, 5, 3), 255, np.uint8)
    np.testing.assert_allclose(Lpips()(white, white * 0), [2, 2])
