"""Decoding in overlapping pieces."""

from __future__ import annotations

import pytest
import torch
from choreo.samplers.tiles import cross_faded, decode_tiled, pieces_of_time, starts


def enlarge(latents: torch.Tensor) -> torch.Tensor:
    return latents.repeat_interleave(8, -1).repeat_interleave(8, -2)


@pytest.mark.parametrize(("length", "piece", "overlap"), [(10, 4, 1), (9, 4, 2), (4, 4, 0), (3, 4, 1), (100, 7, 6)])
def test_tiles_cover_and_fit(length: int, piece: int, overlap: int) -> None:
    found = starts(length, piece, overlap)
    covered = {place for start in found for place in range(start, min(start + piece, length))}
    assert covered == set(range(length))
    assert max(found) + piece <= max(length, piece)


@pytest.mark.parametrize(("tile", "overlap"), [(4, 0), (4, 2), (8, 3), (64, 8)])
def test_tiles_of_a_local_decoder_give_the_whole(tile: int, overlap: int) -> None:
    latents = torch.rand(3, 4, 9, 14)
    torch.testing.assert_close(decode_tiled(enlarge, latents, tile, overlap), enlarge(latents))


def test_a_tile_sees_all_frames() -> None:
    seen = []
    decode_tiled(lambda z: seen.append(len(z)) or enlarge(z), torch.rand(5, 4, 16, 16), 8, 2)
    assert set(seen) == {5}


def test_neighbouring_tiles_fade_into_each_other() -> None:
    brightness = iter([0.0, 1.0])
    row = decode_tiled(lambda z: torch.full_like(enlarge(z), next(brightness)), torch.rand(1, 1, 4, 6), 4, 2)[0, 0, 0]
    assert (row[:16] == 0).all()
    assert (row[32:] == 1).all()
    assert (row.diff() >= 0).all()
    assert row.diff().max() < 0.1


@pytest.mark.parametrize(
    ("length", "chunk", "overlap"), [(10, 4, 0), (10, 4, 1), (11, 4, 3), (3, 8, 2), (8, 4, 2), (1, 4, 2)]
)
def test_every_frame_comes_once(length: int, chunk: int, overlap: int) -> None:
    frames = torch.rand(length, 2, 2)
    pieces = [frames[piece] for piece in pieces_of_time(length, chunk, overlap)]
    torch.testing.assert_close(torch.cat(list(cross_faded(pieces, overlap))), frames)


def test_an_overlap_that_does_not_advance_is_refused() -> None:
    with pytest.raises(ValueError, match="smaller"):
        pieces_of_time(10, 4, 4)
