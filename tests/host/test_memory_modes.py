"""Every memory mode of the host gives the same frames, and what grows with a clip grows as docs/memory.md says."""

from __future__ import annotations

import pytest

from .harness import Host
from .make_workflows import load_extras
from .memory_modes import LITTLE, MODES, Outcome, run_demo
from .svd_job import SIZE, clip, loaders, pose_pictures

FRAMES = 5


@pytest.fixture(scope="module")
def on_cpu(one_host: Host) -> Outcome:
    load_extras(one_host)
    return run_demo(one_host, "--cpu", FRAMES)


@pytest.mark.parametrize("mode", [mode for mode in MODES if mode != "--cpu"])
def test_a_mode_does_not_change_the_video(one_host: Host, on_cpu: Outcome, mode: str) -> None:
    outcome = run_demo(one_host, mode, FRAMES)
    # with little free memory the host runs the passes of guidance one after the other, which rounds differently
    limit = 1e-4 if MODES[mode][1] == LITTLE else 0
    assert (outcome.frames - on_cpu.frames).abs().max() <= limit
    assert outcome.loaded <= (0.1 * outcome.size if mode == "--novram" else outcome.size)


def test_what_grows_with_a_clip(host: Host) -> None:
    frames = 6
    graph = loaders() | {"condition": ("ChoreoMimicMotionConditioning", clip(pose_pictures(frames)))}
    outputs = host.queue(graph).outputs
    positive, _, latent = outputs["condition"]
    features = positive[0][1]["choreo_poses"].features
    height, width = (side // 8 for side in SIZE)
    channels = outputs["load"][0].model.model_config.unet_config["model_channels"]
    assert len(features) == len(latent["samples"]) == frames
    assert features.nbytes == frames * channels * height * width * 2  # half precision
    assert features.device.type == "cpu"
    assert latent["samples"].nbytes == frames * 4 * height * width * 4
    assert positive[0][1]["concat_latent_image"].nbytes == 4 * height * width * 4  # does not grow
