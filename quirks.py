"""Behaviours of the published programs that differ from what Choreo does by default."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Quirks:
    """Which published behaviours to reproduce; handed down as `quirks=`, all off by default."""

    truncated_round_trip: bool = False
    """The picture goes to [-1, 1] and back to 8 bit by truncation before CLIP and VAE see it (63 of the 256 values
    lose 1 in float32, 20 in float16)."""
    network_precision: bool = False
    """Latents, timesteps, window weights, accumulators and guidance are kept in the UNet's dtype instead of float32,
    and the product of the Euler step is rounded to it."""
    truncated_frames: bool = False
    """Decoded values become 8 bit by truncation instead of rounding."""
    ays_above_zero: bool = False
    """The 10-step Align-Your-Steps schedule stops at sigma 0.002 instead of 0."""
    pose_strength_ignored: bool = False
    """The pose strength has no effect."""
    always_guided: bool = False
    """The unconditional pass runs at any guidance, so that guidance below 1 leans towards it."""


CLEAN = Quirks()
PUBLISHED = Quirks(truncated_round_trip=True, network_precision=True, truncated_frames=True)  # MimicMotion
WRAPPER = Quirks(ays_above_zero=True, pose_strength_ignored=True, always_guided=True)  # MimicMotion's ComfyUI wrapper
