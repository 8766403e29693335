"""The sampling loop of MagicPose (arXiv 2311.12052): appearance bank, pose residuals, image guidance, DDIM.

Steps are outside, frames inside: the bank of a step is computed once and read by all frames, which go through the
networks in batches. All noise is shared by the frames, so a frame does not depend on its neighbours.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from ..networks.appearance import compute_bank, reading
from ..networks.finite import check_finite
from ..networks.sd15_unet import pose_residuals, predict_noise
from ..runtime import current, with_smaller_batches
from .ddim import Schedule, add_noise, ddim_step
from .guidance import guide

if TYPE_CHECKING:
    from ..conditioning.magicpose import MagicPoseConditioning
    from ..conditioning.svd import Noise

CONTROL_MODES = ("controlnet_important", "balance")
BATCHES = (16, 8, 4, 2, 1)


@dataclass(frozen=True)
class ClipNoise:
    """Unit Gaussian noise of a clip, shared by its frames, float32 on the CPU.

    start: (1, 4, h, w). reference, steps: (steps, 4, h, w), for a noisy reference and for eta above 0, else None.
    """

    start: torch.Tensor
    reference: torch.Tensor | None = None
    steps: torch.Tensor | None = None

    @classmethod
    def draw(cls, noise: Noise, shape: tuple[int, ...], schedule: Schedule, noisy_reference: bool) -> ClipNoise:
        """noise(*shape) is called for the start, then for the reference and the steps where they need noise.

        shape: (4, h, w) of the latents.
        """
        start = noise(1, *shape)
        reference = noise(len(schedule), *shape) if noisy_reference else None
        return cls(start, reference, noise(len(schedule), *shape) if schedule.sigmas.any() else None)


@dataclass
class Banks:
    """The appearance banks of a clip, computed at first use: one for every step and text.

    keep: hold them on the CPU for the next group of frames; else each is computed once more when asked for again.
    """

    appearance: Any
    reference: torch.Tensor
    timesteps: torch.Tensor
    noise: torch.Tensor | None = None
    keep: bool = False
    _kept: dict[tuple[int, int], list[torch.Tensor]] = field(default_factory=dict)

    def get(self, step: int, text: torch.Tensor) -> list[torch.Tensor]:
        """The bank of a step for a text (1, tokens, D), on the text's device; the text must not be edited."""
        key = (step, id(text))
        if key in self._kept:
            return [entry.to(text.device) for entry in self._kept[key]]
        t = self.timesteps[step]
        latents = self.reference
        if self.noise is not None:
            latents = add_noise(latents, self.noise[step : step + 1], t)

        def compute(_batch: int) -> list[torch.Tensor]:
            with torch.no_grad():
                return compute_bank(self.appearance, latents.to(text), t.to(text.device), text)

        bank = with_smaller_batches(compute, [1], "looking at the reference picture")
        if self.keep:
            self._kept[key] = [entry.cpu() for entry in bank]
        return bank


class MagicPoseSampler:
    """Samples groups of frames of one clip; networks are on the runtime's device while it works.

    networks: `unet`, `appearance` and `controlnet`, see :class:`.model_loaders.magicpose.MagicPoseNetworks`.
    guidance: s in e_u + s (e_c - e_u); 1 leaves the unconditional prediction out.
    control_mode: what is unconditional. "controlnet_important": the plain UNet with the same text, without reference
        and pose. "balance": everything, with the unconditional text.
    several: more than one group will be sampled, so banks are kept.
    """

    def __init__(
        self,
        networks: Any,
        conditioning: MagicPoseConditioning,
        noise: ClipNoise,
        schedule: Schedule,
        *,
        guidance: float = 7.0,
        control_mode: str = "controlnet_important",
        several: bool = False,
        batches: tuple[int, ...] = BATCHES,
    ) -> None:
        if control_mode not in CONTROL_MODES:
            raise ValueError(f"Unknown control mode {control_mode!r}; choose one of {', '.join(CONTROL_MODES)}.")
        runtime = current()
        self.networks, self.noise, self.schedule = networks, noise, schedule
        self.guidance, self.is_balance = guidance, control_mode == "balance"
        self.batches = list(batches)
        self.device, self.dtype = runtime.device, runtime.dtype
        same = torch.equal(conditioning.text, conditioning.unconditional_text)
        self.text = conditioning.text.to(self.device, self.dtype)
        self.other_text = self.text if same else conditioning.unconditional_text.to(self.device, self.dtype)
        self.guided = guidance != 1 and not (self.is_balance and same)  # the same twice needs no guidance
        self.banks = Banks(
            networks.appearance, conditioning.reference, schedule.timesteps, noise.reference, keep=several
        )

    def sample(
        self,
        features: torch.Tensor,
        on_step: Callable[[int, torch.Tensor], None] | None = None,
        resume: tuple[int, torch.Tensor] | None = None,
    ) -> torch.Tensor:
        """Latents (n, 4, h, w) of a group of frames, float32 on the CPU, multiplied by the VAE's scaling factor.

        features: (n, C, h, w) of :func:`.conditioning.magicpose.encode_poses`.
        on_step: called with the step's number and the latents after it. resume: how many steps are done, and the
        latents after the last of them.
        Raises FloatingPointError naming the step where NaN or infinity appeared, and what the runtime raises on cancel.
        """
        frames, steps = len(features), len(self.schedule)
        done, x = resume or (0, self.noise.start.expand(frames, -1, -1, -1).clone())
        for i in range(done, steps):
            noise = self.predict(x, i, features, same=i == 0)
            check_finite(noise, f"the prediction in step {i + 1} of {steps}")
            fresh = None if self.noise.steps is None else self.noise.steps[i]
            x, denoised = ddim_step(x, noise, self.schedule, i, fresh)
            current().preview(denoised)
            if on_step is not None:
                on_step(i, x)
        return x

    def predict(self, x: torch.Tensor, step: int, features: torch.Tensor, same: bool = False) -> torch.Tensor:
        """The guided prediction of the noise in x (n, 4, h, w), float32 on the CPU; same: all rows of x are equal."""
        return self.guided_by(*self.predictions(x, step, features, same))

    def predictions(
        self, x: torch.Tensor, step: int, features: torch.Tensor, same: bool = False
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """The conditional and the unconditional prediction, the latter None where nothing needs it."""
        conditional = self._controlled(x, step, features, self.text)
        if not self.guided:
            return conditional, None
        if self.is_balance:
            return conditional, self._controlled(x, step, features, self.other_text)
        if same:
            return conditional, self._batched(x[:1], step, None, self.text).expand_as(x)
        return conditional, self._batched(x, step, None, self.text)

    def guided_by(self, conditional: torch.Tensor, unconditional: torch.Tensor | None) -> torch.Tensor:
        """e_u + s (e_c - e_u), or e_c alone."""
        if unconditional is None:
            return conditional
        return guide(unconditional, conditional, torch.tensor(self.guidance))

    def _controlled(self, x: torch.Tensor, step: int, features: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
        """With the appearance of the reference and the poses."""
        current().check_cancelled()
        with torch.no_grad(), reading(self.networks.unet, self.banks.get(step, text)):
            return self._batched(x, step, features, text)

    def _batched(self, x: torch.Tensor, step: int, features: torch.Tensor | None, text: torch.Tensor) -> torch.Tensor:
        """The UNet's prediction, as many frames at once as fit; fewer for the rest of the run after memory ran out."""

        def call(size: int) -> torch.Tensor:
            self.batches = self.batches[self.batches.index(size) :]
            parts = range(0, len(x), size)
            return torch.cat([self._call(x[k : k + size], step, _rows(features, k, size), text) for k in parts])

        return with_smaller_batches(call, self.batches, f"predicting {min(len(x), self.batches[0])} frames at once")

    def _call(self, x: torch.Tensor, step: int, features: torch.Tensor | None, text: torch.Tensor) -> torch.Tensor:
        current().check_cancelled()
        noisy, t = x.to(self.device, self.dtype), self.schedule.timesteps[step].to(self.device)
        text = text.expand(len(x), -1, -1)
        residuals = None
        with torch.no_grad():
            if features is not None:
                poses = features.to(self.device, self.dtype)
                residuals = pose_residuals(self.networks.controlnet, noisy, t, text, poses)
            return predict_noise(self.networks.unet, noisy, t, text, residuals).float().cpu()


def _rows(features: torch.Tensor | None, first: int, size: int) -> torch.Tensor | None:
    return None if features is None else features[first : first + size]
