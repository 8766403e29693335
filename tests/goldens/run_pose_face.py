"""Golden cases of face detection, alignment, masks and OpenPose's hand and face boxes."""

from __future__ import annotations

import numpy as np
from choreo.pose import face, masks
from choreo.pose.openpose_boxes import face_box, hand_boxes

from .cases import Case
from .registry import runner


@runner("pose/scrfd")
def scrfd(case: Case) -> dict:
    size, config = tuple(case.config["input_wh"]), case.config
    picture = case.arrays["image_bgr"][..., ::-1]
    blob, scale = face.scrfd_input(np.ascontiguousarray(picture), size)
    outputs = []
    for name in ("score", "bbox", "kps"):
        for stride in (8, 16, 32):
            rows = case.arrays[f"level{stride}_{name}"]
            dense = np.zeros((size[0] // stride * (size[1] // stride) * 2, rows.shape[1]), dtype=np.float32)
            dense[case.arrays[f"level{stride}_index"]] = rows
            outputs.append(dense[None] if config["batched_outputs"] else dense)
    faces = face.scrfd_decode(outputs, scale, size, config["det_thresh"])
    faces = faces.best(config["max_num"], picture.shape[:2], config["metric"])
    return {
        "det": np.concatenate([faces.boxes, faces.scores[:, None]], axis=1),
        "kps": faces.landmarks,
        "blob_sub": blob[0, :, ::8, ::8],
    }


@runner("pose/face_align5")
def face_align5(case: Case) -> dict:
    picture = np.ascontiguousarray(case.arrays["image_bgr"][..., ::-1])
    landmarks = case.arrays["landmarks"]
    crops = np.stack([face.align_112(picture, points) for points in landmarks])
    return {
        "matrix": np.stack([face.similarity(points, face.TEMPLATE_112) for points in landmarks]),
        "crops": crops[..., ::-1],
        "blob0": face.arcface_input(crops[0])[:, :, ::2, ::2],
    }


@runner("pose/face_align_fallback512")
def face_align_fallback512(case: Case) -> dict:
    picture = np.ascontiguousarray(case.arrays["image"][..., ::-1])
    landmarks = case.arrays["landmarks"]
    crop = face.align_512(picture, landmarks[0], tuple(case.config["border"][::-1]))
    return {
        "matrix": np.stack([face.fallback_matrix(points) for points in landmarks]),
        "blob0": face.arcface_input(crop)[0, :, ::2, ::2],
    }


@runner("pose/face_mask_boxes")
def face_mask_boxes(case: Case) -> dict:
    size = tuple(case.arrays["hw"])
    return {f"mask_{i}": masks.mask_from_boxes(case.arrays[f"boxes_{i}"], size) for i in range(case.config["n"])}


@runner("pose/openpose_hand_face_boxes", "magicpose/openpose_boxes")
def openpose_hand_face_boxes(case: Case) -> dict:
    tables = case.arrays
    size, hands, faces = tuple(tables["image_hw" if "image_hw" in tables else "hw"]), [], []
    candidate = tables["candidate_px"] if "candidate_px" in tables else tables["candidate"][:, :2]
    for subset in tables["subset"][:, :18].astype(int):
        points, visible = candidate[subset], subset >= 0
        hands += hand_boxes(points, visible, size)
        faces += [box for box in [face_box(points, visible, size)] if box]
    return {"hands": np.array(hands).reshape(-1, 4), "faces": np.array(faces).reshape(-1, 3)}
