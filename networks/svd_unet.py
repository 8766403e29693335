"""The spatio-temporal UNet of Stable Video Diffusion (diffusers' class) and one call of it with pose features."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from diffusers import UNetSpatioTemporalConditionModel

SVD_XT = {
    "sample_size": 96,
    "in_channels": 8,
    "out_channels": 4,
    "down_block_types": (*3 * ("CrossAttnDownBlockSpatioTemporal",), "DownBlockSpatioTemporal"),
    "up_block_types": ("UpBlockSpatioTemporal", *3 * ("CrossAttnUpBlockSpatioTemporal",)),
    "block_out_channels": (320, 640, 1280, 1280),
    "layers_per_block": 2,
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 768,
    "cross_attention_dim": 1024,
    "transformer_layers_per_block": 1,
    "num_attention_heads": (5, 10, 20, 20),
    "num_frames": 25,
}


def build_unet(config: Mapping[str, Any] = SVD_XT) -> UNetSpatioTemporalConditionModel:
    """The UNet of a configuration, with fresh weights; works under `torch.device("meta")` too.

    config: as diffusers saves it in `config.json`; entries that SVD_XT does not have are ignored.
    """
    from diffusers import UNetSpatioTemporalConditionModel

    return UNetSpatioTemporalConditionModel(**{key: config[key] for key in SVD_XT if key in config})


def predict(
    unet: UNetSpatioTemporalConditionModel,
    sample: torch.Tensor,
    timestep: torch.Tensor | float,
    image_embeds: torch.Tensor,
    time_ids: torch.Tensor,
    *,
    pose_features: torch.Tensor | None = None,
    image_only: bool = False,
) -> torch.Tensor:
    """The UNet's v-prediction of B clips of F frames (MimicMotion, section 3.2).

    sample:        (B, F, 8, h, w): noisy latents divided by sqrt(sigma^2 + 1), then the latents of the picture.
    timestep:      ln(sigma) / 4, one number for all clips.
    image_embeds:  (B, 1, C), the CLIP embedding of the picture; zeros without condition.
    time_ids:      (B, 3): fps - 1, motion bucket, noise augmentation.
    pose_features: (B*F, channels, h, w), clip after clip, as PoseNet gives them; added after the first convolution,
                   so also to the first skip connection. None (unconditional) adds nothing; zeros do the same for
                   single clips of a batch.
    image_only:    use the spatial branches alone, every frame for itself.
    Returns (B, F, 4, h, w). The hooks that carry poses and flag are gone after the call, also when it fails.
    """
    with _pose_added(unet, pose_features), _image_only(unet, image_only):
        return unet(sample, timestep, image_embeds, time_ids, return_dict=False)[0]


@contextmanager
def _pose_added(unet: UNetSpatioTemporalConditionModel, features: torch.Tensor | None) -> Iterator[None]:
    if features is None:
        yield
        return

    def add(_module: torch.nn.Module, _inputs: tuple, output: torch.Tensor) -> torch.Tensor:
        if features.shape != output.shape:
            raise ValueError(
                f"Pose features have shape {tuple(features.shape)}, but the UNet's first convolution gave "
                f"{tuple(output.shape)}; PoseNet must see one picture of the video's size per frame."
            )
        return output + features.to(output)

    handle = unet.conv_in.register_forward_hook(add)
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def _image_only(unet: UNetSpatioTemporalConditionModel, flag: bool) -> Iterator[None]:
    if not flag:
        yield
        return

    def set_flag(_module: torch.nn.Module, inputs: tuple, keywords: dict[str, Any]) -> tuple[tuple, dict[str, Any]]:
        return inputs, keywords | {"image_only_indicator": torch.ones_like(keywords["image_only_indicator"])}

    blocks = [*unet.down_blocks, unet.mid_block, *unet.up_blocks]
    handles = [block.register_forward_pre_hook(set_flag, with_kwargs=True) for block in blocks]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
