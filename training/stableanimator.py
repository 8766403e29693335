"""StableAnimator as a system to train (arXiv 2411.17697; docs/training.md)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
import torch
from torch import nn

from ..datasets.clips import Clip
from ..model_loaders.assemble import without_prefix
from ..model_loaders.stableanimator import StableAnimatorNetworks, face_encoder_sizes
from ..model_loaders.svd import SVDParts
from ..networks.face_encoder import FusionFaceId
from ..networks.id_attention import build_id_unet
from ..networks.pose_net import PoseNet
from ..pipelines.stableanimator import Settings, animate
from ..quirks import Quirks
from .lean import lean
from .sigmas import InterpolatedCosine, stratified
from .step import Draws, Recipe
from .svd import PosedUNet, SVDTraining, stored
from .system import Rows
from .windows import FaceWindows

# Published: face and poses stay where the picture is dropped. CLEAN drops them too, as inference does.
RECIPE = Recipe(
    InterpolatedCosine(), noise_aug_varies=False, region_weight=2.0, quirks=Quirks(poses_never_dropped=True)
)
UNetPart = Literal["attentions", "all", "none"]
SAMPLING = Settings()
TRAINED = "attentions"  # the published rule: parameters of the UNet with this in their name


class Identify(Protocol):
    """The face of a picture."""

    def __call__(self, picture: np.ndarray) -> np.ndarray | None:
        """The raw ArcFace embedding (D,) of the largest face of a uint8 (H, W, 3) RGB picture; None without a face."""
        ...

    def fingerprint(self) -> str:
        """A short name for what embeddings depend on."""
        ...


class IdentityUNet(PosedUNet):
    """UNet with the identity adapter, PoseNet and face encoder as one module."""

    def __init__(self, unet: nn.Module, pose_net: nn.Module, face_encoder: nn.Module) -> None:
        super().__init__(unet, pose_net)
        self.face_encoder = face_encoder

    def forward(
        self,
        *,
        image_embeds: torch.Tensor,
        pose_share: torch.Tensor,
        picture: torch.Tensor,
        identity: torch.Tensor,
        **others: torch.Tensor,
    ) -> torch.Tensor:
        """v (B, F, 4, h, w).

        image_embeds: (B, 1, D), zeros where dropped; picture: the same, never dropped, for the face encoder;
        identity: (B, 1, 512); pose_share: (B,) goes for the face tokens too; others: as of :class:`.svd.PosedUNet`.
        """
        context = self.context(image_embeds, pose_share, picture, identity)
        return super().forward(image_embeds=context, pose_share=pose_share, **others)

    def context(
        self, image_embeds: torch.Tensor, pose_share: torch.Tensor, picture: torch.Tensor, identity: torch.Tensor
    ) -> torch.Tensor:
        """(B, 5, D): the picture's token and the face tokens."""
        tokens = self.face_encoder(identity, picture) * pose_share.view(-1, 1, 1)
        return torch.cat([image_embeds, tokens], dim=1)


class StableAnimatorTraining(SVDTraining):
    """Adapter and attention blocks of the UNet, PoseNet and face encoder; a `training.system.TrainingSystem`.

    networks: the start; made float32 and trained in place. identify: the face of a reference; a reference without one
    has the identity 0, as published. lr, pose_net_lr, face_encoder_lr: learning rates. unet_part: what of the UNet is
    trained. strata: samples of a step, over which the noise levels are spread. half: export weights as float16.
    """

    def __init__(
        self,
        networks: StableAnimatorNetworks,
        parts: SVDParts,
        layout: FaceWindows,
        identify: Identify,
        recipe: Recipe = RECIPE,
        *,
        lr: float = 1e-5,
        pose_net_lr: float | None = None,
        face_encoder_lr: float | None = None,
        unet_part: UNetPart = TRAINED,
        strata: int = 1,
        half: bool = True,
        sampling: Settings = SAMPLING,
    ) -> None:
        module = IdentityUNet(networks.unet.float(), networks.pose_net.float(), networks.face_encoder.float()).train()
        rates = {"unet": lr, "pose_net": pose_net_lr, "face_encoder": face_encoder_lr}
        rates = {name: lr if rate is None else rate for name, rate in rates.items()}
        super().__init__(module, parts, layout, recipe, rates)
        choose_trained(module, unet_part)
        lean(module.unet)
        self.identify, self.strata, self.half, self.sampling = identify, strata, half, sampling

    def fingerprint(self) -> dict[str, str | float]:
        """What encoded rows depend on: the frozen networks, the recogniser, and the layout."""
        return {**super().fingerprint(), "identify": self.identify.fingerprint()}

    def encode_rows(self, rows: Rows) -> Rows:
        """identities (R or 1, 512) beside the embeds of `SVDTraining.encode_rows`."""
        identities = torch.stack([self.identity(picture) for picture in self.layout.referenced(rows)])
        return super().encode_rows(rows) | {"identities": identities}

    def encode_sample(self, sample: Rows, generator: torch.Generator) -> Rows:
        """The identity (1, 512) beside what `SVDTraining.encode_sample` gives."""
        return super().encode_sample(sample, generator) | {"identity": self.identity(sample["reference"][0])[None]}

    def identity(self, picture: torch.Tensor) -> torch.Tensor:
        """(512,) float32 of a picture uint8 (H, W, 3), at the size of the clip as published; 0 without a face."""
        found = self.identify(picture.numpy())
        size = self.module.face_encoder.id_embeddings_dim
        return torch.zeros(size) if found is None else torch.from_numpy(np.asarray(found, np.float32)).reshape(size)

    def draws(self, batch: Rows, generators: list[torch.Generator], shape: tuple[int, ...]) -> Draws:
        """The random numbers of a batch, noise levels spread over the samples of a step."""
        drawn = super().draws(batch, generators, shape)
        places = batch["number"].cpu() % self.strata
        return replace(drawn, level=stratified(drawn.level, places, self.strata))

    def conditions(self, batch: Rows) -> dict[str, torch.Tensor]:
        """Pose pictures, and what the face encoder takes: the embedding of the picture is never dropped there."""
        return {**super().conditions(batch), "picture": batch["image_embeds"], "identity": batch["identity"]}

    def export(self, folder: Path, weights: Mapping[str, torch.Tensor]) -> None:
        """unet.safetensors with its configuration, pose_net.safetensors and face_encoder.safetensors, as released."""
        from safetensors.torch import save_file

        for part, metadata in (("unet", self.config_text()), ("pose_net", {}), ("face_encoder", {})):
            tensors = stored(without_prefix(weights, f"{part}."), self.half)
            save_file(tensors, folder / f"{part}.safetensors", {"format": "pt", **metadata})

    def animate(self, weights: Mapping[str, torch.Tensor], clip: Clip, seed: int) -> Iterable[np.ndarray]:
        """The clip's reference with the motion of its poses, through the sampler that users run."""
        unet, pose_net = self.module.unet, self.module.pose_net
        sizes = face_encoder_sizes(without_prefix(weights, "face_encoder."))
        module = IdentityUNet(
            build_id_unet(unet.config), PoseNet(pose_net.final_proj.out_channels), FusionFaceId(**sizes)
        )
        module.load_state_dict(weights)
        module.eval().requires_grad_(False)
        networks = StableAnimatorNetworks(module.unet, module.pose_net, module.face_encoder, self.layout.frames)
        identity, settings = self.identify(clip.reference), replace(self.sampling, seed=seed)
        return animate(networks, self.parts, clip.reference, clip.pose_pictures, settings, identity=identity)


def choose_trained(module: IdentityUNet, unet_part: UNetPart = TRAINED) -> None:
    """Let only what is trained have gradients: PoseNet, face encoder, and the said part of the UNet."""
    module.requires_grad_(True)
    for name, parameter in module.unet.named_parameters():
        parameter.requires_grad_(unet_part == "all" or (unet_part == TRAINED and TRAINED in name))
