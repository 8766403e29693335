"""The sampling loop of SVD-based video models: windows, guidance and steps (MimicMotion, sections 3.1 and 3.4)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from ..networks.finite import check_finite
from ..quirks import CLEAN, Quirks
from ..runtime import current, with_smaller_batches
from .animate_lcm import lcm_step
from .euler import denoised_from_v, euler_step
from .guidance import guidance_ramp, guide, needs_unconditional
from .sigmas import initial_scale, timesteps
from .windows import LatentFusion, windows

if TYPE_CHECKING:
    from ..conditioning.svd import Noise, SVDConditioning

SAMPLERS = ("euler", "animate_lcm")
BATCH_BELOW = 65536  # latent pixels of a window; larger ones fill a GPU alone, and two at once cost twice the memory

Predict = Callable[..., torch.Tensor]
Refine = Callable[[torch.Tensor, int], torch.Tensor]  # (x0 (frames, 4, h, w) float32 on the CPU, step from 0) -> x0


@dataclass(frozen=True)
class PoseUse:
    """How strongly, and in which share of the steps, the poses act.

    strength multiplies the pose features; a step i of S has poses when round(S start) <= i <= round(S end).
    """

    strength: float = 1.0
    start: float = 0.0
    end: float = 1.0

    def active(self, step: int, steps: int) -> bool:
        """Whether the poses act in this step."""
        return self.strength != 0 and round(steps * self.start) <= step <= round(steps * self.end)


def seeded_noise(seed: int) -> Noise:
    """noise(*shape): unit Gaussian float32 values drawn on the CPU, so that a seed means the same on every device."""
    generator = torch.Generator("cpu").manual_seed(seed)
    return lambda *shape: torch.randn(shape, generator=generator)


def sample_svd(
    predict: Predict,
    conditioning: SVDConditioning,
    noise: Noise,
    *,
    sigmas: torch.Tensor,
    window: int,
    overlap: int,
    guidance: tuple[float, float] = (2.0, 2.0),
    sampler: str = "euler",
    pose_use: PoseUse = PoseUse(),
    dtype: torch.dtype | None = None,
    quirks: Quirks = CLEAN,
    batch_passes: bool | None = None,
    refine: Refine | None = None,
    on_step: Callable[[int, torch.Tensor], None] | None = None,
    resume: tuple[int, torch.Tensor] | None = None,
) -> torch.Tensor:
    """Latents of a whole clip, (frames, 4, h, w) float32 on the CPU, multiplied by the VAE's scaling factor.

    predict: predict(sample (B, T, 8, h, w), timestep, image_embeds (B, 1, D), time_ids (B, 3),
        pose_features=(B*T, C, h, w) or None) -> v (B, T, 4, h, w); called on the runtime's device.
    noise: called with (1, window, 4, h, w) for the start, which repeats every `window` frames, and by animate_lcm
        with (1, frames, 4, h, w) before every step but the last.
    sigmas: descending, steps + 1 values (see :mod:`.sigmas`).
    guidance: of the first and the last frame; the unconditional pass is left out when neither exceeds 1.
    dtype: of the UNet's inputs, default the runtime's. Latents, weights and sums stay float32 (see `quirks`).
    batch_passes: the conditional and the unconditional pass in one call; None decides by the size of a window.
    refine: called as refine(x0, step) with what a step predicts; the step is taken towards what it returns.
    on_step: called with the step's number and the latents after it.
    resume: how many steps of the same run are done already, and the latents after the last of them.
    Raises FloatingPointError naming the step where NaN or infinity appeared, and what the runtime raises on cancel.
    """
    dtype = dtype or current().dtype
    state_dtype = dtype if quirks.network_precision else torch.float32
    tiles = windows(conditioning.num_frames, window, overlap)
    guided = needs_unconditional(*guidance) or quirks.always_guided
    passes = _Passes(predict, conditioning, dtype, guided, pose_use.strength)
    passes.choose_batches(batch_passes, len(tiles[0]))
    ramp = guidance_ramp(*guidance, conditioning.num_frames)
    x = _first_latents(conditioning, noise, window, initial_scale(sigmas), state_dtype)
    times = timesteps(sigmas).to(state_dtype)
    steps = len(times)
    done, x = (0, x) if resume is None else _resumed(*resume, x, noise if sampler == "animate_lcm" else None)
    for i, t in enumerate(times[done:], done):
        sigma, sigma_next = sigmas[i], sigmas[i + 1]
        scaled, with_poses = x / (sigma**2 + 1) ** 0.5, pose_use.active(i, steps)
        predictions = _fused_predictions(passes, scaled, t, tiles, with_poses=with_poses, step=(i, steps))
        v = guide(*predictions, ramp) if passes.num_rows == 2 else predictions[0]
        denoised = denoised_from_v(x, v, sigma)
        denoised = denoised if refine is None else refine(denoised, i)
        if sampler == "animate_lcm":
            fresh = noise(1, *x.shape)[0] if i + 1 < steps else torch.zeros(())
            x = lcm_step(denoised, sigma_next, fresh).to(x.dtype)
        else:
            x = euler_step(x, denoised, sigma, sigma_next)
        current().preview(denoised)
        if on_step is not None:
            on_step(i, x)
    return x.float()


def _fused_predictions(
    passes: _Passes,
    scaled: torch.Tensor,
    t: torch.Tensor,
    tiles: list[list[int]],
    *,
    with_poses: bool,
    step: tuple[int, int],
) -> torch.Tensor:
    """(passes, frames, 4, h, w): the mean over the windows of what each pass predicts; step: (number, of how many)."""
    fusion = LatentFusion((passes.num_rows, *scaled.shape), scaled.dtype)
    i, steps = step
    for k, tile in enumerate(tiles):
        where = f"step {i + 1} of {steps}, window {k + 1} of {len(tiles)}"
        for row, prediction in passes.run(scaled, t, tile, with_poses):
            fusion.add(row, tile, check_finite(prediction, f"the UNet's prediction in {where}"))
        current().progress("sampling", i * len(tiles) + k + 1, steps * len(tiles))
    return fusion.mean()


def _first_latents(
    conditioning: SVDConditioning, noise: Noise, window: int, scale: torch.Tensor, dtype: torch.dtype
) -> torch.Tensor:
    height, width = conditioning.image_latents.shape[-2:]
    period = noise(1, window, 4, height, width)[0].to(dtype) * scale
    return period[torch.arange(conditioning.num_frames) % window]


def _resumed(done: int, latents: torch.Tensor, first: torch.Tensor, noise: Noise | None) -> tuple[int, torch.Tensor]:
    """Steps done and latents after them, with the noise that those steps drew drawn again."""
    if latents.shape != first.shape:
        raise ValueError(f"The latents to go on from have the shape {tuple(latents.shape)}, not {tuple(first.shape)}.")
    for _ in range(done if noise else 0):
        noise(1, *first.shape)
    return done, latents.to(first)


class _Passes:
    """The unconditional (row 0, when guided) and the conditional (last row) prediction of a window."""

    def __init__(
        self, predict: Predict, conditioning: SVDConditioning, dtype: torch.dtype, guided: bool, pose_strength: float
    ) -> None:
        self.predict, self.conditioning, self.dtype = predict, conditioning, dtype
        self.device = current().device
        self.num_rows = 2 if guided else 1
        self.pose_strength = pose_strength
        shares = torch.tensor([0.0, 1.0][-self.num_rows :], dtype=dtype).view(-1, 1, 1)
        embeds = (conditioning.image_embeds.to(dtype) * shares).to(self.device)
        ids = conditioning.time_ids.to(self.device, dtype).expand(self.num_rows, -1)
        latents = conditioning.image_latents.to(dtype) * shares[..., None]
        everything = [tuple(range(self.num_rows)), *((row,) for row in range(self.num_rows))]
        # one tensor object per choice of rows: the UNet's constants of a run are looked up by it
        self.inputs = {
            rows: (embeds[list(rows)], ids[list(rows)], latents[list(rows)].to(self.device)) for rows in everything
        }
        self.features: tuple[list[int], torch.Tensor] | None = None

    def choose_batches(self, batch_passes: bool | None, frames: int) -> None:
        """Which numbers of rows to try in one call, in order; fewer after memory has run out once."""
        if batch_passes is None:
            small = frames * self.conditioning.image_latents[0, 0].numel() <= BATCH_BELOW
            batch_passes = small and self.device.type != "cpu"  # a CPU gains nothing (measured: loses 5 %)
        self.batches = [2, 1] if batch_passes and self.num_rows == 2 else [1]

    def run(
        self, scaled: torch.Tensor, t: torch.Tensor, tile: list[int], with_poses: bool
    ) -> Iterator[tuple[int, torch.Tensor]]:
        """(row, prediction (len(tile), 4, h, w) on the CPU) of every row."""
        noisy = scaled[tile].to(self.device, self.dtype)
        poses = self._poses(tile) if with_poses else None
        rows = tuple(range(self.num_rows))

        def call(batch: int) -> list[torch.Tensor]:
            self.batches = self.batches[self.batches.index(batch) :]
            parts = [rows] if batch == self.num_rows else [(row,) for row in rows]
            return [v for part in parts for v in self._call(noisy, t, part, poses).cpu()]

        return enumerate(with_smaller_batches(call, self.batches, f"predicting {len(tile)} frames at once"))

    def _call(
        self, noisy: torch.Tensor, t: torch.Tensor, rows: tuple[int, ...], poses: torch.Tensor | None
    ) -> torch.Tensor:
        current().check_cancelled()
        embeds, ids, latents = self.inputs[rows]
        frames = len(noisy)
        sample = torch.cat([noisy.expand(len(rows), *noisy.shape), latents[:, None].expand(-1, frames, -1, -1, -1)], 2)
        conditional = self.num_rows - 1
        if poses is not None and rows != (conditional,):
            poses = torch.cat([torch.zeros_like(poses), poses]) if conditional in rows else None
        with torch.no_grad():
            return self.predict(sample, t.to(self.device), embeds, ids, pose_features=poses)

    def _poses(self, tile: list[int]) -> torch.Tensor:
        """Features of a window on the device; kept while the window stays the same."""
        if self.features is None or self.features[0] != tile:
            self.features = None
            stacked = torch.stack([self.conditioning.pose_features[frame] for frame in tile])
            self.features = (tile, stacked.to(self.device, self.dtype) * self.pose_strength)
        return self.features[1]
