"""Nodes that draw poses, lay them over the clip, and take in skeletons that others have drawn."""

from __future__ import annotations

from typing import Any

import torch
from comfy_api.latest import io

from ..host.progress import on_host
from ..media.frame_sampling import Cut
from ..pose.poses import Poses
from ..pose.styles import STYLES
from .frames import clip_input, open_clip, start_input
from .sockets import as_poses, poses_input, to_images

CATEGORY = "Choreo/Pose"
STYLE_HELP = (
    "mimicmotion and stableanimator: what these networks were trained on. classic: DWPose and OpenPose annotators. "
    "controlnet_aux: ComfyUI's preprocessors. followyourpose: body lines only."
)


def _style_input() -> io.Combo.Input:
    return io.Combo.Input("style", options=list(STYLES), default="mimicmotion", tooltip=STYLE_HELP)


def _side(name: str, what: str) -> io.Int.Input:
    return io.Int.Input(name, default=0, min=0, max=16384, tooltip=f"Pixels; 0: {what}.")


def _chosen_size(width: int, height: int, size: tuple[int, int]) -> tuple[int, int]:
    """(height, width) in pixels; a side that is 0 follows from the other, both from `size`."""
    if width and height:
        return height, width
    if width or height:
        scale = width / size[1] if width else height / size[0]
        return (height or max(1, round(size[0] * scale))), (width or max(1, round(size[1] * scale)))
    return size


class ChoreoDrawPoses(io.ComfyNode):
    """Draw poses the way a network knows them."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Widgets and sockets."""
        return io.Schema(
            node_id="ChoreoDrawPoses",
            display_name="Draw Poses",
            category=CATEGORY,
            description="Draws skeletons in the convention that a network was trained on.",
            inputs=[
                poses_input("The poses to draw."),
                _style_input(),
                _side("width", "as wide as the picture the poses belong to, or in proportion to the height"),
                _side("height", "as high as the picture the poses belong to, or in proportion to the width"),
                io.Boolean.Input("body", default=True, tooltip="Draw limbs and joints."),
                io.Boolean.Input("hands", default=True, tooltip="Draw hands, where the style has them."),
                io.Boolean.Input("face", default=True, tooltip="Draw faces, where the style has them."),
            ],
            outputs=[io.Image.Output("images", display_name="IMAGE", tooltip="One drawing a frame.")],
        )

    @classmethod
    def execute(
        cls, poses: Any, style: str, width: int, height: int, body: bool, hands: bool, face: bool
    ) -> io.NodeOutput:
        """Draw; figures keep their proportions when the size has another ratio."""
        from ..pose.align import onto_canvas
        from ..pose.draw import draw_clip

        poses = as_poses(poses)
        size = _chosen_size(width, height, poses.size)
        drawings = draw_clip(onto_canvas(poses, size), size, style, body=body, hands=hands, face=face)
        with on_host():
            return io.NodeOutput(to_images(drawings, "drawing poses", len(poses)))


class ChoreoPoseOverlay(io.ComfyNode):
    """Lay drawn poses over the frames they were found in."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Widgets and sockets."""
        return io.Schema(
            node_id="ChoreoPoseOverlay",
            display_name="Pose Overlay",
            category=CATEGORY,
            description="Lays the skeletons over the frames they were found in, to check them.",
            inputs=[
                clip_input("The clip the poses were found in: a VIDEO, or an IMAGE batch with one picture a pose."),
                poses_input("The poses, not aligned to anything else."),
                _style_input(),
                io.Float.Input(
                    "strength",
                    default=0.8,
                    min=0.0,
                    max=1.0,
                    step=0.05,
                    tooltip="Share of the drawing where it covers.",
                ),
                start_input("For a VIDEO: seconds that were left out when the poses were extracted."),
            ],
            outputs=[io.Image.Output("images", display_name="IMAGE", tooltip="The clip with its poses.")],
        )

    @classmethod
    def execute(cls, frames: Any, poses: Any, style: str, strength: float, start: float) -> io.NodeOutput:
        """Draw at the size of the frames and mix."""
        from ..pose.draw import draw_clip, overlay

        poses = as_poses(poses)
        with on_host(), open_clip(frames, _same_frames(frames, poses, start)) as clip:
            drawings = draw_clip(poses, clip.size, style)
            mixed = (overlay(*pair, strength) for pair in zip(clip.frames(), drawings, strict=False))
            images = to_images(mixed, "drawing poses", min(clip.num_frames, len(poses)))
        return io.NodeOutput(images)


def _same_frames(frames: Any, poses: Poses, start: float) -> Cut:
    """The part of a clip that poses were found in, by their frame rate and number."""
    if not isinstance(frames, torch.Tensor):
        return Cut(start, None, 1, poses.fps, len(poses))
    if len(frames) != len(poses):
        raise ValueError(
            f"There are {len(frames)} pictures but poses of {len(poses)} frames: connect the pictures that the poses "
            "were found in."
        )
    return Cut()


class ChoreoSkeletonPictures(io.ComfyNode):
    """Bring skeletons that others have drawn to a size and to a network's colours."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Widgets and sockets."""
        return io.Schema(
            node_id="ChoreoSkeletonPictures",
            display_name="Import Skeleton Pictures",
            category=CATEGORY,
            description="Takes skeleton pictures from elsewhere, brings them to a size, and exchanges red and blue "
            "where the network expects it.",
            inputs=[
                clip_input("Drawn skeletons on black, one a frame.", "pictures"),
                _style_input(),
                _side("width", "as wide as the pictures, or in proportion to the height"),
                _side("height", "as high as the pictures, or in proportion to the width"),
                io.Combo.Input(
                    "fit",
                    options=["auto", "letterbox", "cover", "stretch"],
                    default="auto",
                    tooltip="When the ratio differs: letterbox pads with black, cover cuts off, stretch distorts. auto "
                    "stretches differences under 3 % and letterboxes others.",
                ),
                io.Combo.Input(
                    "channel_order",
                    options=["auto", "straight", "reversed"],
                    default="auto",
                    tooltip="straight: a red right shoulder; reversed: a blue one; auto: look at the colours.",
                ),
            ],
            outputs=[
                io.Image.Output("images", display_name="IMAGE", tooltip="Skeleton pictures as the network knows them."),
                io.String.Output("note", display_name="note", tooltip="What was found and done."),
            ],
        )

    @classmethod
    def execute(cls, pictures: Any, style: str, width: int, height: int, fit: str, channel_order: str) -> io.NodeOutput:
        """Fit and recolour, one picture at a time."""
        from ..pose.skeletons import prepare_skeletons

        order = None if channel_order == "auto" else channel_order
        with on_host(), open_clip(pictures, Cut()) as clip:
            size = _chosen_size(width, height, clip.size)
            skeletons = prepare_skeletons(clip.frames(), size, style, fit=fit, order=order)
            images = to_images(skeletons.frames, "preparing skeletons", clip.num_frames)
        return io.NodeOutput(images, skeletons.note)


NODES = [ChoreoDrawPoses, ChoreoPoseOverlay, ChoreoSkeletonPictures]
