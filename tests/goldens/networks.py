"""The tiny networks of a golden case, built from its config and its weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from choreo.networks.face_encoder import FusionFaceId
from choreo.networks.id_attention import build_id_unet
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
    "face_encoder": lambda config: FusionFaceId(**config),
    "id_unet": build_id_unet,
}


def network(case: Case, name: str) -> nn.Module:
    """A network a case needs, float32, in eval mode; the name is a key of BUILDERS.

    "id_unet" is "unet" with the identity adapter. The configuration is that of the case which `config.weights` or
    `config.weights_from` names for it, else of the case itself.
    """
    build, name = BUILDERS[name], name.removeprefix("id_")
    module = build(_config(case, name))
    module.load_state_dict(case.weights(name))
    return module.eval().requires_grad_(False)


def _config(case: Case, name: str) -> dict:
    placed = case.config.get("weights", {}).get(name)
    if placed:
        return case.sibling(placed.partition(":")[0]).config[name]
    source = case.config.get("weights_from", {}).get(name)
    return case.sibling(source).config if source else case.config
