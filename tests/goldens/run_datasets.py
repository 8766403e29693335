"""Training sets: which frames are kept, and which of them make a clip."""

from __future__ import annotations

import numpy as np
from choreo.datasets.published import kept_numbers
from choreo.datasets.sampling import clip_positions
from choreo.pose.masks import points_boxes

from .cases import Case
from .registry import runner


@runner("mimicmotion/train_dataset")
def train_dataset(case: Case) -> dict:
    tables, config = case.arrays, case.config
    scores = {part: tables[part] for part in ("body_score", "hands_score", "faces_score")}
    frames = [
        {"frame_idx": index, **{part: table[index] for part, table in scores.items()}}
        for index in range(len(scores["body_score"]))
    ]
    samplings = [clip_positions(*row) for row in tables["sampling"].tolist()]
    width = max(map(len, samplings))
    # the published routine, which its trainer never calls, keeps the last hand of a frame only
    boxes = points_boxes(tables["hands"][:, -1], config["mask_size"], config["margin"])
    seen = scores["hands_score"].mean(axis=(1, 2)) > config["hand_threshold"]
    return {
        "kept_frames": kept_numbers(frames),
        "sampling_idx": np.array([row + [-1] * (width - len(row)) for row in samplings]),
        "hand_mask_rect_yyxx": np.where(seen[:, None], boxes[:, [1, 3, 0, 2]], -1),
        "hand_mask_value": np.where(seen, np.float32(config["mask_value"]), np.float32(0)),
    }
