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
    stretched_reference: bool = False
    """(StableAnimator) The reference is stretched to the size of the video, instead of cropped to its ratio first."""
    swapped_face_channels: bool = False
    """(StableAnimator) Inference shows the face networks red and blue swapped, unlike training."""
    swapped_noise_distribution: bool = False
    """Training draws ln(sigma) with mean 1.6 and deviation 0.7 instead of 0.7 and 1.6."""
    swapped_time_ids: bool = False
    """Training orders the time ids fps - 1, noise augmentation, motion bucket, unlike inference."""
    augmentation_unused: bool = False
    """Training names a noise augmentation in the time ids that the reference picture never gets."""
    poses_never_dropped: bool = False
    """Training keeps the poses where it drops everything else, so inference's unconditional pass was never seen."""
    truncated_reference: bool = False
    """Training turns the reference from [0, 1] into 8 bit by truncation."""
    plain_loss: bool = False
    """Training weighs hands like everything else."""
    ddim_extra_steps: bool = False
    """A number of DDIM steps that does not divide 1000 becomes the next larger one that the spacing 1000 // steps
    gives."""


CLEAN = Quirks()
PUBLISHED = Quirks(  # MimicMotion, and of its unofficial trainer
    truncated_round_trip=True,
    network_precision=True,
    truncated_frames=True,
    swapped_noise_distribution=True,
    swapped_time_ids=True,
    augmentation_unused=True,
    poses_never_dropped=True,
    truncated_reference=True,
    plain_loss=True,
)
PUBLISHED_STABLEANIMATOR = Quirks(network_precision=True, stretched_reference=True, swapped_face_channels=True)
WRAPPER = Quirks(ays_above_zero=True, pose_strength_ignored=True, always_guided=True)  # MimicMotion's ComfyUI wrapper
MAGICPOSE = Quirks(ddim_extra_steps=True)
