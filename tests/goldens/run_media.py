"""Which frames of a driving video are used."""

from __future__ import annotations

from choreo.media.frame_sampling import published_indices

from .cases import Case
from .registry import runner


@runner("pose/frame_sampling")
def frame_sampling(case: Case) -> dict:
    indices = {}
    for name, values in case.arrays.items():
        fps, num_frames, stride = values.tolist()
        indices[f"indices_{name.removeprefix('fps_n_stride_')}"] = list(
            published_indices(int(num_frames), fps, int(stride))
        )
    return indices
