"""Golden cases of StableAnimator's faces: detection, alignment, masks, ArcFace in torch, the face optimisation."""

from __future__ import annotations

import zlib

import numpy as np
import torch
from choreo.model_loaders.assemble import without_prefix
from choreo.networks.arcface import IBasicBlock, IResNet
from choreo.pose import face, masks
from choreo.runtime import Runtime, use
from choreo.samplers.euler import denoised_from_v, euler_step
from choreo.samplers.face_optimisation import FaceOptimisation, FaceOptimiser, FaceTarget, face_gradient
from torch import nn

from .cases import Case
from .networks import network
from .registry import runner


def _rgb(case: Case) -> np.ndarray:
    return np.ascontiguousarray(case.arrays["image_bgr"][..., ::-1])


@runner("stableanimator/face_detect_decode")
def face_detect_decode(case: Case) -> dict:
    size = (case.config["det_size"],) * 2
    blob, scale = face.scrfd_input(_rgb(case), size)
    outputs = [case.arrays[f"net_output_{number}"] for number in range(9)]
    faces = face.scrfd_decode(outputs, scale, size, case.config["det_thresh"])
    return {
        "blob_every2": blob[:, :, ::2, ::2],
        "detections": np.concatenate([faces.boxes, faces.scores[:, None]], axis=1),
        "keypoints": faces.landmarks,
    }


@runner("stableanimator/face_norm_crop")
def face_norm_crop(case: Case) -> dict:
    outputs, picture = {}, _rgb(case)
    for name, points in case.arrays.items():
        if not name.startswith("keypoints_"):
            continue
        number = name.removeprefix("keypoints_")
        crop = face.align_112(picture, points)
        outputs |= {
            f"matrix_{number}": face.similarity(points, face.TEMPLATE_112),
            f"crop_bgr_{number}": crop[..., ::-1],
        }
        if number == "0":
            outputs["blob_0_every4"] = face.arcface_input(crop)[:, :, ::4, ::4]
    return outputs


@runner("stableanimator/face_mask")
def face_mask(case: Case) -> dict:
    arrays, size = case.arrays, tuple(case.arrays["size_hw"])
    boxes = {
        "many": arrays["boxes_many"],
        "one": arrays["boxes_one"],
        "fallback": arrays["fallback_boxes"][:, :4],
        "none": np.zeros((0, 4)),
    }
    return {f"mask_{name}": masks.mask_from_boxes(corners, size) for name, corners in boxes.items()}


@runner("stableanimator/iresnet_block")
def iresnet_block(case: Case) -> dict:
    config = case.config
    block = IBasicBlock(config["inplanes"], config["planes"], config["stride"])
    block.load_state_dict(case.weights() | {key: t for key, t in block.state_dict().items() if key.endswith("tracked")})
    with torch.no_grad():
        return {"x": block.eval()(case.tensors["x"].float())}


@runner("stableanimator/iresnet")
def iresnet(case: Case) -> dict:
    config = case.config
    network = IResNet(config["layers"], embedding=config["num_features"], size=config["input"])
    state = network.state_dict()
    for key, values in state.items():
        if values.is_floating_point():
            values.copy_(_by_formula(key, values.shape, config["phase"]))
    with torch.no_grad():
        return {"embedding": network.eval()(case.tensors["x"].float())}


def _by_formula(key: str, shape: torch.Size, phase: float) -> torch.Tensor:
    """The weights that the case's notes define."""
    flat = torch.arange(shape.numel(), dtype=torch.float64)
    x = torch.sin(0.7391 * flat + zlib.crc32(key.encode()) % 1000 + phase).view(shape)
    if len(shape) >= 2:
        return x * (2 / shape[1:].numel()) ** 0.5
    if key.endswith("running_var"):
        return 1 + 0.5 * x
    if key.endswith(("bias", "running_mean")):
        return 0.1 * x
    return 0.25 + 0.1 * x if "prelu" in key else 1 + 0.2 * x


def extractor(case: Case) -> nn.Module:
    """The stand-in for ArcFace that the cases describe in words."""
    weights = without_prefix(case.weights(), "face_extractor.")
    stand_in = nn.Sequential(nn.Conv2d(3, 8, 8, 8), nn.SiLU(), nn.Flatten(), nn.Linear(1568, 16))
    stand_in.load_state_dict(weights)
    return stand_in.eval().requires_grad_(False)


def face_target(case: Case) -> FaceTarget:
    """Boxes (the case has y_min, y_max, x_min, x_max) and embedding of a case."""
    boxes = [(x1, y1, x2, y2) for y1, y2, x1, x2 in case.arrays["face_boxes"].tolist()]
    return FaceTarget(boxes, case.tensors["reference_embedding"])


@runner("stableanimator/hjb_step")
def hjb_step(case: Case) -> dict:
    config, tensors, vae = case.config, case.tensors, network(case, "vae")
    sample, sigma, sigma_next = tensors["sample"][0], tensors["sigma"], tensors["sigma_next"]
    x0 = denoised_from_v(sample, tensors["model_output"][0], sigma)
    chunk, step, steps = config["decode_chunk_size"], config["step_index"], config["num_inference_steps"]
    eta = config["learning_rate"] / (1 - step / steps)
    settings = FaceOptimisation(step, step, config["num_optimization_iter"], eta, chunk)
    recogniser, target = extractor(case), face_target(case)
    with use(Runtime("cpu", torch.float32)):
        first = face_gradient(
            vae.decoder, recogniser, x0, target, scaling_factor=vae.config.scaling_factor, chunk=chunk
        )
        refined = FaceOptimiser(vae, recogniser, target, settings=settings, steps=steps)(x0, step)
    return {
        "embeddings_first": first.embeddings,
        "grad_first": first.gradient[None],
        "loss_first": first.loss,
        "pred_original_unrefined": x0[None],
        "pred_original_refined": refined[None],
        "prev_sample_unrefined": euler_step(sample, x0, sigma, sigma_next)[None],
        "prev_sample_refined": euler_step(sample, refined, sigma, sigma_next)[None],
    }
