"""Poses as OpenPose JSON and as ComfyUI's POSE_KEYPOINT, which is a list of such frames (docs/pose.md)."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .poses import BODY, FACE, FEET, LEFT_HAND, NUM_POINTS, RIGHT_HAND, Poses
from .wholebody import FACE_EYES, person_record

FLAVOURS = ("scored", "openpose")
_BODY_25 = np.r_[0:8, 9:19]  # of OpenPose's 25 body points those of OpenPose-18; 8 is the middle of the hips
_BODY_25_FEET = np.r_[19:25]
_PARTS = {  # key in a person -> where its points go, and the numbers of points that are understood
    "pose_keypoints_2d": (BODY, (18, 25)),
    "foot_keypoints_2d": (FEET, (6,)),
    "face_keypoints_2d": (FACE, (68, 70)),
    "hand_left_keypoints_2d": (LEFT_HAND, (21,)),
    "hand_right_keypoints_2d": (RIGHT_HAND, (21,)),
}
_LARGEST_SHARE = 2.0  # a clip whose found points all lie within this is in shares: no figure is as small in pixels
_MOST_SLOTS = 64  # person ids are kept as slots up to so many different ones

Frame = dict[str, Any]


def to_openpose(
    poses: Poses, flavour: str = "scored", *, body: bool = True, hands: bool = True, face: bool = True
) -> list[Frame]:
    """POSE_KEYPOINT: one OpenPose frame for every frame of a clip, coordinates in pixels of the canvas.

    flavour: "scored" keeps true scores (which may exceed 1) and all coordinates, the feet (`foot_keypoints_2d`),
        the slot (`person_id`) and the frame rate (`fps`); :func:`from_openpose` returns the same poses.
        "openpose" is what controlnet_aux writes: points below 0.3 are (0, 0, 0), others have confidence 1.
    body, hands, face: parts that are off are null; a body that is off has 18 missing points.
    """
    pixels = poses.pixels()
    frames = []
    for f, there in enumerate(poses.present):
        slots = np.flatnonzero(there)
        shown = pixels[f, slots], poses.scores[f, slots], poses.size
        frame = openpose_frame(*shown, flavour, body=body, hands=hands, face=face)
        if flavour == "scored":
            for person, slot in zip(frame["people"], slots.tolist(), strict=True):
                person["person_id"] = [slot]
            if poses.fps is not None:
                frame["fps"] = poses.fps
        frames.append(frame)
    return frames


def openpose_frame(
    points: np.ndarray,
    scores: np.ndarray,
    size: tuple[int, int],
    flavour: str = "scored",
    *,
    body: bool = True,
    hands: bool = True,
    face: bool = True,
) -> Frame:
    """One OpenPose frame of n people: points (n, 134, 2) in pixels, scores (n, 134), size (height, width)."""
    if flavour not in FLAVOURS:
        raise ValueError(f"Unknown flavour of OpenPose JSON {flavour!r}; choose one of {', '.join(FLAVOURS)}.")
    person = _scored_person if flavour == "scored" else _plain_person
    switches = {"pose": body, "foot": body, "hand": hands, "face": face}
    people = []
    for one in zip(points, scores, strict=True):
        parts = person(*one)
        for key in parts:
            if not switches[key.split("_")[0]]:
                parts[key] = None
        if not body:
            parts["pose_keypoints_2d"] = [0.0] * 54
        people.append(parts)
    return {"people": people, "canvas_height": size[0], "canvas_width": size[1]}


def _scored_person(points: np.ndarray, scores: np.ndarray) -> dict[str, list[float] | None]:
    rows = np.column_stack([points, scores])
    rows[~np.isfinite(rows).all(axis=1)] = 0  # JSON has no word for NaN
    parts = {key: rows[part] for key, (part, _) in _PARTS.items()}
    parts["face_keypoints_2d"] = np.concatenate([rows[FACE], rows[FACE_EYES]])
    return {k: part.ravel().tolist() if part.any() or k.startswith("pose") else None for k, part in parts.items()}


def _plain_person(points: np.ndarray, scores: np.ndarray) -> dict[str, list[float] | None]:
    record = person_record(points, scores)

    def flat(part: np.ndarray | None) -> list[float] | None:
        if part is None:
            return None
        rows = np.column_stack([part[:, :2], np.ones(len(part))])
        return np.where(np.isnan(part[:, :1]), 0.0, rows).ravel().tolist()

    return {
        "pose_keypoints_2d": flat(record.body),
        "face_keypoints_2d": flat(record.face),
        "hand_left_keypoints_2d": flat(record.left_hand),
        "hand_right_keypoints_2d": flat(record.right_hand),
    }


def from_openpose(
    frames: Sequence[Mapping[str, Any]],
    fps: float | None = None,
    size: tuple[int, int] | None = None,
    names: Sequence[str] | None = None,
) -> Poses:
    """Poses of a clip from OpenPose frames (POSE_KEYPOINT), whoever wrote them.

    Understood: confidences of any size (0 is a point that was not found), coordinates in pixels or as shares of
    the canvas, null or absent parts, bodies of 18 or 25 points (BODY_25), faces of 68 or 70, feet, person ids.

    fps:   frames per second; None takes what the frames say, if anything.
    size:  (height, width) of the canvas for frames that do not tell, as those of OpenPose itself.
    names: how to call each frame in messages; by default "frame 0", "frame 1", ...

    Raises ValueError that names the frame: animals, no or a changing canvas, unknown numbers of points.
    """
    if len(frames) == 0:
        raise ValueError("There are no frames in these poses: expected a list with one OpenPose frame each.")
    names = [f"frame {i}" for i in range(len(frames))] if names is None else names
    people = [_people(frame, name) for frame, name in zip(frames, names, strict=True)]
    sizes = _canvases(frames, size, names)
    slots, num_slots = _slots(people)
    rows = np.zeros((len(frames), num_slots, NUM_POINTS, 3))
    present = np.zeros((len(frames), num_slots), dtype=bool)
    for f, persons in enumerate(people):
        for slot, (person, _) in zip(slots[f], persons, strict=True):
            rows[f, slot], present[f, slot] = person, True
    points = rows[..., :2]
    found = points[rows[..., 2] > 0]
    if not found.size or np.abs(found).max() > _LARGEST_SHARE:
        points = points / np.array(sizes, dtype=np.float64)[:, None, None, ::-1]
    if fps is None:
        fps = next((frame["fps"] for frame in frames if isinstance(frame.get("fps"), (int, float))), None)
    return Poses(points, rows[..., 2], present, sizes[0], fps)


def _people(frame: Mapping[str, Any], name: str) -> list[tuple[np.ndarray, int | None]]:
    """(rows (134, 3) of x, y, score; id or None) of everybody in a frame."""
    if not isinstance(frame, Mapping):
        raise ValueError(f'{name} is no OpenPose frame: expected an object with "people", got {_kind(frame)}.')
    if "animals" in frame:
        raise ValueError(f"{name} holds animals (AP10K), but people are needed: use a person model such as DWPose.")
    if not isinstance(frame.get("people"), Sequence):
        raise ValueError(f'{name} is no OpenPose frame: it has no list "people".')
    return [_person(person, f"{name}, person {i}") for i, person in enumerate(frame["people"])]


def _person(person: Mapping[str, Any], name: str) -> tuple[np.ndarray, int | None]:
    if not isinstance(person, Mapping):
        raise ValueError(f"{name}: expected an object with keypoints, got {_kind(person)}.")
    rows = np.zeros((NUM_POINTS, 3))
    for key, (where, numbers) in _PARTS.items():
        part = _rows(person.get(key), numbers, f"{name}, {key}")
        if part is None:
            continue
        if where is BODY and len(part) == 25:
            rows[FEET], part = part[_BODY_25_FEET], part[_BODY_25]
        rows[where] = part[: where.stop - where.start]
    number = np.ravel(person.get("person_id", -1))
    is_id = len(number) == 1 and number.dtype.kind in "iuf" and number[0] >= 0
    return rows, int(number[0]) if is_id else None


def _rows(values: Any, numbers: tuple[int, ...], name: str) -> np.ndarray | None:
    try:
        rows = np.array([] if values is None else values, dtype=np.float64).ravel()
    except (TypeError, ValueError):
        raise ValueError(f"{name}: expected a list of numbers x, y, confidence, ...") from None
    if len(rows) == 0:
        return None
    if len(rows) not in [3 * number for number in numbers]:
        wanted = " or ".join(str(number) for number in numbers)
        raise ValueError(f"{name} has {len(rows)} numbers: expected x, y, confidence of {wanted} points.")
    rows = rows.reshape(-1, 3)
    return np.where(np.isfinite(rows).all(axis=1, keepdims=True), rows, 0.0)


def _canvases(
    frames: Sequence[Mapping[str, Any]], size: tuple[int, int] | None, names: Sequence[str]
) -> list[tuple[int, int]]:
    """(height, width) of every frame's canvas; they must agree in their ratio."""
    sizes = []
    for frame, name in zip(frames, names, strict=True):
        canvas = frame.get("canvas_height"), frame.get("canvas_width")
        if not all(canvas):
            if size is None:
                raise ValueError(
                    f"{name} does not say how large its picture was (canvas_height and canvas_width; OpenPose's own "
                    "files never do): give the size as (height, width)."
                )
            canvas = size
        height, width = (int(side) for side in canvas)
        first = sizes[0] if sizes else (height, width)
        if abs(height * first[1] - width * first[0]) > max(first):  # a pixel of rounding is allowed
            raise ValueError(
                f"{name} has a canvas of {width} x {height} pixels, the first frame one of {first[1]} x {first[0]}: "
                "all frames of a clip need one shape."
            )
        sizes.append((height, width))
    return sizes


def _slots(people: list[list[tuple[np.ndarray, int | None]]]) -> tuple[list[list[int]], int]:
    """The slot of everybody in every frame: by person id when all have one, else by their place in the frame."""
    ids = [[number for _, number in persons] for persons in people]
    known = {number for frame in ids for number in frame}
    if known and None not in known and len(known) <= _MOST_SLOTS and all(len(set(f)) == len(f) for f in ids):
        slot_of = {number: slot for slot, number in enumerate(sorted(known))}
        return [[slot_of[number] for number in frame] for frame in ids], len(known)
    return [list(range(len(frame))) for frame in ids], max(len(frame) for frame in ids)


def _kind(value: Any) -> str:
    return {list: "a list", str: "text", type(None): "null"}.get(type(value), f"{value!r}")


def save_json(path: str | Path, poses: Poses, flavour: str = "scored") -> None:
    """Write a clip as a JSON list of OpenPose frames (:func:`to_openpose`); :func:`load_json` reads it back.

    With the flavour "scored", scores, fps, size and slots come back as they are, coordinates to the last digits of a
    float64 (1e-15). The file appears when it is complete.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        unfinished.write_text(json.dumps(to_openpose(poses, flavour), allow_nan=False), encoding="utf-8")
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def load_json(path: str | Path, fps: float | None = None, size: tuple[int, int] | None = None) -> Poses:
    """Poses from a JSON file of OpenPose frames, or from a folder with one file a frame (in natural order).

    fps, size: see :func:`from_openpose`, which also tells what is understood. Raises FileNotFoundError, and
    ValueError that names the file.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"There are no poses at {path}: no such file or folder.")
    if not path.is_dir():
        frames = _read(path)
        return from_openpose(frames, fps, size, [f"{path}, frame {i}" for i in range(len(frames))])
    files = sorted(path.glob("*.json"), key=lambda file: _natural(file.name))
    pairs = [(frame, str(file)) for file in files for frame in _read(file)]
    if not pairs:
        raise ValueError(f"The folder {path} holds no OpenPose JSON files (*.json, one a frame).")
    frames, names = zip(*pairs, strict=True)
    return from_openpose(frames, fps, size, names)


def _read(path: Path) -> list[Frame]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ValueError(f"{path} is not JSON ({error}): expected OpenPose keypoints.") from None
    frames = content if isinstance(content, list) else [content]
    if not frames:
        raise ValueError(f"{path} holds no frames: expected a list of OpenPose frames.")
    return frames


def _natural(name: str) -> list[tuple[int, str]]:
    """Sort key in which frame_10 comes after frame_9."""
    return [(int(word), "") if word.isdecimal() else (-1, word) for word in re.split(r"(\d+)", name)]
