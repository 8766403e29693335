"""What StableAnimator's UNet is conditioned on (docs/stableanimator.md): MimicMotion's inputs, and face tokens."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import torch
from torch import nn

from ..networks.finite import check_finite
from ..quirks import CLEAN, Quirks
from ..runtime import current
from .clip_image import ClipMethod
from .picture import check_picture, lanczos_fit, to_signed
from .svd import Noise, SVDConditioning, added_time_ids, clip_embedding, encode_picture, encode_poses


def condition(
    networks: Any,
    parts: Any,
    picture: np.ndarray,
    pose_pictures: Iterable[np.ndarray],
    noise: Noise,
    *,
    size: tuple[int, int],
    identity: np.ndarray | torch.Tensor | None = None,
    fps: int = 7,
    motion_bucket_id: float = 127,
    noise_aug_strength: float = 0.02,
    image_embed_strength: float = 1.0,
    clip_method: ClipMethod = "squash",
    quirks: Quirks = CLEAN,
) -> SVDConditioning:
    """Condition StableAnimator on a picture, the pose pictures of a clip, and a face.

    networks: has `unet`, `pose_net` and `face_encoder`; parts: has `vae` and `image_encoder`; each is on the device
        only while used.
    picture: uint8 (H, W, 3) RGB of any size: CLIP sees all of it, the VAE the part that fits the video.
    pose_pictures: uint8 (h, w, 3) RGB, one per frame, read once and a few at a time.
    noise: called once with (1, 3, height, width), whatever the augmentation, so that a seed keeps its meaning.
    size: (height, width) of the video.
    identity: raw ArcFace embedding (512,), not normalised; None where there is no face.
    """
    check_picture(picture)
    poses = encode_poses(networks.pose_net, fitted_poses(pose_pictures, size), size, quirks)
    fitted = lanczos_fit(picture, size, stretch=quirks.stretched_reference)
    pixels = to_signed(torch.from_numpy(np.array(fitted)).permute(2, 0, 1)[None])
    pixels = pixels + noise_aug_strength * noise(*pixels.shape)
    embeds = clip_embedding(parts.image_encoder, picture, clip_method)
    tokens = face_tokens(networks.face_encoder, identity, embeds)
    return SVDConditioning(
        torch.cat([embeds * image_embed_strength, tokens], 1),
        encode_picture(parts.vae, pixels, torch.float32),
        added_time_ids(fps, motion_bucket_id, noise_aug_strength),
        poses,
    )


def face_tokens(
    face_encoder: nn.Module, identity: np.ndarray | torch.Tensor | None, clip_embeds: torch.Tensor
) -> torch.Tensor:
    """Face tokens (1, tokens, D) float32 on the CPU; clip_embeds (1, 1, D) of the picture.

    identity: raw ArcFace embedding (512,) or (1, 512); None is the published zeros, which carry no identity.
    """
    length = face_encoder.id_embeddings_dim
    embedding = torch.zeros(length) if identity is None else torch.as_tensor(identity).float().flatten()
    if embedding.numel() != length:
        raise ValueError(f"The face encoder takes an embedding of {length} numbers, got {embedding.numel()}.")
    check_finite(embedding, "the face embedding")
    current().check_cancelled()
    with torch.no_grad(), current().on_device(face_encoder):
        weight = next(face_encoder.parameters())
        tokens = face_encoder(embedding[None].to(weight), clip_embeds.to(weight))
    return check_finite(tokens.float().cpu(), "the face tokens")


def fitted_poses(pose_pictures: Iterable[np.ndarray], size: tuple[int, int]) -> Iterator[np.ndarray]:
    """Pose pictures at the size (height, width) of the video; those of another size are stretched to it, as published.

    uint8 (h, w, 3) -> (height, width, 3), by Pillow's bicubic filter.
    """
    from PIL import Image

    for number, pose in enumerate(pose_pictures):
        check_picture(pose, f"Pose picture {number}")
        fits = pose.shape[:2] == tuple(size)
        yield pose if fits else np.asarray(Image.fromarray(pose).resize(size[::-1], Image.Resampling.BICUBIC))
