"""Measures of MagicPose's evaluation."""

from __future__ import annotations

import numpy as np
from choreo.evaluation.disco import grey_ssim, l1_per_pixel, wrapped_psnr
from choreo.evaluation.metrics import psnr

from .cases import Case
from .registry import runner

MEASURES = {"l1": l1_per_pixel, "psnr": wrapped_psnr, "ssim": grey_ssim}


@runner("magicpose/metrics")
def disco_metrics(case: Case) -> dict:
    names = sorted(name.removeprefix("gt.") for name in case.arrays if name.startswith("gt."))
    pairs = {name: (case.arrays[f"gen.{name}"], case.arrays[f"gt.{name}"]) for name in names}
    outputs = {}
    for measure, function in MEASURES.items():
        values = {name: np.array([function(*pair)]) for name, pair in pairs.items()}
        outputs |= {f"{measure}.{name}": value for name, value in values.items()}
        outputs[measure] = np.mean([*values.values()], axis=0)
    same_size = [pair for pair in pairs.values() if pair[0].shape == pair[1].shape]
    return outputs | {"psnr_correct": np.mean([psnr(*pair) for pair in same_size], axis=0)}
