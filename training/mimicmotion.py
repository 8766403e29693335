"""MimicMotion as a system to train (arXiv 2406.19680; docs/training.md)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import nn

from ..conditioning.clip_image import clip_pixels, embed_picture
from ..conditioning.picture import check_size, to_signed
from ..datasets.clips import Clip
from ..model_loaders.mimicmotion import MimicMotionNetworks
from ..model_loaders.svd import SVDParts
from ..networks.pose_net import PoseNet
from ..networks.svd_unet import SVD_XT, build_unet, predict
from ..pipelines.mimicmotion import Settings, animate, size_multiple
from ..quirks import CLEAN, Quirks
from .lean import lean
from .regions import THRESHOLD, hand_shares, region_weights
from .step import Draws, Recipe, denoising_loss, noisy_clips
from .system import Rows

ENCODE_BATCH = 8
RECIPE, SAMPLING = Recipe(), Settings()
Reference = Literal["clip", "frame"]
Part = Literal["both", "unet", "pose_net"]


class PosedUNet(nn.Module):
    """UNet and PoseNet as one module: one call, one set of gradients."""

    def __init__(self, unet: nn.Module, pose_net: nn.Module) -> None:
        super().__init__()
        self.unet, self.pose_net = unet, pose_net

    def forward(
        self,
        sample: torch.Tensor,
        timestep: torch.Tensor,
        image_embeds: torch.Tensor,
        time_ids: torch.Tensor,
        *,
        pose_pictures: torch.Tensor,
        pose_share: torch.Tensor,
    ) -> torch.Tensor:
        """v (B, F, 4, h, w); pose_pictures uint8 (B, F, H, W, 3), pose_share (B,): 0 for clips without poses."""
        frames = pose_pictures.shape[1]
        features = self.pose_net(to_signed(pose_pictures.flatten(0, 1).permute(0, 3, 1, 2)))
        features = features * pose_share.repeat_interleave(frames).view(-1, 1, 1, 1)
        return predict(self.unet, sample, timestep, image_embeds, time_ids, pose_features=features)


def encode_frames(vae: nn.Module, frames: torch.Tensor) -> torch.Tensor:
    """The VAE's posterior of frames in [-1, 1]: float32 (N, 8, h, w), mean and ln of the variance, unscaled."""
    weight = next(vae.parameters())
    posteriors = [vae.encode(part.to(weight)).latent_dist for part in frames.split(ENCODE_BATCH)]
    return torch.cat([torch.cat([each.mean, each.logvar], dim=1).float() for each in posteriors])


def encode_clip(
    vae: nn.Module,
    image_encoder: nn.Module,
    frames: torch.Tensor,
    reference: torch.Tensor,
    *,
    augmentation: torch.Tensor | float = 0.0,
    quirks: Quirks = CLEAN,
) -> Rows:
    """What the frozen networks give for a clip, float32 on their device.

    frames: uint8 (F, H, W, 3); reference: uint8 (1, H, W, 3); augmentation: noise on the reference, (1, 3, H, W).
    Returns moments (F, 8, h, w), image_latents (4, h, w) and image_embeds (1, D).
    """
    device = next(vae.parameters()).device
    if quirks.truncated_reference:
        reference = (reference.float() / 255 * 255).to(torch.uint8)
    with torch.no_grad():
        picture = to_signed(reference.permute(0, 3, 1, 2).to(device)) + augmentation
        image_latents = encode_frames(vae, picture)[0, :4]
        pixels = clip_pixels(reference[0].cpu().numpy(), size=image_encoder.config.image_size)
        embeds = embed_picture(image_encoder, pixels)[0].float()
        moments = encode_frames(vae, to_signed(frames.permute(0, 3, 1, 2).to(device)))
    return {"moments": moments, "image_latents": image_latents, "image_embeds": embeds}


@dataclass(frozen=True)
class WindowLayout:
    """Samples of `frames` frames that follow one another, from a random start in the clip.

    reference: "clip" is the data set's own picture of the person; "frame" any frame of the clip. As in inference the
        reference opens the window as frame 0, with its own pose, where that is known.
    latent_factor: pixels to a latent pixel.
    hand_threshold: scores that a hand needs to be trusted.
    """

    frames: int
    reference: Reference = "clip"
    latent_factor: int = 8
    hand_threshold: float = THRESHOLD

    @property
    def clip_frames(self) -> int:
        """Frames that a sample needs of a clip at least."""
        return self.frames

    def rows(self, clip: Clip) -> Rows:
        """pictures and poses uint8 (1 + F, H, W, 3), hands (1 + F, h, w) shares, posed (1,): row 0 has a pose."""
        height, width = clip.reference.shape[:2]
        latent_size = (height // self.latent_factor, width // self.latent_factor)
        hands = torch.zeros(1 + len(clip.frames), *latent_size)
        if clip.poses is not None:
            hands[1:] = hand_shares(clip.poses, (height, width), latent_size, self.hand_threshold)
        posed = clip.reference_pose is not None
        first = clip.reference_pose if posed else np.zeros_like(clip.reference)
        return {
            "pictures": torch.from_numpy(np.concatenate([clip.reference[None], clip.frames])),
            "poses": torch.from_numpy(np.concatenate([first[None], clip.pose_pictures])),
            "hands": hands,
            "posed": torch.tensor([posed]),
        }

    def take(self, rows: Rows, rng: np.random.Generator) -> Rows:
        """A window: its reference and its rows, raw (pictures) or encoded (moments, embeds)."""
        reference, window = self.choose(len(rows["poses"]) - 1, bool(rows["posed"]), rng)
        sample = {name: rows[name][window] for name in ("poses", "hands")}
        if "pictures" in rows:
            return sample | {"pictures": rows["pictures"][window], "reference": rows["pictures"][[reference]]}
        return sample | {
            "moments": rows["moments"][window],
            "image_latents": rows["moments"][reference, :4],
            "image_embeds": rows["embeds"][reference][None],
        }

    def choose(self, num_frames: int, posed: bool, rng: np.random.Generator) -> tuple[int, list[int]]:
        """(row of the reference, rows of the window) of a clip of num_frames frames, rows 1 to num_frames."""
        reference = 0 if self.reference == "clip" else 1 + int(rng.integers(num_frames))
        opening = [reference] if reference or posed else []
        length = self.frames - len(opening)
        if num_frames < length:
            raise ValueError(f"A sample needs {length} frames, but the clip has {num_frames}.")
        start = 1 + int(rng.integers(num_frames - length + 1))
        return reference, [*opening, *range(start, start + length)]


class MimicMotionTraining:
    """UNet and PoseNet to train, VAE and image tower frozen; a `training.system.TrainingSystem`.

    networks: the start; made float32 and trained in place. lr, pose_net_lr: learning rates of the two.
    part: which of the two is trained. half: export weights as float16.
    """

    export_name = "MimicMotion.safetensors"

    def __init__(
        self,
        networks: MimicMotionNetworks,
        parts: SVDParts,
        layout: WindowLayout,
        recipe: Recipe = RECIPE,
        *,
        lr: float = 1e-5,
        pose_net_lr: float | None = None,
        part: Part = "both",
        half: bool = True,
        sampling: Settings = SAMPLING,
    ) -> None:
        asked, given = networks.unet.config.cross_attention_dim, parts.image_encoder.config.projection_dim
        if asked != given:
            raise ValueError(
                f"The UNet takes picture embeddings of {asked} numbers, but the image tower gives {given}; "
                "use the networks that belong together."
            )
        self.module = PosedUNet(networks.unet.float(), networks.pose_net.float()).train()
        self.module.unet.requires_grad_(part != "pose_net")
        self.module.pose_net.requires_grad_(part != "unet")
        lean(self.module.unet)
        self.parts, self.frozen = parts, (parts.vae.float(), parts.image_encoder.float())
        self.layout, self.recipe, self.half, self.sampling = layout, recipe, half, sampling
        self._rates = {"unet": lr, "pose_net": lr if pose_net_lr is None else pose_net_lr}

    def check_size(self, size: tuple[int, int]) -> None:
        """ValueError for a size (height, width) that the networks cannot have."""
        check_size(*size, size_multiple(self.module, self.parts))

    def parameter_groups(self) -> list[dict[str, Any]]:
        """UNet and PoseNet with their learning rates, as far as they are trained."""
        groups = [
            {
                "name": name,
                "lr": rate,
                "params": [p for p in getattr(self.module, name).parameters() if p.requires_grad],
            }
            for name, rate in self._rates.items()
        ]
        return [group for group in groups if group["params"]]

    def fingerprint(self) -> dict[str, Any]:
        """What encoded rows depend on: the frozen networks, and which rows have an embedding."""
        return {
            "vae": _digest(self.parts.vae),
            "image_encoder": _digest(self.parts.image_encoder),
            "embeds": self.layout.reference,
            "hand_threshold": self.layout.hand_threshold,
        }

    def encode_rows(self, rows: Rows) -> Rows:
        """moments (R, 8, h, w) and embeds (R or 1, D) in the place of the pictures, on the CPU."""
        pictures = rows["pictures"]
        vae, tower = self.frozen
        signed = to_signed(pictures.permute(0, 3, 1, 2)).split(ENCODE_BATCH)
        device = next(vae.parameters()).device
        seen = pictures if self.layout.reference == "frame" else pictures[:1]
        embeds = [embed_picture(tower, clip_pixels(p, size=tower.config.image_size))[0, 0] for p in seen.numpy()]
        kept = {name: rows[name] for name in ("poses", "hands", "posed")}
        moments = torch.cat([encode_frames(vae, part.to(device)).cpu() for part in signed])
        return kept | {"moments": moments, "embeds": torch.stack(embeds).float().cpu()}

    def encode_sample(self, sample: Rows, generator: torch.Generator) -> Rows:
        """moments, image_latents and image_embeds in the place of the pictures, and the strength of the noise."""
        strength = torch.tensor(self.recipe.noise_aug)
        augmentation = 0.0
        if self.recipe.noise_aug and not self.recipe.quirks.augmentation_unused:
            strength = strength * torch.rand((), generator=generator)
            height, width = sample["reference"].shape[1:3]
            augmentation = strength * torch.randn(1, 3, height, width, generator=generator)
            augmentation = augmentation.to(next(self.parts.vae.parameters()).device)
        encoded = encode_clip(
            *self.frozen, sample["pictures"], sample["reference"], augmentation=augmentation, quirks=self.recipe.quirks
        )
        return {"poses": sample["poses"], "hands": sample["hands"], "noise_aug": strength, **encoded}

    def loss(
        self, module: nn.Module, batch: Rows, generators: list[torch.Generator]
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Mean loss of the clips, and the plain one without weights for hands."""
        moments, poses = batch["moments"], batch["poses"]
        shape = (*moments.shape[1:2], moments.shape[2] // 2, *moments.shape[3:])
        noise_aug = batch.get("noise_aug", torch.zeros(len(moments), device=moments.device))
        clips = noisy_clips(
            moments,
            batch["image_latents"],
            batch["image_embeds"],
            Draws.of(generators, shape).to(moments.device),
            noise_aug=noise_aug,
            recipe=self.recipe,
            scaling=self.parts.vae.config.scaling_factor,
        )
        v = module(
            clips.sample,
            clips.timestep,
            clips.image_embeds,
            clips.time_ids,
            pose_pictures=poses,
            pose_share=clips.pose_share,
        )
        factor = 1.0 if self.recipe.quirks.plain_loss else self.recipe.hand_weight
        loss = denoising_loss(v, clips, region_weights(batch["hands"], factor)).mean()
        return loss, {"loss without hand weights": denoising_loss(v.detach(), clips).mean()}

    def export(self, path: Path, weights: Mapping[str, torch.Tensor]) -> None:
        """One file with `unet.` and `pose_net.` names, and the configuration in its metadata."""
        from safetensors.torch import save_file

        dtype = torch.float16 if self.half else torch.float32
        config = {key: value for key, value in self.module.unet.config.items() if key in SVD_XT}
        text = json.dumps({"unet": config, "window": self.layout.frames})
        tensors = {name: tensor.detach().to("cpu", dtype).contiguous() for name, tensor in weights.items()}
        save_file(tensors, path, {"format": "pt", "config": text})

    def animate(self, weights: Mapping[str, torch.Tensor], clip: Clip, seed: int) -> Iterable[np.ndarray]:
        """The clip's reference with the motion of its poses, through the sampler that users run."""
        unet, pose_net = self.module.unet, self.module.pose_net
        module = PosedUNet(build_unet(unet.config), PoseNet(pose_net.final_proj.out_channels))
        module.load_state_dict(weights)
        module.eval().requires_grad_(False)
        first = clip.pose_pictures[0] if clip.reference_pose is None else clip.reference_pose
        networks = MimicMotionNetworks(module.unet, module.pose_net, self.layout.frames)
        settings = replace(self.sampling, seed=seed)
        return animate(networks, self.parts, clip.reference, [first, *clip.pose_pictures], settings)


def _digest(module: nn.Module) -> str:
    """A short name for a network's weights, from some values of every tensor."""
    state = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        flat = tensor.detach().flatten()
        some = flat[:: max(1, flat.numel() // 64)].float().cpu().numpy()
        state.update(f"{name}{tuple(tensor.shape)}".encode() + some.tobytes())
    return state.hexdigest()[:16]
