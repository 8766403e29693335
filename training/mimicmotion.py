"""MimicMotion as a system to train (arXiv 2406.19680; docs/training.md)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from ..datasets.clips import Clip
from ..model_loaders.mimicmotion import TRAINED_FILE, MimicMotionNetworks
from ..model_loaders.svd import SVDParts
from ..networks.pose_net import PoseNet
from ..networks.svd_unet import build_unet
from ..pipelines.mimicmotion import Settings, animate
from .lean import lean
from .step import Recipe
from .svd import PosedUNet, SVDTraining, stored
from .windows import HandWindows

RECIPE, SAMPLING = Recipe(), Settings()
Part = Literal["both", "unet", "pose_net"]


class MimicMotionTraining(SVDTraining):
    """UNet and PoseNet to train; a `training.system.TrainingSystem`.

    networks: the start; made float32 and trained in place. lr, pose_net_lr: learning rates of the two.
    part: which of the two is trained. half: export weights as float16.
    """

    def __init__(
        self,
        networks: MimicMotionNetworks,
        parts: SVDParts,
        layout: HandWindows,
        recipe: Recipe = RECIPE,
        *,
        lr: float = 1e-5,
        pose_net_lr: float | None = None,
        part: Part = "both",
        half: bool = True,
        sampling: Settings = SAMPLING,
    ) -> None:
        module = PosedUNet(networks.unet.float(), networks.pose_net.float()).train()
        rates = {"unet": lr, "pose_net": lr if pose_net_lr is None else pose_net_lr}
        super().__init__(module, parts, layout, recipe, rates)
        module.unet.requires_grad_(part != "pose_net")
        module.pose_net.requires_grad_(part != "unet")
        lean(module.unet)
        self.half, self.sampling = half, sampling

    def export(self, folder: Path, weights: Mapping[str, torch.Tensor]) -> None:
        """MimicMotion.safetensors with `unet.` and `pose_net.` names, and the configuration in its metadata."""
        from safetensors.torch import save_file

        save_file(stored(weights, self.half), folder / TRAINED_FILE, self.config_text())

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
