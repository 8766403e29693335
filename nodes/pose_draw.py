"""Nodes that draw poses, also over the clip or into a video, and take in skeletons that others have drawn."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import folder_paths
import numpy as np
import torch
from comfy_api.latest import InputImpl, io, ui

from ..host.progress import followed, on_host
from ..media.frame_sampling import Cut
from ..pose.poses import Poses
from ..pose.styles import STYLES
from .frames import Clip, clip_input, open_clip, start_input
from .sockets import DEFAULT_FPS, as_poses, poses_input, to_images

CATEGORY = "Choreo/Pose"
STYLE_HELP = (
    "mimicmotion and stableanimator: what these networks were trained on. classic: DWPose and OpenPose annotators. "
    "controlnet_aux: ComfyUI's preprocessors. followyourpose: body lines only."
)


def _style_input() -> io.Combo.Input:
    return io.Combo.Input("style", options=list(STYLES), default="mimicmotion", tooltip=STYLE_HELP)


def _strength_input() -> io.Float.Input:
    tooltip = "Share of the drawing where it covers the clip."
    return io.Float.Input("strength", default=0.8, min=0.0, max=1.0, step=0.05, tooltip=tooltip)


def _start_input() -> io.Float.Input:
    return start_input("For a VIDEO: seconds that were left out when the poses were extracted.")


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
                _strength_input(),
                _start_input(),
            ],
            outputs=[io.Image.Output("images", display_name="IMAGE", tooltip="The clip with its poses.")],
        )

    @classmethod
    def execute(cls, frames: Any, poses: Any, style: str, strength: float, start: float) -> io.NodeOutput:
        """Draw at the size of the frames and mix."""
        poses = as_poses(poses)
        with on_host(), open_clip(frames, _same_frames(frames, poses, start)) as clip:
            total = min(clip.num_frames, len(poses))
            return io.NodeOutput(to_images(_mixed(clip, poses, style, strength), "drawing poses", total))


def _mixed(clip: Clip, poses: Poses, style: str, strength: float) -> Iterator[np.ndarray]:
    from ..pose.draw import draw_clip, overlay

    drawings = draw_clip(poses, clip.size, style)
    return (overlay(*pair, strength) for pair in zip(clip.frames(), drawings, strict=False))


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


class ChoreoPoseVideo(io.ComfyNode):
    """Draw poses into a video of any length."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Widgets and sockets."""
        return io.Schema(
            node_id="ChoreoPoseVideo",
            display_name="Pose Video",
            category=CATEGORY,
            description="Draws poses into a video and shows it, on black or over the clip they were found in, with its "
            "sound. Frames are written as they are drawn, so a clip of any length needs little memory.",
            inputs=[
                poses_input("The poses to draw."),
                clip_input(
                    "The clip the poses were found in, to lay them over: a VIDEO, or an IMAGE batch with one picture a "
                    "pose. Without it they are drawn on black.",
                    optional=True,
                ),
                _style_input(),
                _strength_input(),
                _start_input(),
                io.String.Input(
                    "filename_prefix",
                    default="",
                    tooltip="Folder and beginning of the file name, inside the output folder; a number is added. "
                    "Empty: the video is shown only.",
                ),
            ],
            outputs=[io.Video.Output("VIDEO", display_name="VIDEO", tooltip="The same video for other nodes.")],
            is_output_node=True,
        )

    @classmethod
    def execute(
        cls, poses: Any, style: str, strength: float, start: float, filename_prefix: str, frames: Any = None
    ) -> io.NodeOutput:
        """Write frame by frame, into the output folder or that of temporary files."""
        from ..pose.draw import draw_clip

        poses = as_poses(poses)
        path, result = _free_video(filename_prefix)
        fps = poses.fps or DEFAULT_FPS
        with on_host():
            if frames is None:
                _write(path, draw_clip(poses, poses.size, style), poses.size, fps, len(poses))
            else:
                with open_clip(frames, _same_frames(frames, poses, start)) as clip:
                    total = min(clip.num_frames, len(poses))
                    sound = {"audio_from": clip.sound, "audio_start": start}
                    _write(path, _mixed(clip, poses, style, strength), clip.size, fps, total, **sound)
        return io.NodeOutput(InputImpl.VideoFromFile(str(path)), ui=ui.PreviewVideo([result]))


def _free_video(prefix: str) -> tuple[Path, ui.SavedResult]:
    """A new file in the output folder, or, without a prefix, in that of temporary files; and what the page calls it."""
    root = folder_paths.get_output_directory() if prefix else folder_paths.get_temp_directory()
    folder, name, number, subfolder, _ = folder_paths.get_save_image_path(prefix or "choreo_poses", root)
    path = Path(folder) / f"{name}_{number:05}_.mp4"
    return path, ui.SavedResult(path.name, subfolder, io.FolderType.output if prefix else io.FolderType.temp)


def _write(
    path: Path, pictures: Iterable[np.ndarray], size: tuple[int, int], fps: float, total: int, **sound: Any
) -> None:
    from ..media.write import VideoWriter

    with VideoWriter(path, size, fps, **sound) as video:
        for picture in followed(pictures, "drawing poses", total):
            video.write(picture)


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


NODES = [ChoreoDrawPoses, ChoreoPoseOverlay, ChoreoPoseVideo, ChoreoSkeletonPictures]
