"""What MimicMotion's UNet is conditioned on: see :class:`.svd.SVDConditioning`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch

from ..quirks import CLEAN, Quirks
from ..runtime import current
from .clip_image import ClipMethod
from .picture import check_picture, to_signed, truncating_round_trip
from .svd import Noise, SVDConditioning, added_time_ids, clip_embedding, encode_picture, encode_poses


def condition(
    networks: Any,
    parts: Any,
    picture: np.ndarray,
    pose_pictures: Iterable[np.ndarray],
    noise: Noise,
    *,
    fps: int = 7,
    motion_bucket_id: float = 127,
    noise_aug_strength: float = 0.0,
    image_embed_strength: float = 1.0,
    clip_method: ClipMethod = "squash",
    quirks: Quirks = CLEAN,
) -> SVDConditioning:
    """Condition MimicMotion on a picture and the pose pictures of a clip (docs/mimicmotion.md, conditioning).

    networks: has `unet` and `pose_net`; parts: has `vae` and `image_encoder`; each is on the device only while used.
    picture, pose_pictures: uint8 (H, W, 3) RGB of one size; pose 0 belongs to the picture. The poses are read once,
        a few at a time.
    noise: called once with (1, 3, H, W), whatever the augmentation, so that a seed keeps its meaning.
    """
    check_picture(picture)
    poses = encode_poses(networks.pose_net, pose_pictures, picture.shape[:2], quirks)
    if len(poses) < 2:
        raise ValueError(
            f"MimicMotion needs the pose of the picture and at least one driving pose, got {len(poses)} in all."
        )
    pixels = torch.from_numpy(np.ascontiguousarray(picture)).permute(2, 0, 1)[None]
    if quirks.truncated_round_trip:
        pixels = truncating_round_trip(pixels, current().dtype)
    image_noise = noise(*pixels.shape)
    seen = pixels[0].permute(1, 2, 0).numpy()
    embeds = clip_embedding(parts.image_encoder, seen, clip_method) * image_embed_strength
    latents = encode_picture(parts.vae, to_signed(pixels) + noise_aug_strength * image_noise)
    return SVDConditioning(embeds, latents, added_time_ids(fps, motion_bucket_id, noise_aug_strength), poses)
