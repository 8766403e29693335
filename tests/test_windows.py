"""Latent fusion covers every frame, opens windows with frame 0 and is a weighted mean."""

from __future__ import annotations

import itertools

import pytest
import torch
from choreo.samplers.windows import LatentFusion, window_weights, windows

CLIPS = [(n, w, o) for w in (2, 4, 16) for o in {1, 2, w - 1} if o < w for n in (w, w + 1, 3 * w + 1, 61)]


@pytest.mark.parametrize(("num_frames", "window", "overlap"), CLIPS)
def test_windows_cover_the_clip(num_frames, window, overlap):
    tiles = windows(num_frames, window, overlap)
    assert all(len(tile) == window and tile[0] == 0 for tile in tiles)
    assert set().union(*tiles) == set(range(num_frames))
    assert all(tile[1:] == list(range(tile[1], tile[1] + window - 1)) for tile in tiles)
    for tile, following in itertools.pairwise(tiles):
        assert len(set(tile[1:]) & set(following[1:])) >= overlap - 1


def test_a_clip_shorter_than_the_window_is_one_window():
    assert windows(5, 16, 6) == [[0, 1, 2, 3, 4]]
    assert windows(2, 72, 6) == [[0, 1]]
    assert windows(1, 72, 6) == [[0]]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [((9, 1, 1), "at least 2"), ((9, 4, 4), "smaller than the window"), ((9, 4, 0), "overlap"), ((0, 4, 2), "clip")],
)
def test_impossible_windows_are_explained(arguments, words):
    with pytest.raises(ValueError, match=words):
        windows(*arguments)


@pytest.mark.parametrize("length", [1, 2, 5, 16])
def test_weights_are_a_triangle(length):
    weights = window_weights(length)
    torch.testing.assert_close(weights, weights.flip(0))
    assert (weights > 0).all()
    assert weights.max() <= 1
    assert (weights[: (length + 1) // 2].diff() > 0).all()


def test_fusion_keeps_what_all_windows_agree_on():
    truth = torch.randn(13, 4, 3, 2, generator=torch.Generator().manual_seed(0))
    fusion = LatentFusion((2, *truth.shape))
    for tile in windows(13, 6, 2):
        fusion.add(0, tile, truth[tile])
        fusion.add(1, tile, -truth[tile])
    torch.testing.assert_close(fusion.mean(), torch.stack([truth, -truth]))


def test_fusion_weighs_by_place_in_the_window():
    fusion = LatentFusion((1, 7, 1, 1, 1))
    for value, tile in enumerate(windows(7, 4, 1)):
        fusion.add(0, tile, torch.full((4, 1, 1, 1), float(value)))
    assert windows(7, 4, 1) == [[0, 1, 2, 3], [0, 4, 5, 6]]
    torch.testing.assert_close(fusion.mean().flatten(), torch.tensor([0.5, 0, 0, 0, 1, 1, 1]))
