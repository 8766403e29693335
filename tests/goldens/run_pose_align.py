"""Published fits of driving poses to a reference."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from choreo.media.frame_sampling import published_indices
from choreo.pose.align import align
from choreo.pose.draw import draw_clip
from choreo.pose.poses import Poses

from .cases import Case
from .registry import runner
from .run_pose_draw import chw
from .tables import frame_from_tables, tables_from_frame


def driving_poses(tables: Mapping[str, np.ndarray], name: str, size: np.ndarray) -> Poses:
    """Poses of the frames `<name>` (with t for the frame's number) that the tables hold."""
    frames = []
    while f"{name.format(t=len(frames))}candidate" in tables:
        frames.append(frame_from_tables(tables, name.format(t=len(frames))))
    return Poses.from_frames(frames, tuple(size.tolist()))


def aligned(case: Case, method: str) -> tuple[dict, Poses, Poses]:
    """(outputs that are numbers, reference, aligned poses) of an align_* case."""
    size = tuple(case.arrays["ref_hw"].tolist())
    reference = Poses.from_frames([frame_from_tables(case.arrays, "ref_")], size)
    result = align(driving_poses(case.arrays, "f{t}_", case.arrays["frame_hw"]), reference, method)
    outputs = {"a": result.a, "b": result.b}
    for t in range(len(result.poses)):
        outputs |= tables_from_frame(result.poses.frame(t), f"f{t}_")
    return outputs, reference, result.poses


def drawn(poses: Poses, style: str) -> list[np.ndarray]:
    return list(draw_clip(poses, poses.size, style, published=True))


@runner("pose/align_mimicmotion")
def align_mimicmotion(case: Case) -> dict:
    outputs, reference, poses = aligned(case, "mimicmotion")
    images = np.stack([chw(image) for image in drawn(poses, "mimicmotion")])
    return outputs | {"images": images, "ref_image": chw(drawn(reference, "mimicmotion")[0])}


@runner("pose/align_stableanimator")
def align_stableanimator(case: Case) -> dict:
    outputs, _, poses = aligned(case, "stableanimator")
    images = np.stack([chw(image) for image in drawn(poses, "mimicmotion")])
    return outputs | {"images": images, "frame0_png_rgb": drawn(poses, "stableanimator")[0]}


@runner("mimicmotion/pose_align")
def pose_align(case: Case) -> dict:
    outputs = {}
    for scene in case.config:
        tables = {name.removeprefix(f"{scene}."): a for name, a in case.arrays.items() if name.startswith(f"{scene}.")}
        fps, stride, length = tables["fps_stride_len"].tolist()
        reference = Poses.from_frames(
            [frame_from_tables(tables, "ref.", "body_score")], tuple(tables["ref_hw"].tolist())
        )
        result = align(driving_poses(tables, "det{t}.", tables["video_hw"]), reference, "mimicmotion")
        outputs[f"{scene}.a_xy"], outputs[f"{scene}.b_xy"] = result.a, result.b
        outputs[f"{scene}.frame_indices"] = list(published_indices(int(length), fps, int(stride)))
        for t in range(len(result.poses)):
            outputs |= tables_from_frame(result.poses.frame(t), f"{scene}.det{t}.")
    return outputs
