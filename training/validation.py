"""Clips through the sampler that users run, beside the truth, while the training goes on."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from itertools import repeat
from pathlib import Path

import numpy as np
import torch

from ..datasets.clips import Clip, ClipSource
from ..evaluation.metrics import psnr, ssim
from ..media.strips import write_side_by_side
from .system import TrainingSystem


class Validation:
    """Animates clips with the weights of a step; writes `step-<n>-clip-<k>.mp4`: reference | pose | result | truth.

    folder: for the videos. seed: of the sampler's noise, the same for every step.
    """

    def __init__(self, system: TrainingSystem, clips: Sequence[Clip], folder: Path, seed: int = 0) -> None:
        self.system, self.clips, self.folder, self.seed = system, clips, folder, seed

    def __call__(self, weights: Mapping[str, torch.Tensor], step: int) -> dict[str, float]:
        """Mean PSNR in dB and SSIM over all clips, and the PSNR of the reference picture held still."""
        before = [_Kept(module) for module in self.system.frozen]
        try:
            scores = [self._one(weights, step, number, clip) for number, clip in enumerate(self.clips)]
        finally:
            for kept in before:  # the sampler leaves them on the CPU, in its own dtype
                kept.restore()
        means = np.mean(scores, axis=0)
        names = ("validation PSNR", "validation SSIM", "validation PSNR of the reference")
        return dict(zip(names, means.tolist(), strict=True))

    def _one(
        self, weights: Mapping[str, torch.Tensor], step: int, number: int, clip: Clip
    ) -> tuple[float, float, float]:
        path = self.folder / f"step-{step:06d}-clip-{number}.mp4"
        found = np.stack(list(self.system.animate(weights, clip, self.seed)))
        write_side_by_side(path, clip.fps, repeat(clip.reference), clip.pose_pictures, found, clip.frames)
        still = np.broadcast_to(clip.reference, clip.frames.shape)
        return (
            float(psnr(found, clip.frames).mean()),
            float(ssim(found, clip.frames).mean()),
            float(psnr(still, clip.frames).mean()),
        )


class _Kept:
    """A network as it is, float32, to be brought back to the same bits and place."""

    def __init__(self, module: torch.nn.Module) -> None:
        self.module, self.device = module, next(module.parameters()).device
        self.weights = {name: tensor.cpu() for name, tensor in module.state_dict().items()}

    def restore(self) -> None:
        """Undo changes of dtype and device."""
        torch.nn.Module.to(self.module, self.device, torch.float32)  # diffusers' own `to` warns without cause
        self.module.load_state_dict(self.weights)


def validation_clips(source: ClipSource, number: int, frames: int, size: tuple[int, int]) -> list[Clip]:
    """The first clips of a data set that can be used; those that cannot are reported. ValueError when there is none."""
    clips, index = [], 0
    while len(clips) < number and index < len(source) and index < number + 20:
        try:
            clips.append(source.clip(index, frames, size))
        except ValueError as error:
            logging.warning("Clip %d is left out of the validation: %s", index, error)
        index += 1
    if not clips:
        raise ValueError(f"The data set for validation gave no clip of {frames} frames; lower --validate-frames.")
    return clips
