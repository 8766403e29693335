"""Drawing poses, laying them over the clip, and taking in skeleton pictures, through the host's executor."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from .clips import ONE, SIZE, STEP, detector, frames, images, poses, video_file
from .harness import Host, Value


def drawn_at(image: torch.Tensor) -> np.ndarray:
    """(x, y) of the middle of what is drawn, as shares of the picture."""
    rows, columns = np.nonzero(image.numpy().max(axis=-1) > 0.2)
    return np.array([columns.mean() / image.shape[1], rows.mean() / image.shape[0]])


def test_a_drawing_is_what_the_core_draws(host: Host) -> None:
    found = poses(host, frames(2))
    styles = host.module("pose.styles").STYLES
    for style in styles:
        drawing = host.run("ChoreoDrawPoses", poses=found, style=style)[0]
        wanted = images(list(host.module("pose.draw").draw_clip(found.value, SIZE, style)))
        assert drawing.dtype == torch.float32
        assert torch.equal(drawing, wanted), style
    assert host.node("ChoreoDrawPoses").define_schema().inputs[1].options == list(styles)


def test_parts_can_be_left_out(host: Host) -> None:
    found = poses(host, frames(1))
    parts = ("body", "hands", "face")
    alone = [
        host.run("ChoreoDrawPoses", poses=found, style="classic", **{part: part == one for part in parts})[0]
        for one in parts
    ]
    nothing = host.run("ChoreoDrawPoses", poses=found, style="classic", **dict.fromkeys(parts, False))[0]
    assert all(picture.any() for picture in alone)
    assert not nothing.any()
    assert not torch.equal(alone[0], alone[1])


@pytest.mark.parametrize(
    ("asked", "size"),
    [((0, 0), SIZE), ((512, 0), (384, 512)), ((0, 96), (96, 128)), ((192, 192), (192, 192))],
)
def test_drawings_have_the_size_that_is_asked_for(host: Host, asked: tuple[int, int], size: tuple[int, int]) -> None:
    found = poses(host, frames(1))
    drawing = host.run("ChoreoDrawPoses", poses=found, style="classic", width=asked[0], height=asked[1])[0]
    assert drawing.shape == (1, *size, 3)


def test_figures_keep_their_proportions_on_another_canvas(host: Host) -> None:
    found = poses(host, frames(1))
    extents = []
    for width in (256, 512):
        drawing = host.run("ChoreoDrawPoses", poses=found, style="classic", width=width, height=192)[0]
        rows, columns = np.nonzero(drawing[0].numpy().max(axis=-1))
        extents.append((np.ptp(rows), np.ptp(columns)))
    assert np.abs(np.subtract(*extents)).max() <= 2


def test_overlays_follow_the_person(host: Host) -> None:
    pictures = frames(3)
    overlaid = host.run("ChoreoPoseOverlay", frames=Value(images(pictures)), poses=poses(host, pictures))[0]
    plain = images(pictures)
    changed = (overlaid - plain).abs()
    moved = [drawn_at(picture)[0] * SIZE[1] for picture in changed]
    assert np.diff(moved) == pytest.approx(STEP, abs=1.5)
    black = host.run("ChoreoDrawPoses", poses=poses(host, pictures))[0].amax(dim=-1) == 0
    assert torch.equal(overlaid[black], plain[black])


def test_a_video_is_overlaid_where_its_poses_were_found(host: Host, tmp_path: Path, monkeypatch) -> None:
    from comfy_api.latest import InputImpl

    pictures = frames(12)
    video = InputImpl.VideoFromFile(str(video_file(tmp_path / "clip.mkv", pictures)))
    monkeypatch.setattr(type(video), "get_components", lambda self: pytest.fail("the whole video was decoded"))
    cut = {"every_nth": 2, "max_frames": 3, "start": 0.2}
    found = host.run("ChoreoExtractPoses", frames=Value(video), detector=detector(host), **cut)[0]
    overlaid = host.run("ChoreoPoseOverlay", frames=Value(video), poses=Value(found), start=0.2)[0]
    chosen = [pictures[i] for i in (4, 6, 8)]
    wanted = host.run("ChoreoPoseOverlay", frames=Value(images(chosen)), poses=Value(found))[0]
    assert torch.equal(overlaid, wanted)


def test_pictures_and_poses_of_different_length_are_refused(host: Host) -> None:
    inputs = {"frames": Value(images(frames(3))), "poses": poses(host, frames(2))}
    run = host.queue({"x": ("ChoreoPoseOverlay", inputs)})
    assert "3 pictures but poses of 2 frames" in run.error


def test_drawing_an_empty_clip_is_refused(host: Host) -> None:
    found = poses(host, frames(1)).value
    run = host.queue({"x": ("ChoreoDrawPoses", {"poses": Value(found[0:0])})})
    assert "nothing to draw" in run.error


def test_drawing_can_be_stopped(host: Host) -> None:
    found = poses(host, frames(1)).value
    many = Value(replace(found, **{k: np.repeat(getattr(found, k), 40, 0) for k in ("points", "scores", "present")}))
    run = host.queue({"x": ("ChoreoDrawPoses", {"poses": many})}, interrupt_at=0)
    assert run.interrupted
    done = host.queue({"x": ("ChoreoDrawPoses", {"poses": many})})
    assert done.progress[-1][:3] == ("x", 40, 40)


def test_skeletons_in_other_colours_come_out_as_the_network_knows_them(host: Host) -> None:
    found = poses(host, frames(2))
    straight, backwards = (host.run("ChoreoDrawPoses", poses=found, style=s)[0] for s in ("classic", "mimicmotion"))
    taken, note = host.run("ChoreoSkeletonPictures", pictures=Value(straight), style="mimicmotion")
    assert torch.equal(taken, straight.flip(-1))
    assert "red and blue were exchanged" in note
    kept, note = host.run("ChoreoSkeletonPictures", pictures=Value(backwards), style="mimicmotion")
    assert torch.equal(kept, backwards)
    assert "nothing to change" in note


def test_skeletons_may_be_a_video(host: Host, tmp_path: Path) -> None:
    from comfy_api.latest import InputImpl

    drawing = host.run("ChoreoDrawPoses", poses=poses(host, frames(3)), style="classic")[0]
    path = video_file(tmp_path / "skeletons.mkv", [*(drawing * 255).round().byte().numpy()])
    inputs = {"style": "mimicmotion", "width": 128}
    taken = [
        host.run("ChoreoSkeletonPictures", pictures=Value(source), **inputs)[0]
        for source in (drawing, InputImpl.VideoFromFile(str(path)))
    ]
    assert torch.equal(*taken)


def test_skeletons_are_fitted(host: Host) -> None:
    drawing = Value(host.run("ChoreoDrawPoses", poses=poses(host, frames(1, (ONE,))), style="classic")[0])
    size = {"width": 192, "height": 192}
    padded = host.run("ChoreoSkeletonPictures", pictures=drawing, style="classic", **size)[0]
    assert padded.shape == (1, 192, 192, 3)
    assert not padded[:, :20].any()
    stretched = host.run("ChoreoSkeletonPictures", pictures=drawing, style="classic", fit="stretch", **size)[0]
    assert drawn_at(stretched[0]) == pytest.approx(drawn_at(drawing.value[0]), abs=0.02)


def test_from_a_video_file_to_a_video_file(host: Host) -> None:
    host.load_extra("nodes_video")
    video_file(host.folder / "input" / "dance.mkv", frames(4), fps=25)
    run = host.queue(
        {
            "load": ("LoadVideo", {"file": "dance.mkv"}),
            "find": ("ChoreoExtractPoses", {"frames": ("load", 0), "detector": detector(host)}),
            "draw": ("ChoreoDrawPoses", {"poses": ("find", 0)}),
            "create": ("CreateVideo", {"images": ("draw", 0), "fps": ("find", 2)}),
            "save": ("SaveVideo", {"video": ("create", 0), "filename_prefix": "skeletons"}),
        }
    )
    assert run.error is None
    (saved,) = (host.folder / "output").glob("skeletons*.mp4")
    info = host.module("media.video").probe(saved)
    assert (info.height, info.width, info.fps, info.num_frames) == (*SIZE, 25, 4)


def test_the_whole_toolkit_in_one_graph(host: Host) -> None:
    clip, reference = Value(images(frames(4, empty=[2]))), Value(images(frames(1)))
    run = host.queue(
        {
            "find": ("ChoreoExtractPoses", {"frames": clip, "detector": detector(host)}),
            "pick": ("ChoreoPickPerson", {"poses": ("find", 0)}),
            "fill": ("ChoreoFillGaps", {"poses": ("pick", 0), "gaps": "interpolate"}),
            "smooth": ("ChoreoSmoothPoses", {"poses": ("fill", 0)}),
            "align": (
                "ChoreoAlignPoses",
                {"poses": ("smooth", 0), "reference": reference, "detector": detector(host)},
            ),
            "draw": ("ChoreoDrawPoses", {"poses": ("align", 0)}),
            "overlay": ("ChoreoPoseOverlay", {"frames": clip, "poses": ("fill", 0)}),
            "save": ("ChoreoSavePoses", {"poses": ("align", 0)}),
        }
    )
    assert run.error is None
    assert run.outputs["draw"][0].shape == (4, *SIZE, 3)
    assert all(frame.any() for frame in run.outputs["draw"][0])
