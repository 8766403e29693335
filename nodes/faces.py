"""Nodes for faces: the networks that find and recognise them, whose face it is, and where faces are."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from comfy_api.latest import io

from ..host import folders
from ..host.progress import followed, on_host
from ..pose.masks import SHAPES
from ..pose.onnx_models import PROVIDERS
from .sockets import (
    ChoreoFace,
    ChoreoFaceAnalyser,
    FaceFiles,
    FaceIdentity,
    as_poses,
    check_images,
    poses_input,
    to_frames,
)

CATEGORY = "Choreo/Face"
WITHOUT_FACE = {"stop": "stop", "go on": "zeros"}
CHANNEL_ORDERS = {"as trained": "bgr", "released": "released"}


class ChoreoLoadFaceAnalyser(io.ComfyNode):
    """Choose the two networks of antelopev2."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Widgets and sockets."""
        names = folders.list_files(folders.FACE_NETWORKS)
        return io.Schema(
            node_id="ChoreoLoadFaceAnalyser",
            display_name="Load Face Analyser",
            category=CATEGORY,
            description="Chooses the networks that find and recognise faces: antelopev2, in models/insightface. Its "
            "licence allows research and other non-commercial use only. They are opened when they are used and closed "
            "afterwards, so nothing stays in memory.",
            inputs=[
                io.Combo.Input(
                    "detector",
                    options=names,
                    default=folders.preferred(names, "scrfd_10g_bnkps.onnx"),
                    tooltip="Network that finds faces: scrfd_10g_bnkps.onnx of antelopev2. "
                    "The built-in one sees nobody; it only shows that all works.",
                ),
                io.Combo.Input(
                    "recogniser",
                    options=names,
                    default=folders.preferred(names, "glintr100.onnx"),
                    tooltip="Network that recognises faces: glintr100.onnx of antelopev2. "
                    "The built-in one knows nobody; it only shows that all works.",
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
                ChoreoFaceAnalyser.Output(
                    "analyser", display_name="face_analyser", tooltip="The chosen files, for Face Identity."
                )
            ],
        )

    @classmethod
    def validate_inputs(cls, detector: str | None, recogniser: str | None) -> bool | str:
        """Say where a file that is not there can be had."""
        return folders.missing(folders.FACE_NETWORKS, detector, recogniser) or True

    @classmethod
    def fingerprint_inputs(cls, detector: str | None, recogniser: str | None, provider: str | None) -> str:
        """Changes when a file is replaced."""
        return folders.fingerprint(folders.FACE_NETWORKS, detector, recogniser)

    @classmethod
    def execute(cls, detector: str, recogniser: str, provider: str) -> io.NodeOutput:
        """Look the files up."""
        from ..model_loaders.tiny import FACE_FILE, RECOGNISER_FILE, TINY_FOLDER

        detector_path = folders.find(folders.FACE_NETWORKS, detector, TINY_FOLDER / FACE_FILE)
        recogniser_path = folders.find(folders.FACE_NETWORKS, recogniser, TINY_FOLDER / RECOGNISER_FILE)
        return io.NodeOutput(FaceFiles(detector_path, recogniser_path, provider))


class ChoreoFaceIdentity(io.ComfyNode):
    """Whose face it is."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Widgets and sockets."""
        return io.Schema(
            node_id="ChoreoFaceIdentity",
            display_name="Face Identity",
            category=CATEGORY,
            description="Finds the face in a picture and what makes it somebody's, for StableAnimator. The largest "
            "face counts; several pictures of one person are averaged.",
            inputs=[
                io.Image.Input(
                    "pictures",
                    tooltip="The person's face from the front, as large and sharp as there is one: the picture before "
                    "it is fitted, or other pictures of the same person.",
                ),
                ChoreoFaceAnalyser.Input("face_analyser", tooltip="The networks, from Load Face Analyser."),
                io.Combo.Input(
                    "without_face",
                    options=list(WITHOUT_FACE),
                    default="stop",
                    tooltip="When no picture shows a usable face: stop with a message, or go on without identity.",
                ),
                io.Combo.Input(
                    "channel_order",
                    options=list(CHANNEL_ORDERS),
                    default="as trained",
                    tooltip="as trained: what the network was trained with. released: red and blue swapped, as "
                    "StableAnimator's published program has it; only to compare with it.",
                ),
            ],
            outputs=[ChoreoFace.Output("face", display_name="face", tooltip="Whose face it is, for the conditioning.")],
        )

    @classmethod
    def execute(
        cls, pictures: torch.Tensor, face_analyser: FaceFiles, without_face: str, channel_order: str
    ) -> io.NodeOutput:
        """Open the networks, look at the pictures, close them."""
        from ..pose.identity import face_embedding

        frames = to_frames(check_images(pictures, "pictures"))
        options = {"without_face": WITHOUT_FACE[without_face], "channel_order": CHANNEL_ORDERS[channel_order]}
        with on_host(), face_analyser.open() as networks:
            found = face_embedding(followed(frames, "looking at faces", len(pictures)), networks, **options)
        return io.NodeOutput(FaceIdentity(found))


class ChoreoFaceMask(io.ComfyNode):
    """White where faces are."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Widgets and sockets."""
        return io.Schema(
            node_id="ChoreoFaceMask",
            display_name="Face Mask from Poses",
            category=CATEGORY,
            description="Says where faces are, by the points of poses and without a face network: for Face "
            "Optimisation, take the poses that were aligned to the picture.",
            inputs=[
                poses_input("Poses with points of the face, at the place where the video will have them."),
                io.Combo.Input(
                    "shape",
                    options=list(SHAPES),
                    default="box",
                    tooltip="box: a rectangle around the face, as StableAnimator makes masks. hull: jaw and brows.",
                ),
                io.Combo.Input(
                    "without_face",
                    options=["black", "white"],
                    default="black",
                    tooltip="Masks of frames without a face. black: there is nothing. white: everything, as published. "
                    "Face Optimisation leaves both alone.",
                ),
                io.Int.Input(
                    "width",
                    default=0,
                    min=0,
                    max=16384,
                    tooltip="Pixels; 0: as wide as the picture the poses belong to.",
                ),
                io.Int.Input(
                    "height",
                    default=0,
                    min=0,
                    max=16384,
                    tooltip="Pixels; 0: as high as the picture the poses belong to.",
                ),
            ],
            outputs=[io.Mask.Output("MASK", display_name="MASK", tooltip="One mask a frame, 1 on faces.")],
        )

    @classmethod
    def execute(cls, poses: Any, shape: str, without_face: str, width: int, height: int) -> io.NodeOutput:
        """Draw masks; figures keep their proportions when the size has another ratio."""
        from ..pose.align import onto_canvas
        from ..pose.masks import masks_from_poses

        poses = as_poses(poses)
        if not len(poses):
            raise ValueError("There are no poses to make masks from.")
        size = (height or poses.size[0], width or poses.size[1])
        masks = masks_from_poses(onto_canvas(poses, size), shape, size, 255 if without_face == "white" else 0)
        with on_host():
            found = np.stack([mask == 255 for mask in followed(masks, "drawing masks", len(poses))])
        return io.NodeOutput(torch.from_numpy(found).float())


NODES = [ChoreoLoadFaceAnalyser, ChoreoFaceIdentity, ChoreoFaceMask]
