"""Nodes for poses in files, and for the keypoints of other packs."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import folder_paths
from comfy_api.latest import io

from ..pose.openpose_json import FLAVOURS, from_openpose, save_json, to_openpose
from ..pose.poses import Poses
from .sockets import DEFAULT_FPS, PoseKeypoint, as_poses, fps_output, poses_input, poses_output

CATEGORY = "Choreo/Pose"
NO_FILES = "put JSON files into ComfyUI's input folder"
_OUTPUT = " [output]"


def pose_files() -> list[str]:
    """JSON files, and folders of them, in ComfyUI's input folder, then those in its output folder."""
    found = [*_pose_files_in(folder_paths.get_input_directory())]
    found += [name + _OUTPUT for name in _pose_files_in(folder_paths.get_output_directory())]
    return found or [NO_FILES]


def _pose_files_in(folder: str) -> list[str]:
    names = []
    for parent, _, files in os.walk(folder, followlinks=True):
        json_files = [name for name in files if name.lower().endswith(".json")]
        inside = Path(parent).relative_to(folder)
        names += [(inside / name).as_posix() for name in json_files]
        if len(json_files) > 1 and inside.parts:
            names.append(inside.as_posix() + "/")
    return sorted(names)


def _path_of(name: str) -> Path:
    """The file of a name in the list; FileNotFoundError for others, so that no name leads out of the folders."""
    if name not in pose_files() or name == NO_FILES:
        raise FileNotFoundError(
            f"There are no poses called {name}: put JSON files into {folder_paths.get_input_directory()} or save some "
            "with Save Poses, then press R to refresh the list."
        )
    if name.endswith(_OUTPUT):
        return Path(folder_paths.get_output_directory()) / name.removesuffix(_OUTPUT)
    return Path(folder_paths.get_input_directory()) / name


def _at_rate(poses: Poses, frame_rate: float) -> io.NodeOutput:
    """Poses, at another rate when one is given, and their rate."""
    poses = replace(poses, fps=frame_rate) if frame_rate > 0 else poses
    return io.NodeOutput(poses, poses.fps or DEFAULT_FPS)


def _rate_input() -> io.Float.Input:
    return io.Float.Input(
        "frame_rate",
        default=0.0,
        min=0.0,
        max=240.0,
        step=0.5,
        tooltip="Frames per second of these poses; 0: what they say themselves, if anything.",
    )


def _canvas_inputs() -> list[io.Int.Input]:
    tooltip = "{} in pixels of the picture the keypoints belong to, for keypoints that do not tell; 0: they do."
    return [
        io.Int.Input(name, default=0, min=0, max=16384, tooltip=tooltip.format(name.capitalize()))
        for name in ("width", "height")
    ]


def _flavour_input(default: str, optional: bool = False) -> io.Combo.Input:
    return io.Combo.Input(
        "flavour",
        options=list(FLAVOURS),
        default=default,
        optional=optional,
        tooltip="openpose: as controlnet_aux writes it, without faint points and scores. scored: with all points and "
        "scores, feet and frame rate; comes back without loss.",
    )


def _canvas(width: int, height: int) -> tuple[int, int] | None:
    if bool(width) != bool(height):
        raise ValueError(f"width is {width} and height {height}: give both, or leave both at 0.")
    return (height, width) if width else None


class ChoreoLoadPoses(io.ComfyNode):
    """Read poses from JSON."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Widgets and sockets."""
        return io.Schema(
            node_id="ChoreoLoadPoses",
            display_name="Load Poses",
            category=CATEGORY,
            description="Reads poses that Save Poses, OpenPose or other packs have written as JSON: one file for the "
            "clip, or a folder with one file a frame.",
            inputs=[
                io.Combo.Input(
                    "file",
                    options=pose_files(),
                    tooltip="A JSON file in ComfyUI's input folder, or one that Save Poses wrote (marked [output]). "
                    "Folders end with a slash.",
                ),
                _rate_input(),
                *_canvas_inputs(),
            ],
            outputs=[poses_output("The poses."), fps_output()],
        )

    @classmethod
    def validate_inputs(cls, file: str | None) -> bool | str:
        """Say what to do when the file is gone; None is a name that a link will bring."""
        try:
            if file is not None:
                _path_of(file)
        except FileNotFoundError as error:
            return str(error)
        return True

    @classmethod
    def fingerprint_inputs(cls, file: str | None, **others: Any) -> str:
        """Changes when the file does."""
        if file is None:
            return ""
        path = _path_of(file)
        files = sorted(path.glob("*.json")) if path.is_dir() else [path]
        return " ".join(str(part.stat().st_mtime_ns) for part in files)

    @classmethod
    def execute(cls, file: str, frame_rate: float, width: int, height: int) -> io.NodeOutput:
        """Read."""
        from ..pose.openpose_json import load_json

        return _at_rate(load_json(_path_of(file), size=_canvas(width, height)), frame_rate)


class ChoreoSavePoses(io.ComfyNode):
    """Write poses as JSON."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Widgets and sockets."""
        return io.Schema(
            node_id="ChoreoSavePoses",
            display_name="Save Poses",
            category=CATEGORY,
            description="Writes poses to ComfyUI's output folder, as JSON that Load Poses and tools for OpenPose read.",
            inputs=[
                poses_input("The poses to save."),
                io.String.Input(
                    "filename_prefix",
                    default="poses/choreo",
                    tooltip="Folder and beginning of the file name, inside the output folder; a number is added.",
                ),
                _flavour_input("scored", optional=True),
            ],
            outputs=[io.String.Output("path", display_name="path", tooltip="The file that was written.")],
            is_output_node=True,
        )

    @classmethod
    def execute(cls, poses: Any, filename_prefix: str, flavour: str = "scored") -> io.NodeOutput:
        """Write under the next free number."""
        poses = as_poses(poses)
        output = folder_paths.get_output_directory()
        size = poses.size[1], poses.size[0]
        folder, name, number, _, _ = folder_paths.get_save_image_path(filename_prefix, output, *size)
        path = Path(folder) / f"{name}_{number:05}_.json"
        try:
            save_json(path, poses, flavour)
        except OSError as error:
            raise OSError(
                f"The poses were not saved, because {path} cannot be written ({error.strerror}): make room there, or "
                "choose another filename_prefix."
            ) from error
        return io.NodeOutput(str(path), ui={"text": (str(path),)})


class ChoreoPosesToKeypoints(io.ComfyNode):
    """Poses for nodes of other packs."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Widgets and sockets."""
        return io.Schema(
            node_id="ChoreoPosesToKeypoints",
            display_name="Poses to POSE_KEYPOINT",
            category=CATEGORY,
            description="Gives poses to nodes of other packs.",
            inputs=[
                poses_input("The poses."),
                _flavour_input("openpose"),
            ],
            outputs=[PoseKeypoint.Output("keypoints", display_name="keypoints", tooltip="One OpenPose frame a frame.")],
        )

    @classmethod
    def execute(cls, poses: Any, flavour: str) -> io.NodeOutput:
        """Convert."""
        return io.NodeOutput(to_openpose(as_poses(poses), flavour))


class ChoreoKeypointsToPoses(io.ComfyNode):
    """Poses from nodes of other packs."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Widgets and sockets."""
        return io.Schema(
            node_id="ChoreoKeypointsToPoses",
            display_name="POSE_KEYPOINT to Poses",
            category=CATEGORY,
            description="Takes keypoints from other packs. All our nodes take them directly too; this one adds the "
            "frame rate, and the size of the picture where the keypoints do not tell it.",
            inputs=[
                PoseKeypoint.Input("keypoints", tooltip="Keypoints of people, one OpenPose frame a frame."),
                _rate_input(),
                *_canvas_inputs(),
            ],
            outputs=[poses_output("The poses."), fps_output()],
        )

    @classmethod
    def execute(cls, keypoints: Any, frame_rate: float, width: int, height: int) -> io.NodeOutput:
        """Convert."""
        frames = [keypoints] if isinstance(keypoints, dict) else keypoints
        return _at_rate(from_openpose(frames, size=_canvas(width, height)), frame_rate)


NODES = [ChoreoLoadPoses, ChoreoSavePoses, ChoreoPosesToKeypoints, ChoreoKeypointsToPoses]
