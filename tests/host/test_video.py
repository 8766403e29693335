"""Sound and frame rate of a VIDEO, for the result."""

from __future__ import annotations

import torch

from ..make_media import impulses, make_video
from .harness import Host, Value


def as_video(path) -> Value:
    from comfy_api.latest import InputImpl

    return Value(InputImpl.VideoFromFile(str(path)))


def test_sound_and_rate_reach_the_new_video(host: Host, tmp_path) -> None:
    if "CreateVideo" not in host.nodes.NODE_CLASS_MAPPINGS:
        host.load_extra("nodes_video")
    path = make_video(tmp_path / "clip.mp4", fps=20, num_frames=40, sound=impulses(2, [1.25]))
    frames = Value(torch.rand(20, 32, 32, 3))
    graph = {
        "sound": ("ChoreoVideoSound", {"video": as_video(path), "start": 1.0}),
        "video": ("CreateVideo", {"images": frames, "audio": ("sound", 0), "fps": ("sound", 1)}),
    }
    result = host.queue(graph)
    assert result.error is None
    audio, fps = result.outputs["sound"]
    assert fps == 20
    assert audio["waveform"].shape == (1, 2, 48000)
    assert abs(audio["waveform"][0, 0].abs().argmax() / 48000 - 0.25) < 0.01
    parts = result.outputs["video"][0].get_components()
    assert parts.frame_rate == 20
    assert parts.audio["waveform"] is not None
    again = host.run("ChoreoVideoSound", video=Value(result.outputs["video"][0]), start=0.5)
    assert again[0]["waveform"].shape == (1, 2, 24000)


def test_a_silent_video_gives_a_silent_video(host: Host, tmp_path) -> None:
    if "CreateVideo" not in host.nodes.NODE_CLASS_MAPPINGS:
        host.load_extra("nodes_video")
    graph = {
        "sound": ("ChoreoVideoSound", {"video": as_video(make_video(tmp_path / "clip.mp4", fps=25, num_frames=5))}),
        "video": ("CreateVideo", {"images": Value(torch.rand(5, 32, 32, 3)), "audio": ("sound", 0), "fps": 25.0}),
    }
    result = host.queue(graph)
    assert result.error is None
    assert result.outputs["sound"] == (None, 25.0)


def test_a_start_after_the_end_is_explained(host: Host, tmp_path) -> None:
    graph = {
        "sound": (
            "ChoreoVideoSound",
            {"video": as_video(make_video(tmp_path / "clip.mp4", num_frames=5)), "start": 9.0},
        )
    }
    assert "cannot start at 9.00" in host.queue(graph).error
