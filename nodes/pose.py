"""Nodes that find poses in pictures and videos."""

from __future__ import annotations

from comfy_api.latest import io

from ..host import folders
from ..host.progress import on_host
from ..pose.onnx_models import PROVIDERS
from .frames import chosen_cut, clip_input, cut_inputs, open_clip
from .sockets import DEFAULT_FPS, ChoreoDetector, DetectorFiles, PoseKeypoint, fps_output, poses_output

CATEGORY = "Choreo/Pose"


class ChoreoLoadPoseDetector(io.ComfyNode):
    """Choose the two networks of DWPose."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Widgets and sockets."""
        names = folders.list_files(folders.POSE_NETWORKS)
        return io.Schema(
            node_id="ChoreoLoadPoseDetector",
            display_name="Load Pose Detector",
            category=CATEGORY,
            description="Chooses the networks that find people and their poses. They are opened when poses are "
            "extracted and closed afterwards, so nothing stays in memory.",
            inputs=[
                io.Combo.Input(
                    "detector",
                    options=names,
                    default=folders.preferred(names, "yolox_l.onnx"),
                    tooltip="Network that finds people: yolox_l.onnx in models/dwpose. "
                    "The built-in one only sees puppets like those of the demo.",
                ),
                io.Combo.Input(
                    "pose_model",
                    options=names,
                    default=folders.preferred(names, "dw-ll_ucoco_384.onnx"),
                    tooltip="Network that finds 133 points of each person: dw-ll_ucoco_384.onnx in models/dwpose. "
                    "The built-in one only sees puppets like those of the demo.",
                ),
                io.Combo.Input(
                    "provider",
                    options=["auto", *PROVIDERS],
                    default="auto",
                    tooltip="What onnxruntime computes on. auto takes the best that is installed (never TensorRT, "
                    "which first builds for minutes).",
                ),
            ],
            outputs=[
                ChoreoDetector.Output(
                    "detector_out", display_name="detector", tooltip="The chosen files, for nodes that find poses."
                )
            ],
        )

    @classmethod
    def validate_inputs(cls, detector: str | None, pose_model: str | None) -> bool | str:
        """Say where a file that is not there can be had."""
        return folders.missing(folders.POSE_NETWORKS, detector, pose_model) or True

    @classmethod
    def fingerprint_inputs(cls, detector: str | None, pose_model: str | None, provider: str | None) -> str:
        """Changes when a file is replaced."""
        return folders.fingerprint(folders.POSE_NETWORKS, detector, pose_model)

    @classmethod
    def execute(cls, detector: str, pose_model: str, provider: str) -> io.NodeOutput:
        """Look the files up."""
        from ..model_loaders.tiny import tiny_onnx

        tiny_detector, tiny_pose_model = tiny_onnx()
        detector_path = folders.find(folders.POSE_NETWORKS, detector, tiny_detector)
        pose_path = folders.find(folders.POSE_NETWORKS, pose_model, tiny_pose_model)
        return io.NodeOutput(DetectorFiles(detector_path, pose_path, provider))


class ChoreoExtractPoses(io.ComfyNode):
    """Find everybody's pose in every frame."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Widgets and sockets."""
        return io.Schema(
            node_id="ChoreoExtractPoses",
            display_name="Extract Poses",
            category=CATEGORY,
            description="Finds body, hands and face of everybody in a video or in pictures.",
            inputs=[
                clip_input("The driving clip. A VIDEO is read frame by frame and never held in memory as a whole."),
                ChoreoDetector.Input("detector", tooltip="The networks, from Load Pose Detector."),
                *cut_inputs(),
                io.Int.Input(
                    "detect_every",
                    default=1,
                    min=1,
                    max=30,
                    tooltip="Look for people in every n-th frame only and follow them in between: faster, but "
                    "newcomers are seen later.",
                ),
                io.Combo.Input(
                    "nobody",
                    options=["skip", "whole image"],
                    default="skip",
                    tooltip="When nobody is found in a frame: leave it empty for Fill Gaps, or take the whole image "
                    "for a person, as the published code does.",
                ),
            ],
            outputs=[
                poses_output("Points of everybody with their scores."),
                PoseKeypoint.Output(
                    "keypoints",
                    display_name="keypoints",
                    tooltip="The same for nodes of other packs: visible points only, without scores.",
                ),
                fps_output(),
            ],
        )

    @classmethod
    def execute(
        cls,
        frames: object,
        detector: DetectorFiles,
        every_nth: int,
        max_frames: int,
        start: float,
        frame_rate: float,
        detect_every: int,
        nobody: str,
    ) -> io.NodeOutput:
        """Open the networks, read the clip through them, close them."""
        from ..pose.openpose_json import to_openpose

        cut = chosen_cut(every_nth, max_frames, start, frame_rate)
        with on_host(), open_clip(frames, cut) as clip, detector.open(detect_every, nobody) as networks:
            poses = networks.extract(clip.frames(), clip.fps, clip.num_frames)
        return io.NodeOutput(poses, to_openpose(poses, "openpose"), poses.fps or DEFAULT_FPS)


NODES = [ChoreoLoadPoseDetector, ChoreoExtractPoses]
