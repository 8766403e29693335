"""MagicPose as a system to train, both stages (arXiv 2311.12052, section 4; docs/training.md)."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from ..conditioning.picture import check_size, to_signed
from ..conditioning.text import encode_tokens, tokenize
from ..datasets.clips import Clip
from ..model_loaders.magicpose import MagicPoseNetworks, to_checkpoint
from ..model_loaders.sd15 import CONFIGS, SD15Parts
from ..networks.appearance import build_appearance, compute_bank, dead_weights, reading
from ..networks.sd15_unet import build_controlnet, build_sd15_unet, encode_hint, pose_residuals, predict_noise
from ..pipelines.magicpose import MagicPoseSettings, animate
from ..pipelines.mimicmotion import size_multiple
from ..samplers.ddim import TRAIN_STEPS, add_noise
from .encoding import digest, encode_frames
from .optimisation import groups_of
from .step import posterior_sample
from .svd import stored
from .system import Rows
from .windows import Reference, picture_rows

EXPORT = "MagicPose.safetensors"
LEAST_DEVIATION = 0.02  # of a picture in [-1, 1]; below it shows one colour, and teaches nothing
Part = Literal["both", "appearance", "controlnet"]
SAMPLING = MagicPoseSettings()


class AppearanceControl(nn.Module):
    """Appearance network and ControlNet as one module; the UNet they steer is frozen and no part of its state.

    controlnet: None in the first stage. The UNet goes to the devices that the module goes to.
    """

    def __init__(self, networks: MagicPoseNetworks) -> None:
        super().__init__()
        self.appearance, self.controlnet = networks.appearance, networks.controlnet
        self._unet, self._open = [networks.unet], ExitStack()

    @property
    def unet(self) -> nn.Module:
        """The denoising UNet."""
        return self._unet[0]

    def _apply(self, fn: Any, recurse: bool = True) -> AppearanceControl:
        self.unet._apply(fn, recurse)
        return super()._apply(fn, recurse)

    def forward(
        self,
        *,
        latents: torch.Tensor,
        timesteps: torch.Tensor,
        text: torch.Tensor,
        reference: torch.Tensor,
        pose_pictures: torch.Tensor,
        pose_share: torch.Tensor,
    ) -> torch.Tensor:
        """The prediction of the noise in latents (B, 4, h, w).

        timesteps: (B,); text: (B, tokens, D); reference: (B, 4, h, w), clean or noisy; pose_pictures: uint8
        (B, H, W, 3); pose_share: (B,), 0 for a black pose picture.
        """
        self.release()
        if next(self.unet.parameters()).device != latents.device:  # FSDP moves parameters without `_apply`
            self.unet.to(latents.device)
        bank = compute_bank(self.appearance, reference, timesteps, text)
        self._open.enter_context(reading(self.unet, bank))
        residuals = None
        if self.controlnet is not None:
            hint = pose_pictures.permute(0, 3, 1, 2) / 255 * pose_share.view(-1, 1, 1, 1)
            features = encode_hint(self.controlnet, hint)
            residuals = pose_residuals(self.controlnet, latents, timesteps, text, features)
        return predict_noise(self.unet, latents, timesteps, text, residuals)

    def release(self) -> None:
        """Give the UNet its own attention back; until then a backward pass may compute its activations again."""
        self._open.close()


@dataclass(frozen=True)
class PairRecipe:
    """What a step needs to know besides data; the published numbers.

    pose_dropout: chance of a black pose picture. noisy_reference: the reference gets the noise of the frame.
    """

    pose_dropout: float = 0.0
    noisy_reference: bool = False


@dataclass(frozen=True)
class PairLayout:
    """Samples of one frame of a clip with its pose, and a reference.

    reference: "clip" is the data set's own picture of the person; "frame" any frame of the clip, the same one included.
    frames: frames that are read of a clip.
    """

    reference: Reference = "clip"
    frames: int = 1

    @property
    def clip_frames(self) -> int:
        """Frames that a sample needs of a clip at least."""
        return self.frames

    def fingerprint(self) -> dict[str, Any]:
        """What encoded rows depend on besides the clip: nothing."""
        return {}

    def rows(self, clip: Clip) -> Rows:
        """pictures and poses uint8 (1 + F, H, W, 3). ValueError for a clip with a picture of one colour."""
        rows = picture_rows(clip)
        if min(picture.std() for picture in (clip.reference, *clip.frames)) < LEAST_DEVIATION * 127.5:
            raise ValueError(f"{clip.name} has a picture of a single colour.")
        return rows

    def take(self, rows: Rows, rng: np.random.Generator) -> Rows:
        """A frame's pose; frame and reference as pictures uint8 (2, H, W, 3) or moments (2, 8, h, w)."""
        frame, other = 1 + rng.integers(len(rows["poses"]) - 1, size=2)
        pair = [int(frame), 0 if self.reference == "clip" else int(other)]
        shown = {name: rows[name][pair] for name in ("pictures", "moments") if name in rows}
        return shown | {"poses": rows["poses"][pair[0]]}


@dataclass(frozen=True)
class Draws:
    """The random numbers of a batch of B samples.

    posterior: (B, 2, 4, h, w) normal, for the posteriors of frame and reference; noise: (B, 4, h, w) normal;
    timesteps: (B,) int64, 0 to 999; dropout: (B,) uniform in [0, 1), whether the pose is dropped.
    """

    posterior: torch.Tensor
    noise: torch.Tensor
    timesteps: torch.Tensor
    dropout: torch.Tensor

    @classmethod
    def of(cls, generators: list[torch.Generator], shape: tuple[int, ...]) -> Draws:
        """One CPU generator a sample; shape (4, h, w). A sample's numbers do not depend on the batch it is in."""
        rows = [
            (
                torch.randn(2, *shape, generator=g),
                torch.randn(shape, generator=g),
                torch.randint(TRAIN_STEPS, (), generator=g),
                torch.rand((), generator=g),
            )
            for g in generators
        ]
        return cls(*(torch.stack(column) for column in zip(*rows, strict=True)))

    def to(self, device: torch.device) -> Draws:
        """The same numbers on a device."""
        return Draws(*(part.to(device) for part in (self.posterior, self.noise, self.timesteps, self.dropout)))


def noise_loss(
    module: nn.Module,
    frame: torch.Tensor,
    reference: torch.Tensor,
    draws: Draws,
    *,
    text: torch.Tensor,
    pose_pictures: torch.Tensor,
    recipe: PairRecipe = PairRecipe(),
) -> torch.Tensor:
    """Mean squared error of the predicted noise (Ho et al., arXiv 2006.11239, equation 14).

    module: :class:`AppearanceControl`; frame, reference: latents (B, 4, h, w), scaled; text: (1 or B, tokens, D);
    pose_pictures: uint8 (B, H, W, 3).
    """
    t = draws.timesteps
    predicted = module(
        latents=add_noise(frame, draws.noise, t),
        timesteps=t,
        text=text.expand(len(frame), -1, -1),
        reference=add_noise(reference, draws.noise, t) if recipe.noisy_reference else reference,
        pose_pictures=pose_pictures,
        pose_share=(draws.dropout >= recipe.pose_dropout).float(),
    )
    return functional.mse_loss(predicted.float(), draws.noise)


class MagicPoseTraining:
    """Appearance network and ControlNet to train; a `training.system.TrainingSystem`.

    networks: the start; made float32 and trained in place; without a ControlNet it is the first stage.
    part: which of the two is trained. fix_hint: the ControlNet's encoder of pose pictures is not.
    half: export weights as float16. Texts are empty, as in inference.
    """

    def __init__(
        self,
        networks: MagicPoseNetworks,
        parts: SD15Parts,
        layout: PairLayout = PairLayout(),
        recipe: PairRecipe = PairRecipe(),
        *,
        lr: float = 1e-5,
        part: Part = "both",
        fix_hint: bool = False,
        half: bool = True,
        sampling: MagicPoseSettings = SAMPLING,
    ) -> None:
        self.module = AppearanceControl(networks).float().train()
        networks.unet.train().requires_grad_(False)
        choose_trained(self.module, part, fix_hint)
        self.parts, self.frozen = parts, (parts.vae.float(),)
        self.layout, self.recipe, self.half, self.sampling = layout, recipe, half, sampling
        self.rates = {"appearance": lr, "controlnet": lr}
        with torch.no_grad():
            self.text = encode_tokens(parts.text_encoder.float(), tokenize("", parts.text_encoder))

    def check_size(self, size: tuple[int, int]) -> None:
        """ValueError for a size (height, width) that the networks cannot have."""
        check_size(*size, size_multiple(self.module, self.parts))

    def parameter_groups(self) -> list[dict[str, Any]]:
        """The two networks, as far as they are trained."""
        return groups_of(self.module, self.rates)

    def fingerprint(self) -> dict[str, Any]:
        """What encoded rows depend on: the VAE."""
        return {"vae": digest(self.parts.vae), **self.layout.fingerprint()}

    def encode_rows(self, rows: Rows) -> Rows:
        """moments (R, 8, h, w) in the place of the pictures, on the CPU."""
        return {"poses": rows["poses"], "moments": self.moments(rows["pictures"]).cpu()}

    def encode_sample(self, sample: Rows, generator: torch.Generator) -> Rows:
        """moments (2, 8, h, w) in the place of the pictures."""
        return {"poses": sample["poses"], "moments": self.moments(sample["pictures"])}

    def moments(self, pictures: torch.Tensor) -> torch.Tensor:
        """The VAE's posterior (N, 8, h, w) of pictures uint8 (N, H, W, 3), where the VAE is."""
        device = next(self.parts.vae.parameters()).device
        with torch.no_grad():
            return encode_frames(self.parts.vae, to_signed(pictures.permute(0, 3, 1, 2).to(device)))

    def loss(
        self, module: nn.Module, batch: Rows, generators: list[torch.Generator]
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Mean squared error of the noise; no further numbers."""
        moments = batch["moments"]
        draws = Draws.of(generators, (moments.shape[2] // 2, *moments.shape[3:])).to(moments.device)
        latents = posterior_sample(moments, draws.posterior) * self.parts.vae.config.scaling_factor
        text = self.text.to(moments.device)
        frame, reference = latents.unbind(1)
        loss = noise_loss(module, frame, reference, draws, text=text, pose_pictures=batch["poses"], recipe=self.recipe)
        return loss, {}

    def networks(self, weights: Mapping[str, torch.Tensor]) -> MagicPoseNetworks:
        """Networks of their own with a state dict of the module, and the UNet."""
        self.module.release()
        config = self.module.unet.config
        controlnet = None if self.module.controlnet is None else build_controlnet(config)
        module = AppearanceControl(MagicPoseNetworks(self.module.unet, build_appearance(config), controlnet))
        module.load_state_dict(weights)
        module.eval().requires_grad_(False)
        return MagicPoseNetworks(module.unet, module.appearance, module.controlnet)

    def export(self, folder: Path, weights: Mapping[str, torch.Tensor]) -> None:
        """MagicPose.safetensors: all networks under the published names, the configuration in its metadata."""
        from safetensors.torch import save_file

        found = {"unet": self.module.unet.config, "vae": self.parts.vae.config}
        found["text_encoder"] = self.parts.text_encoder.config.to_dict()
        configs = {name: {key: config[key] for key in CONFIGS[name] if key in config} for name, config in found.items()}
        tensors = to_checkpoint(self.networks(weights), self.parts)
        save_file(stored(tensors, self.half), folder / EXPORT, {"format": "pt", "config": json.dumps(configs)})

    def animate(self, weights: Mapping[str, torch.Tensor], clip: Clip, seed: int) -> Iterable[np.ndarray]:
        """The clip's reference with the motion of its poses, through the sampler that users run; needs a ControlNet."""
        networks, unet = self.networks(weights), self.module.unet
        own = build_sd15_unet(unet.config).eval().requires_grad_(False)  # the sampler changes the dtype of what it gets
        own.load_state_dict(unet.state_dict())
        parts, settings = copy.deepcopy(self.parts), replace(self.sampling, seed=seed)
        return animate(replace(networks, unet=own), parts, clip.reference, clip.pose_pictures, settings)


def choose_trained(module: AppearanceControl, part: Part = "both", fix_hint: bool = False) -> None:
    """Let only those parameters have gradients that are trained and can get any. ValueError when there are none."""
    if part == "controlnet" and module.controlnet is None:
        raise ValueError("There is no ControlNet to train: the first stage has the appearance network alone.")
    module.requires_grad_(True)
    dead = dead_weights(module.appearance)
    for name, parameter in module.appearance.named_parameters():
        parameter.requires_grad_(part != "controlnet" and name not in dead)
    if module.controlnet is not None:
        module.controlnet.requires_grad_(part != "appearance")
        if fix_hint:
            module.controlnet.controlnet_cond_embedding.requires_grad_(False)
