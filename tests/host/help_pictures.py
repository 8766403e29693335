"""The pictures of the help pages that show what a node does: made by the nodes, on the demo's inputs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

from .harness import Host, Value
from .workflow_plans import DEMO_SIZE, TINY

SIDE = 256  # height of a tile
MARGIN, LABEL = 6, 22
BACKGROUND, TEXT = "#202020", "#d0d0d0"
FRAMES = 24
Tiles = Sequence[tuple[str, Image.Image]]


def help_pictures(host: Host) -> dict[str, Image.Image]:
    """By node id."""
    demo = _Demo(host)
    return {
        "ChoreoExtractPoses": in_a_row([("frames", demo.frame), ("poses", demo.drawn(demo.poses, "classic"))]),
        "ChoreoPoseOverlay": in_a_row([(f"frame {k}", demo.overlay(demo.poses, k)) for k in demo.shown]),
        "ChoreoPoseVideo": in_a_row(
            [
                *((f"frame {k}", demo.drawn(demo.poses, "classic", k)) for k in demo.shown[::2]),
                *((f"frame {k}", demo.overlay(demo.poses, k)) for k in demo.shown[::2]),
            ]
        ),
        "ChoreoDrawPoses": in_a_row([(s, demo.drawn(demo.poses, s)) for s in host.module("pose.styles").STYLES]),
        "ChoreoAlignPoses": _alignment(demo),
        "ChoreoFitPicture": in_a_row(
            [("picture", demo.reference), *((f"{w} x {h}", demo.fitted(w, h)) for w, h in ((576, 1024), (1024, 576)))]
        ),
        "ChoreoMimicMotionSampler": _sampling(demo),
        "ChoreoLatentFusion": fusion_chart(host),
    }


class _Demo:
    """What the nodes make of the demo's inputs."""

    def __init__(self, host: Host) -> None:
        self.host = host
        picture, video = host.run("ChoreoDemoInputs")
        self.detector = Value(
            host.run("ChoreoLoadPoseDetector", detector=TINY, pose_model=TINY, provider="cpu")[0],
        )
        self.video, self.picture = Value(video), Value(picture)
        self.poses = Value(
            host.run("ChoreoExtractPoses", frames=self.video, detector=self.detector, max_frames=FRAMES)[0]
        )
        self.middle = len(self.poses.value) // 2
        self.shown = (0, self.middle, len(self.poses.value) - 1)
        self.reference = tile(picture)
        self.frame = tile(video.get_components().images, self.middle)

    def drawn(self, poses: Value, style: str, frame: int | None = None) -> Image.Image:
        """A drawing of poses, large enough to see its lines."""
        height, width = poses.value.size
        size = {"width": width * SIDE * 2 // height, "height": SIDE * 2}
        images = self.host.run("ChoreoDrawPoses", poses=poses, style=style, **size)[0]
        return tile(images, self.middle if frame is None else frame)

    def overlay(self, poses: Value, frame: int, over: Value | None = None) -> Image.Image:
        """Poses laid over the clip, or over a picture."""
        frames = over or self.video
        return tile(self.host.run("ChoreoPoseOverlay", frames=frames, poses=poses, style="classic")[0], frame)

    def fitted(self, width: int, height: int) -> Image.Image:
        """The reference at another size."""
        return tile(self.host.run("ChoreoFitPicture", picture=self.picture, width=width, height=height)[0])

    def aligned(self, method: str, scale: int = 1) -> tuple[Value, Value, Value]:
        """(poses, reference pose, the picture at the video's size)."""
        size = {name: scale * side for name, side in DEMO_SIZE.items()}
        picture = Value(self.host.run("ChoreoFitPicture", picture=self.picture, **size)[0])
        poses, reference, _ = self.host.run(
            "ChoreoAlignPoses", poses=self.poses, reference=picture, detector=self.detector, method=method
        )
        return Value(poses), Value(reference), picture


def _alignment(demo: _Demo) -> Image.Image:
    tiles = [("driving frame", demo.overlay(demo.poses, demo.middle))]
    for method in ("none", "mimicmotion"):
        poses, _, picture = demo.aligned(method, scale=3)
        still = Value(picture.value.repeat(len(poses.value), 1, 1, 1))
        tiles.append((method, demo.overlay(poses, demo.middle, still)))
    return in_a_row(tiles)


def _sampling(demo: _Demo) -> Image.Image:
    poses, reference, picture = demo.aligned("mimicmotion")
    model = Value(demo.host.run("ChoreoLoadMimicMotion", weights=TINY)[0])
    vae, clip_vision = map(Value, demo.host.run("ChoreoLoadSVDParts", folder=TINY))
    latent = demo.host.run(
        "ChoreoMimicMotionSampler",
        model=model,
        vae=vae,
        clip_vision=clip_vision,
        picture=picture,
        poses=poses,
        reference_pose=reference,
        steps=10,
        schedule="ays",
    )[0]
    video = demo.host.run("ChoreoDecodeVideo", samples=Value(latent), vae=vae)[0]
    above = [("picture", tile(picture.value)), *((f"pose {k}", demo.drawn(poses, "classic", k)) for k in demo.shown)]
    empty = Image.new("RGB", above[0][1].size, BACKGROUND)
    return in_a_column(
        [in_a_row(above), in_a_row([("", empty), *((f"frame {k}", tile(video, k)) for k in demo.shown)])]
    )


def fusion_chart(host: Host, num_frames: int = 40, window: int = 16, overlap: int = 6) -> Image.Image:
    """Which frames each window holds, and how much its prediction of each weighs."""
    windows = host.module("samplers.windows")
    weights = windows.window_weights(window)
    rows = windows.windows(num_frames, window, overlap)
    cell, bar = 20, 44
    chart = Image.new("RGB", (num_frames * cell + 110, len(rows) * (bar + 14) + 40), BACKGROUND)
    pen = ImageDraw.Draw(chart)
    for row, frames in enumerate(rows):
        bottom = (row + 1) * (bar + 14)
        pen.text((8, bottom - bar // 2 - 8), f"window {row + 1}", fill=TEXT, font=ImageFont.load_default(14))
        pen.line((90, bottom, 90 + num_frames * cell, bottom), fill="#505050")
        for frame, weight in zip(frames, weights.tolist(), strict=True):
            left = 90 + frame * cell
            colour = "#d98a3d" if frame == 0 else "#4f8fbf"
            pen.rectangle((left, bottom - round(bar * weight), left + cell - 3, bottom), fill=colour)
    text = f"frames 0 (the reference, in every window) to {num_frames - 1}; height: weight of the window's prediction"
    pen.text((90, chart.height - 28), text, fill=TEXT, font=ImageFont.load_default(14))
    return chart


def tile(images: torch.Tensor, frame: int = 0) -> Image.Image:
    """A frame of an IMAGE at the height of a tile."""
    pixels = (images[min(frame, len(images) - 1), ..., :3] * 255).round().byte().numpy()
    picture = Image.fromarray(np.ascontiguousarray(pixels))
    return picture.resize((round(picture.width * SIDE / picture.height), SIDE), Image.Resampling.LANCZOS)


def in_a_row(tiles: Tiles) -> Image.Image:
    """Labelled pictures side by side."""
    width = sum(picture.width + MARGIN for _, picture in tiles) + MARGIN
    row = Image.new("RGB", (width, SIDE + LABEL + 2 * MARGIN), BACKGROUND)
    pen, x = ImageDraw.Draw(row), MARGIN
    for label, picture in tiles:
        pen.text((x, 4), label, fill=TEXT, font=ImageFont.load_default(14))
        row.paste(picture, (x, LABEL + MARGIN))
        x += picture.width + MARGIN
    return row


def in_a_column(rows: Sequence[Image.Image]) -> Image.Image:
    """Rows below each other."""
    column = Image.new("RGB", (max(row.width for row in rows), sum(row.height for row in rows)), BACKGROUND)
    y = 0
    for row in rows:
        column.paste(row, (0, y))
        y += row.height
    return column
