"""Golden cases of person detection and pose estimation."""

from __future__ import annotations

import numpy as np
from choreo.pose import simcc, yolox
from choreo.pose.detect import PoseDetector
from choreo.pose.face import FaceAnalyser
from choreo.pose.wholebody import openpose_134

from .cases import Case
from .registry import runner


@runner("pose/yolox_letterbox")
def yolox_letterbox(case: Case) -> dict:
    outputs = {}
    for i in range(case.config["n"]):
        picture = case.arrays[f"image_{i}"]
        ratio, inner = yolox.fit(*picture.shape[:2], case.config["input"])
        blob = yolox.network_input(yolox.letterbox(picture, case.config["input"]))[0]
        outputs |= {
            f"ratio_{i}": [ratio],
            f"blob_sub_{i}": blob[:, 3::7, 2::7],
            f"blob_sum_{i}": [blob.sum(dtype=np.float64)],
            f"resized_hw_{i}": inner,
        }
    return outputs


@runner("pose/yolox_decode_nms")
def yolox_decode_nms(case: Case) -> dict:
    outputs = {}
    for name in case.config["sets"]:
        rows, index = case.arrays[f"raw_rows_{name}"], case.arrays[f"raw_index_{name}"]
        ratio, _ = yolox.fit(*case.arrays[f"image_hw_{name}"])
        raw = np.zeros((1, 8400, rows.shape[1]), dtype=np.float32)
        raw[0, index] = rows
        decoded = yolox.decode(raw)
        outputs |= {
            f"ratio_{name}": [ratio],
            f"decoded_rows_{name}": decoded[index],
            f"nms_all_classes_{name}": yolox.find_objects(decoded, ratio),
            f"person_boxes_{name}": yolox.find_people(raw, ratio, min_score=case.config["score_final"]),
        }
    return outputs


@runner("pose/yolo_nas_post")
def yolo_nas_post(case: Case) -> dict:
    ratio, _ = yolox.fit(*case.arrays["image_hw"])
    network = (case.arrays[name] for name in ("boxes", "scores", "classes"))
    return {"person_boxes": yolox.find_people_nas(*network, ratio, min_score=case.config["thr"])}


@runner("pose/pose_affine_crop")
def pose_affine_crop(case: Case) -> dict:
    picture, boxes = case.arrays["image"], case.arrays["boxes"]
    size, padding = tuple(case.config["input_wh"]), case.config["padding"]
    height, width = picture.shape[:2]
    boxes = np.concatenate([boxes, [[0, 0, width, height]]])
    centres, scales = simcc.centres_and_scales(boxes, size, padding)
    matrices = [simcc.crop_matrix(*pair, size) for pair in zip(centres, scales, strict=True)]
    crops = np.stack([simcc.crop(picture, matrix, size) for matrix in matrices])
    inputs = simcc.normalise(crops)
    outputs = {
        "center": centres[:-1],
        "scale": scales[:-1],
        "warp_matrix": np.stack(matrices[:-1]),
        "nobox_center": centres[-1:],
        "nobox_scale": scales[-1:],
        "nobox_crop_u8_sub": crops[-1, ::4, ::4],
    }
    for i in range(len(boxes) - 1):
        outputs |= {f"crop_u8_sub_{i}": crops[i, ::4, ::4], f"input_sub_{i}": inputs[i, :, ::12, ::12]}
    return outputs


@runner("pose/simcc_decode")
def simcc_decode(case: Case) -> dict:
    size = tuple(case.config["input_wh"])
    x, y = (case.arrays[f"simcc_{axis}_f16"].astype(np.float32) for axis in "xy")
    locations, scores = simcc.decode(x, y)
    centres, scales = simcc.centres_and_scales(case.arrays["box"], size, case.config["padding"])
    return {"locs": locations, "scores": scores, "keypoints": simcc.to_picture(locations, centres, scales, size)}


def _detector(case: Case) -> PoseDetector:
    folder = case.onnx_folder
    return PoseDetector(folder / "tiny_yolox_l.onnx", folder / "tiny_dw_ll_ucoco_384.onnx", "cpu")


@runner("pose/e2e_tiny_onnx")
def end_to_end(case: Case) -> dict:
    picture = case.arrays["image_rgb"]
    with _detector(case) as detector:
        boxes = detector.find_people(picture)
        swapped = detector.find_people(np.ascontiguousarray(picture[..., ::-1]))
        points, scores = detector.find_points(picture, boxes if len(boxes) else detector.boxes_for_nobody(picture))
    points134, scores134 = openpose_134(points, scores)
    outputs = {"boxes": boxes, "boxes_when_channels_swapped": swapped, "keypoints133": points, "scores133": scores}
    outputs |= {"keypoints134": points134, "scores134": scores134}
    folder = case.onnx_folder
    with FaceAnalyser(folder / "tiny_scrfd_10g_bnkps.onnx", folder / "tiny_glintr100.onnx", "cpu") as faces:
        found = faces.find(picture)
        embeddings = [faces.embed(picture, landmarks) for landmarks in found.landmarks]
        swapped_faces = faces.find(picture, channel_order="released")
    return outputs | {
        "face_det": np.concatenate([found.boxes, found.scores[:, None]], axis=1),
        "face_kps": found.landmarks,
        "face_embedding": np.array(embeddings).reshape(-1, 512),
        "face_det_when_channels_swapped": np.concatenate([swapped_faces.boxes, swapped_faces.scores[:, None]], axis=1),
    }


@runner("pose/e2e_tiny_onnx_clip")
def end_to_end_clip(case: Case) -> dict:
    frames = case.arrays["frames_rgb"]
    with _detector(case) as detector:
        boxes = np.concatenate([detector.find_people(frame) for frame in frames])
        poses = detector.extract(frames)
    return {"boxes": boxes, "keypoints134": poses.pixels()[poses.present], "scores134": poses.scores[poses.present]}
