"""Golden cases of pose data: 134 points, published formats, tracking boxes, smoothing."""

from __future__ import annotations

import json
from dataclasses import asdict

import numpy as np
from choreo.pose.boxes import box_around, overlaps
from choreo.pose.openpose_json import from_openpose, openpose_frame
from choreo.pose.poses import BODY
from choreo.pose.published_sizes import moore_size
from choreo.pose.smooth import MmposeOneEuro
from choreo.pose.wholebody import openpose_134, person_record, published_pose

from .cases import Case
from .registry import runner


def _size(tensor: np.ndarray) -> tuple[int, int]:
    height, width = tensor.tolist()
    return height, width


def _shares(points: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    return points / np.array([size[1], size[0]])


@runner("pose/keypoints_post_mimicmotion")
def keypoints_post_mimicmotion(case: Case) -> dict:
    points, scores = openpose_134(case.arrays["keypoints133"], case.arrays["scores133"])
    pose = published_pose(_shares(points, _size(case.arrays["image_hw"])), scores, "mimicmotion")
    published = {f"mimicmotion_{name}": array for name, array in asdict(pose).items()}
    return {"keypoints134": points, "scores134": scores} | published


def _published(case: Case, convention: str, size: tuple[int, int]) -> dict:
    points = case.arrays["keypoints134"]
    return asdict(published_pose(_shares(points, size), case.arrays["scores134"], convention))


@runner("pose/keypoints_post_classic")
def keypoints_post_classic(case: Case) -> dict:
    return _published(case, "classic", _size(case.arrays["image_hw"]))


@runner("pose/keypoints_post_oneperson")
def keypoints_post_oneperson(case: Case) -> dict:
    return _published(case, "one person", _size(case.arrays["image_hw"]))


@runner("pose/keypoints_post_moore")
def keypoints_post_moore(case: Case) -> dict:
    image = _size(case.arrays["image_hw"])
    size = moore_size(image, case.config["detect_resolution"])
    outputs = _published(case, "moore", size)
    return outputs | {"detect_hw": size, "body_score": outputs["score"]}


@runner("mimicmotion/wholebody_format")
def wholebody_format(case: Case) -> dict:
    outputs = {}
    for name in case.arrays:
        if name.startswith("keypoints_"):
            index = name.removeprefix("keypoints_")
            points, scores = openpose_134(case.arrays[name], case.arrays[f"scores_{index}"])
            pose = asdict(published_pose(_shares(points, _size(case.arrays[f"hw_{index}"])), scores, "mimicmotion"))
            outputs |= {f"{index}.{part}": array for part, array in pose.items()}
            outputs[f"{index}.body_score"] = pose["score"]
    return outputs


@runner("pose/track_boxes")
def track_boxes(case: Case) -> dict:
    boxes = box_around(case.arrays["keypoints"], case.config["expansion"])
    return {"boxes": boxes, "iou": overlaps(boxes, boxes + case.arrays["shift"])}


@runner("pose/keypoints_post_controlnet_aux")
def keypoints_post_controlnet_aux(case: Case) -> dict:
    info, size = case.arrays["keypoints_info"], _size(case.arrays["image_hw"])
    points, scores = info[..., :2], info[..., 2]
    records = [person_record(*person) for person in zip(points, scores, strict=True)]
    parts = {part: [getattr(record, part) for record in records] for part in ("left_hand", "right_hand", "face")}
    frame = openpose_frame(points, scores, size, "openpose")
    decoded = from_openpose([frame])
    body = np.where(decoded.scores[0, :, BODY, None] > 0, decoded.pixels()[0, :, BODY], -1)
    return {
        "body": np.nan_to_num([record.body for record in records], nan=-1),
        **{part: [_rows(one, 70 if part == "face" else 21) for one in found] for part, found in parts.items()},
        "part_present": np.transpose([[one is not None for one in found] for found in parts.values()]),
        "total_score": [record.total_score for record in records],
        "total_parts": [record.total_parts for record in records],
        "json_utf8": _utf8(frame),
        "json_nohands_utf8": _utf8(openpose_frame(points, scores, size, "openpose", hands=False)),
        "decoded_body_xy": body,
    }


def _rows(part: np.ndarray | None, length: int) -> np.ndarray:
    return np.full((length, 4), -1.0) if part is None else np.nan_to_num(part, nan=-1)


def _utf8(frame: dict) -> np.ndarray:
    return np.frombuffer(json.dumps(frame, sort_keys=True).encode(), dtype=np.uint8)


@runner("pose/one_euro")
def one_euro(case: Case) -> dict:
    smoothing = MmposeOneEuro(case.config["min_cutoff"], case.config["beta"], case.config["fps"])
    return {"filtered": np.stack([smoothing(points) for points in case.arrays["points"]])}
