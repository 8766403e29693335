"""What MimicMotion and StableAnimator are conditioned on, with the published preprocessing, for the host."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import comfy.model_management as mm
import numpy as np
import torch
from comfy.model_patcher import ModelPatcher

from ..conditioning.clip_image import ClipMethod
from ..conditioning.picture import check_picture, check_size, to_signed
from ..conditioning.svd import POSE_BATCH, Noise, pose_groups
from ..runtime import current, with_smaller_batches
from ..samplers.svd import PoseUse
from .codecs import LATENT_CHANNELS, SCALE, embed_picture, encode_picture
from .fusion import MIMICMOTION, STABLEANIMATOR, PoseControl
from .models import Parts, context_size, parts_of, size_multiple

REFERENCE_FRAMES = "choreo_reference_frames"  # key in LATENT: leading frames that a decoder drops
BYTES_PER_PIXEL = 128  # of a picture inside PoseNet, float32


@dataclass(frozen=True)
class Strengths:
    """How a clip is conditioned; see :class:`.pipelines.mimicmotion.Settings` for the meanings and defaults."""

    fps_id: int = 7
    motion_bucket_id: float = 127
    noise_aug_strength: float = 0.0
    image_embed_strength: float = 1.0
    clip_method: ClipMethod = "squash"
    pose_use: PoseUse = field(default_factory=PoseUse)
    identity_strength: float = 1.0


@dataclass(frozen=True)
class Face:
    """What StableAnimator is conditioned on besides.

    embedding:     (D) float32, raw ArcFace embedding, not normalised; zeros, as published, carry no identity.
    whole_picture: uint8 (h, w, 3) RGB of any size, what CLIP sees in place of the picture that is animated.
    """

    embedding: np.ndarray
    whole_picture: np.ndarray | None = None


@dataclass(frozen=True)
class Conditioned:
    """What samplers take: CONDITIONING twice and a LATENT; of MimicMotion, its first frame is the reference."""

    positive: list
    negative: list
    latent: dict[str, Any]


def condition(
    model: ModelPatcher,
    vae: Any,
    clip_vision: Any,
    *,
    picture: np.ndarray,
    pose_pictures: Iterable[np.ndarray],
    noise: Noise,
    strengths: Strengths = Strengths(),
    face: Face | None = None,
) -> Conditioned:
    """Condition a MODEL on a picture and pose pictures; every network is loaded by the host when used.

    picture, pose_pictures: uint8 (H, W, 3) RGB of one size; for MimicMotion, pose 0 belongs to the picture.
    noise: called once with (1, 3, H, W), as in :func:`.conditioning.mimicmotion.condition`.
    face: for StableAnimator, and only for it.
    Raises ValueError for other models, sizes that do not fit, and too few poses.
    """
    parts = parts_of(model, MIMICMOTION if face is None else STABLEANIMATOR)
    check_picture(picture)
    check_size(*picture.shape[:2], size_multiple(model))
    pixels = torch.from_numpy(np.ascontiguousarray(picture)).permute(2, 0, 1)[None]
    augmented = to_signed(pixels) + strengths.noise_aug_strength * noise(*pixels.shape)
    seen = picture if face is None or face.whole_picture is None else face.whole_picture
    embeds = embed_picture(clip_vision, seen, strengths.clip_method, context_size(model))
    context = embeds * strengths.image_embed_strength
    if face is not None:
        context = torch.cat([context, encode_face(parts, face.embedding, embeds)], 1)
    latents = encode_picture(vae, augmented)
    features = encode_poses(parts.pose_net, pose_pictures, picture.shape[:2])
    reference_frames = int(parts.system == MIMICMOTION)
    if len(features) <= reference_frames:
        also = " the pose of the picture and" if reference_frames else ""
        raise ValueError(f"{parts.system} needs{also} at least one driving pose, got {len(features)} in all.")
    ids = {
        "fps": strengths.fps_id,
        "motion_bucket_id": strengths.motion_bucket_id,
        "augmentation_level": strengths.noise_aug_strength,
    }
    poses = PoseControl(features, parts.pose_net, strengths.pose_use, parts.system, strengths.identity_strength)
    positive = [[context, {**ids, "concat_latent_image": latents, **poses.entries()}]]
    negative = [[torch.zeros_like(context), {**ids, "concat_latent_image": torch.zeros_like(latents)}]]
    height, width = (side // SCALE for side in picture.shape[:2])
    samples = torch.zeros(len(features), LATENT_CHANNELS, height, width, device=mm.intermediate_device())
    return Conditioned(positive, negative, {"samples": samples, REFERENCE_FRAMES: reference_frames})


def encode_face(parts: Parts, identity: np.ndarray, embeds: torch.Tensor) -> torch.Tensor:
    """Face tokens (1, tokens, D) float32 on the CPU.

    identity: (D') ArcFace embedding; embeds: (1, 1, D) CLIP embedding of the picture. ValueError for another size.
    """
    encoder = parts.face_encoder
    if identity.shape != (encoder.model.id_embeddings_dim,):
        raise ValueError(
            f"This face identity has {identity.size} numbers, the MODEL needs {encoder.model.id_embeddings_dim}: take "
            "glintr100.onnx as the recogniser in Load Face Analyser."
        )
    current().check_cancelled()
    mm.load_models_gpu([encoder])
    rows = (torch.from_numpy(identity)[None], embeds)
    tokens = encoder.model(*(row.to(encoder.load_device, torch.float32) for row in rows)).cpu()
    if not torch.isfinite(tokens).all():
        raise FloatingPointError("NaN or infinity in the face tokens: check the weights of the face encoder.")
    return tokens


def encode_poses(pose_net: ModelPatcher, pose_pictures: Iterable[np.ndarray], size: tuple[int, int]) -> torch.Tensor:
    """PoseNet's features of every frame, (frames, C, H/8, W/8) half precision on the CPU, computed in float32.

    pose_pictures: uint8 (H, W, 3) RGB, read in small groups. Raises ValueError for another size or no frames.
    """
    features: list[torch.Tensor] = []
    mm.load_models_gpu([pose_net], memory_required=POSE_BATCH * size[0] * size[1] * BYTES_PER_PIXEL)
    for group in pose_groups(pose_pictures, size):
        current().check_cancelled()
        features.append(_encode_group(pose_net, to_signed(group)))
    if not features:
        raise ValueError("There are no driving poses.")
    return torch.cat(features)


def _encode_group(pose_net: ModelPatcher, pixels: torch.Tensor) -> torch.Tensor:
    def encode(batch_size: int) -> torch.Tensor:
        parts = (pose_net.model(part.to(pose_net.load_device)) for part in pixels.split(batch_size))
        return torch.cat([part.to("cpu", torch.float16) for part in parts])

    features = with_smaller_batches(encode, [POSE_BATCH, 4, 1], "computing pose features")
    if not torch.isfinite(features).all():
        raise FloatingPointError("NaN or infinity in the pose features: check the weights of PoseNet.")
    return features
