"""What training MimicMotion and StableAnimator has in common: SVD's UNet with poses, VAE and image tower frozen."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from ..conditioning.picture import check_size, to_signed
from ..datasets.clips import Clip
from ..model_loaders.svd import SVDParts
from ..networks.svd_unet import SVD_XT, predict
from ..pipelines.mimicmotion import size_multiple
from .encoding import digest, encode_clip, encode_frames, encode_reference
from .optimisation import groups_of
from .regions import region_weights
from .step import Draws, Recipe, denoising_loss, noisy_clips
from .system import Rows
from .windows import WindowLayout


class PosedUNet(nn.Module):
    """UNet and PoseNet as one module: one call, one set of gradients."""

    def __init__(self, unet: nn.Module, pose_net: nn.Module) -> None:
        super().__init__()
        self.unet, self.pose_net = unet, pose_net

    def forward(
        self,
        *,
        sample: torch.Tensor,
        timestep: torch.Tensor,
        image_embeds: torch.Tensor,
        time_ids: torch.Tensor,
        pose_share: torch.Tensor,
        pose_pictures: torch.Tensor,
    ) -> torch.Tensor:
        """v (B, F, 4, h, w) for the :meth:`.step.NoisyClips.inputs` and pose pictures uint8 (B, F, H, W, 3)."""
        frames = pose_pictures.shape[1]
        features = self.pose_net(to_signed(pose_pictures.flatten(0, 1).permute(0, 3, 1, 2)))
        features = features * pose_share.repeat_interleave(frames).view(-1, 1, 1, 1)
        return predict(self.unet, sample, timestep, image_embeds, time_ids, pose_features=features)


class SVDTraining:
    """A `training.system.TrainingSystem` but for what a checkpoint and a validation are.

    module: what is trained, float32; its parts are those that `rates` names, with their learning rates. parts: the
    networks that encode.
    """

    module: PosedUNet

    def __init__(
        self, module: PosedUNet, parts: SVDParts, layout: WindowLayout, recipe: Recipe, rates: Mapping[str, float]
    ) -> None:
        asked, given = module.unet.config.cross_attention_dim, parts.image_encoder.config.projection_dim
        if asked != given:
            raise ValueError(
                f"The UNet takes picture embeddings of {asked} numbers, but the image tower gives {given}; "
                "use the networks that belong together."
            )
        self.module, self.parts, self.frozen = module, parts, (parts.vae.float(), parts.image_encoder.float())
        self.layout, self.recipe, self.rates = layout, recipe, rates

    def check_size(self, size: tuple[int, int]) -> None:
        """ValueError for a size (height, width) that the networks cannot have."""
        check_size(*size, size_multiple(self.module, self.parts))

    def parameter_groups(self) -> list[dict[str, Any]]:
        """The parts of the module with their learning rates, as far as they are trained."""
        return groups_of(self.module, self.rates)

    def fingerprint(self) -> dict[str, Any]:
        """What encoded rows depend on: the frozen networks, and the layout."""
        frozen = {"vae": digest(self.parts.vae), "image_encoder": digest(self.parts.image_encoder)}
        return {**frozen, **self.layout.fingerprint()}

    def encode_rows(self, rows: Rows) -> Rows:
        """moments (R, 8, h, w) and embeds (R or 1, D) in the place of the pictures, on the CPU."""
        vae, tower = self.frozen
        device = next(vae.parameters()).device
        pictures = to_signed(rows["pictures"].permute(0, 3, 1, 2))
        embeds = [encode_reference(tower, picture)[0].cpu() for picture in self.layout.referenced(rows)]
        kept = {name: tensor for name, tensor in rows.items() if name != "pictures"}
        return kept | {"moments": encode_frames(vae, pictures.to(device)).cpu(), "embeds": torch.stack(embeds)}

    def encode_sample(self, sample: Rows, generator: torch.Generator) -> Rows:
        """moments, image_latents and image_embeds in the place of the pictures, and the strength of the noise."""
        recipe, augmentation = self.recipe, 0.0
        strength = torch.tensor(recipe.noise_aug)
        if recipe.noise_aug and not recipe.quirks.augmentation_unused:
            if recipe.noise_aug_varies:
                strength = strength * torch.rand((), generator=generator)
            height, width = sample["reference"].shape[1:3]
            augmentation = strength * torch.randn(1, 3, height, width, generator=generator)
            augmentation = augmentation.to(next(self.parts.vae.parameters()).device)
        encoded = encode_clip(
            *self.frozen, sample["pictures"], sample["reference"], augmentation=augmentation, quirks=recipe.quirks
        )
        kept = {name: sample[name] for name in ("poses", self.layout.region)}
        return {**kept, "noise_aug": strength, **encoded}

    def loss(
        self, module: nn.Module, batch: Rows, generators: list[torch.Generator]
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Mean loss of the clips, and the plain one without weights for hands or faces."""
        moments = batch["moments"]
        shape = (*moments.shape[1:2], moments.shape[2] // 2, *moments.shape[3:])
        clips = noisy_clips(
            moments,
            batch["image_latents"],
            batch["image_embeds"],
            self.draws(batch, generators, shape).to(moments.device),
            noise_aug=batch.get("noise_aug", torch.zeros(len(moments), device=moments.device)),
            recipe=self.recipe,
            scaling=self.parts.vae.config.scaling_factor,
        )
        v = module(**clips.inputs(), **self.conditions(batch))
        region = self.layout.region
        factor = 1.0 if self.recipe.quirks.plain_loss else self.recipe.region_weight
        loss = denoising_loss(v, clips, region_weights(batch[region], factor)).mean()
        return loss, {f"loss without {region[:-1]} weights": denoising_loss(v.detach(), clips).mean()}

    def draws(self, batch: Rows, generators: list[torch.Generator], shape: tuple[int, ...]) -> Draws:
        """The random numbers of a batch; shape (F, 4, h, w)."""
        return Draws.of(generators, shape, self.recipe.noise_levels())

    def conditions(self, batch: Rows) -> dict[str, torch.Tensor]:
        """What the module takes besides noisy clips."""
        return {"pose_pictures": batch["poses"]}

    def config_text(self) -> dict[str, str]:
        """The metadata of a UNet's file: its configuration and window."""
        config = {key: value for key, value in self.module.unet.config.items() if key in SVD_XT}
        return {"format": "pt", "config": json.dumps({"unet": config, "window": self.layout.frames})}

    def export(self, folder: Path, weights: Mapping[str, torch.Tensor]) -> None:
        """See `TrainingSystem.export`."""
        raise NotImplementedError

    def animate(self, weights: Mapping[str, torch.Tensor], clip: Clip, seed: int) -> Iterable[np.ndarray]:
        """See `TrainingSystem.animate`."""
        raise NotImplementedError


def stored(weights: Mapping[str, torch.Tensor], half: bool) -> dict[str, torch.Tensor]:
    """Weights as they are exported: on the CPU, float16 or float32."""
    dtype = torch.float16 if half else torch.float32
    return {name: tensor.detach().to("cpu", dtype).contiguous() for name, tensor in weights.items()}
