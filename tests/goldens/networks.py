"""The tiny networks of a golden case, built from its config and its weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from choreo.networks.image_tower import build_image_tower
from choreo.networks.pose_net import PoseNet
from choreo.networks.svd_unet import build_unet
from choreo.networks.video_vae import build_video_vae
from torch import nn

from .cases import Case

BUILDERS: Mapping[str, Callable[[dict], nn.Module]] = {
    "unet": build_unet,
    "pose_net": lambda config: PoseNet(config["noise_latent_channels"]),
    "vae": build_video_vae,
    "image_encoder": build_image_tower,
}


def network(case: Case, name: str) -> nn.Module:
    """A network a case needs, float32, in eval mode: "unet", "pose_net", "vae" or "image_encoder".

    Its configuration is that of the case which `config.weights_from` names for it, else of the case itself.
    """
    source = case.config.get("weights_from", {}).get(name)
    config = case.sibling(source).config if source else case.config
    module = BUILDERS[name](config)
    module.load_state_dict(case.weights(name))
    return module.eval().requires_grad_(False)
