"""Decoding in overlapping pieces: of the picture, keeping all frames together, and of time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import torch

Decode = Callable[[torch.Tensor], torch.Tensor]


def starts(length: int, piece: int, overlap: int) -> list[int]:
    """Where pieces of a length begin, each sharing `overlap` with the one before; the last one is moved to the end."""
    if length <= piece:
        return [0]
    regular = list(range(0, length - piece, piece - overlap))
    return [*regular, length - piece]


def check_overlap(piece: int, overlap: int, what: str) -> None:
    """Raise ValueError unless pieces of a length advance."""
    if not 0 <= overlap < piece:
        raise ValueError(f"The overlap of {what} ({overlap}) must be smaller than their size ({piece}).")


def decode_tiled(decode: Decode, latents: torch.Tensor, tile: int, overlap: int, scale: int = 8) -> torch.Tensor:
    """Frames (n, channels, scale * h, scale * w) of latents (n, c, h, w), tile by tile of all n frames.

    decode: gives the frames of some latents, so that what mixes frames in it still does.
    tile, overlap: sides in latent pixels; where tiles overlap they fade into each other.
    """
    check_overlap(tile, overlap, "tiles")
    height, width = latents.shape[-2:]
    if height <= tile and width <= tile:
        return decode(latents)
    total = weight = None
    for top in starts(height, tile, overlap):
        for left in starts(width, tile, overlap):
            part = decode(latents[..., top : top + tile, left : left + tile])
            if total is None:
                total = part.new_zeros(*part.shape[:2], scale * height, scale * width)
                weight = part.new_zeros(scale * height, scale * width)
            fade = _fade(part.shape[-2], scale * overlap)[:, None] * _fade(part.shape[-1], scale * overlap)
            place = (
                ...,
                slice(scale * top, scale * top + len(fade)),
                slice(scale * left, scale * left + fade.shape[1]),
            )
            total[place] += part * fade.to(part)
            weight[place] += fade.to(part)
    return total / weight


def _fade(length: int, overlap: int) -> torch.Tensor:
    """Weights of a tile's pixels along one side: 1 inside, falling towards the borders over the overlap."""
    places = torch.arange(length) + 0.5
    return torch.minimum(places, length - places).clamp(max=max(overlap, 1)) / max(overlap, 1)


def pieces_of_time(length: int, chunk: int, overlap: int) -> list[slice]:
    """Which frames are decoded together; neighbours share `overlap` frames, the last piece may be shorter."""
    check_overlap(chunk, overlap, "chunks")
    return [slice(start, min(start + chunk, length)) for start in range(0, max(length - overlap, 1), chunk - overlap)]


def cross_faded(chunks: Iterable[torch.Tensor], overlap: int) -> Iterator[torch.Tensor]:
    """Decoded chunks (n, ...) whose neighbours share `overlap` frames -> every frame once, shared ones blended."""
    if overlap == 0:
        yield from chunks
        return
    tail: torch.Tensor | None = None
    for chunk in chunks:
        joined = chunk
        if tail is not None:
            share = ((torch.arange(overlap) + 1) / (overlap + 1)).view(-1, *[1] * (chunk.ndim - 1)).to(chunk)
            joined = torch.cat([tail + share * (chunk[:overlap] - tail), chunk[overlap:]])
        yield joined[:-overlap]
        tail = joined[-overlap:]
    if tail is not None:
        yield tail
