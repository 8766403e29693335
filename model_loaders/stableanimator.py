"""StableAnimator's weights, in every layout they are found in, as UNet with identity adapter, PoseNet, face encoder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ..networks.face_encoder import FusionFaceId
from ..networks.id_attention import build_id_unet
from ..networks.pose_net import PoseNet
from .assemble import assemble
from .catalogue import find_file, where_to_get
from .mimicmotion import build_pose_net, config_of_unet, read_pose_net
from .recognise import not_what_was_expected, recognise
from .weights import read_config, read_weights

if TYPE_CHECKING:
    from diffusers import UNetSpatioTemporalConditionModel

Weights = Mapping[str, torch.Tensor]
RELEASE = "stable_animator"  # the folder of the release, as the catalogue has it
LAYOUTS = ("", "Animation/", "checkpoints/Animation/")
SUFFIXES = (".pth", ".safetensors")
UNET_NAMES = (
    *(f"{layout}unet{suffix}" for layout in LAYOUTS for suffix in SUFFIXES),
    "unet/diffusion_pytorch_model.safetensors",
)
WINDOW = 16
EXPECTED = "StableAnimator's UNet (unet.pth)"


@dataclass(frozen=True)
class StableAnimatorNetworks:
    """StableAnimator's own networks, on the CPU in the files' dtypes.

    unet: with the identity adapter (:mod:`..networks.id_attention`). window: frames the weights were trained on.
    """

    unet: UNetSpatioTemporalConditionModel
    pose_net: PoseNet
    face_encoder: FusionFaceId
    window: int = WINDOW


@dataclass(frozen=True)
class StableAnimatorWeights:
    """What StableAnimator's files hold, before networks are made of it.

    unet: under diffusers' names, with the adapter's `...attn2.processor.id_to_k.weight`. config: of the UNet, complete.
    """

    unet: Weights
    config: Mapping[str, Any]
    unet_path: Path
    pose_net: Weights
    pose_net_path: Path
    face_encoder: Weights
    face_encoder_path: Path
    window: int = WINDOW

    def build_pose_net(self) -> PoseNet:
        """PoseNet with its weights. Raises ValueError when they do not fit the UNet's width."""
        return build_pose_net(self.pose_net, self.config, self.pose_net_path)

    def build_face_encoder(self) -> FusionFaceId:
        """The face encoder with its weights. Raises ValueError when its tokens do not fit the UNet's context."""
        sizes, width = face_encoder_sizes(self.face_encoder), self.config["cross_attention_dim"]
        if sizes["cross_attention_dim"] != width:
            raise ValueError(
                f"{self.face_encoder_path} makes tokens of {sizes['cross_attention_dim']} channels, but "
                f"{self.unet_path} takes {width}: use the three files of one release."
            )
        what = "StableAnimator's face encoder"
        return assemble(partial(FusionFaceId, **sizes), self.face_encoder, what, self.face_encoder_path)


def load_stableanimator(
    unet_path: str | Path, pose_net_path: str | Path | None = None, face_encoder_path: str | Path | None = None
) -> StableAnimatorNetworks:
    """Load StableAnimator; see :func:`read_stableanimator`, which this makes networks of."""
    found = read_stableanimator(unet_path, pose_net_path, face_encoder_path)
    unet = assemble(partial(build_id_unet, found.config), found.unet, EXPECTED, found.unet_path)
    return StableAnimatorNetworks(unet, found.build_pose_net(), found.build_face_encoder(), found.window)


def read_stableanimator(
    unet_path: str | Path, pose_net_path: str | Path | None = None, face_encoder_path: str | Path | None = None
) -> StableAnimatorWeights:
    """Find and read StableAnimator's weights; needs torch only.

    unet_path: `unet.pth` (or `unet-<step>.pth` of its trainer), or a folder: of the release, of its `Animation`, or a
        trainer's `checkpoint-<step>`.
    pose_net_path, face_encoder_path: None looks beside the UNet, then in `Animation` folders of the models folders.
    The UNet's configuration is that in the file's metadata, or of `config.json` beside it, else SVD-XT's.

    Raises FileNotFoundError for a missing file or part, ValueError for anything else than StableAnimator.
    """
    path = Path(unet_path)
    if path.is_dir():
        path = unet_in_folder(path)
    weights, config = read_weights(path), read_config(path)
    _check_unet(path, weights)
    pose_path = Path(pose_net_path) if pose_net_path else find_part(path, "pose_net")
    face_path = Path(face_encoder_path) if face_encoder_path else find_part(path, "face_encoder")
    face_encoder = read_weights(face_path)
    content = recognise(face_encoder)
    if content.kind != "stableanimator_face_encoder":
        raise not_what_was_expected(face_path, content, "the weights of StableAnimator's face encoder")
    return StableAnimatorWeights(
        *(weights, config_of_unet(config), path),
        *(read_pose_net(pose_path), pose_path),
        *(face_encoder, face_path),
        config.get("window", WINDOW),
    )


def unet_in_folder(folder: Path) -> Path:
    """The UNet in a folder of any layout; FileNotFoundError names what was looked for."""
    found = next((folder / name for name in UNET_NAMES if (folder / name).is_file()), None)
    if found is None:
        raise FileNotFoundError(
            f"{folder} holds no StableAnimator weights: {', '.join(UNET_NAMES)} were looked for. "
            f"{where_to_get(RELEASE)}"
        )
    return found


def _check_unet(path: Path, weights: Weights) -> None:
    content = recognise(weights)
    if content.kind == "stableanimator_unet":
        return
    if content.kind == "svd_unet":
        raise ValueError(
            f"{path} is an SVD UNet without the identity adapter (no weights ...attn2.processor.id_to_k), so it is not "
            f"{EXPECTED}. {where_to_get(RELEASE)}"
        )
    raise not_what_was_expected(path, content, f"the weights of {EXPECTED}")


def part_names(unet_path: Path, part: str) -> Sequence[Path]:
    """Where a part of a UNet may lie beside it, in order of preference; part: "pose_net" or "face_encoder"."""
    folder = unet_path.parent.parent if unet_path.parent.name == "unet" else unet_path.parent
    named_alike = [unet_path.with_name(unet_path.name.replace("unet", part))] if "unet" in unet_path.name else []
    names = (f"{inner}{part}{suffix}" for inner in ("", f"{part}/") for suffix in SUFFIXES)
    return list(dict.fromkeys([*named_alike, *(folder / name for name in names)]))


def find_part(unet_path: str | Path, part: str) -> Path:
    """The PoseNet ("pose_net") or face encoder ("face_encoder") of a UNet: beside it, else in the models folders.

    Raises FileNotFoundError that says where it was looked for and where to get it.
    """
    beside = part_names(Path(unet_path), part)
    elsewhere = (find_file(f"Animation/{part}{suffix}") for suffix in SUFFIXES)
    found = next((path for path in (*beside, *elsewhere) if path and path.is_file()), None)
    if found is None:
        what = {"pose_net": "PoseNet", "face_encoder": "face encoder"}[part]
        names = ", ".join(path.name for path in beside[:2])
        raise FileNotFoundError(
            f"{unet_path} needs StableAnimator's {what}, and none was found beside it ({names}, ...), nor as "
            f"Animation/{part}.pth in the models folders. {where_to_get(RELEASE)}"
        )
    return found


def face_encoder_sizes(weights: Weights) -> dict[str, int]:
    """The arguments of :class:`FusionFaceId` that fit some weights."""
    width = len(weights["norm.weight"])
    return {
        "cross_attention_dim": width,
        "id_embeddings_dim": weights["proj.0.weight"].shape[1],
        "clip_embeddings_dim": weights["fusion_model.proj_in.weight"].shape[1],
        "num_tokens": len(weights["proj.2.weight"]) // width,
        "inner_dim": len(weights["proj.0.weight"]),
        "depth": len({name.split(".")[2] for name in weights if name.startswith("fusion_model.layers.")}),
    }
