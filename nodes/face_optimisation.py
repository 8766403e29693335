"""The node that optimises faces while a stock sampler samples."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import folder_paths
import numpy as np
import torch
from comfy_api.latest import io

from ..host import folders
from ..host.progress import on_host
from .conditioning import single_picture
from .loaders import AUTOMATIC
from .sockets import ChoreoFaceAnalyser, FaceFiles


class ChoreoFaceOptimisation(io.ComfyNode):
    """Optimise faces while a stock sampler samples."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Widgets and sockets."""
        return io.Schema(
            node_id="ChoreoFaceOptimisation",
            display_name="Face Optimisation",
            category="Choreo/Sampling",
            description="Moves what each sampling step predicts until the faces resemble the picture's more, "
            "StableAnimator's HJB optimisation. It works with KSampler and other stock samplers; a step takes many "
            "times longer.",
            inputs=[
                io.Model.Input("model", tooltip="StableAnimator, from Load StableAnimator or Latent Fusion."),
                io.Vae.Input("vae", tooltip="SVD's VAE; its decoder is copied."),
                ChoreoFaceAnalyser.Input(
                    "face_analyser", tooltip="Its recogniser judges faces, its detector finds the picture's."
                ),
                io.Image.Input("picture", tooltip="Whose face it shall be, at the size of the video."),
                io.Mask.Input(
                    "masks", tooltip="Where the face is in every frame of the video, from Face Mask from Poses."
                ),
                io.Mask.Input(
                    "picture_mask",
                    optional=True,
                    tooltip="Where the face is in the picture. Without it the largest face counts that is found there.",
                ),
                *_optimisation_inputs(),
            ],
            outputs=[io.Model.Output("MODEL", display_name="MODEL", tooltip="The same MODEL with face optimisation.")],
        )

    @classmethod
    def fingerprint_inputs(cls, arcface: str, **widgets: Any) -> str:
        """Read ArcFace again when its file has changed."""
        names = [] if arcface == AUTOMATIC else [arcface]
        return f"{folders.fingerprint(folders.STABLEANIMATOR, *names)} {sorted(map(str, widgets.items()))}"

    @classmethod
    def execute(
        cls,
        model: Any,
        vae: Any,
        face_analyser: FaceFiles,
        picture: torch.Tensor,
        masks: torch.Tensor,
        arcface: str,
        dtype: str,
        picture_mask: torch.Tensor | None = None,
        **settings: Any,
    ) -> io.NodeOutput:
        """Copy the networks, find the picture's face, patch."""
        from ..host.face_optimisation import networks_for_faces, optimise_faces, reference_face
        from ..samplers.face_optimisation import FaceOptimisation, FaceTarget

        frame = single_picture(picture)
        size = frame.shape[:2]
        chosen = FaceOptimisation(dtype=dtype, **settings)
        with on_host():
            box = _face_in(frame, face_analyser, picture_mask)
            networks = networks_for_faces(vae, _arcface_path(arcface, face_analyser), dtype)
            pixels = torch.from_numpy(frame).permute(2, 0, 1).float() / 127.5 - 1
            target = FaceTarget(_boxes(masks, size, "masks"), reference_face(networks, pixels, box))
        return io.NodeOutput(optimise_faces(model, networks, target, chosen, size))


def _optimisation_inputs() -> list[io.Input]:
    names = folder_paths.get_filename_list(folders.STABLEANIMATOR)
    return [
        io.Combo.Input(
            "arcface",
            options=[AUTOMATIC, *sorted(names, key=lambda name: "glintr" not in name)],
            default=AUTOMATIC,
            tooltip="ArcFace's network for torch. automatic takes glintr100_torch.pth from any folder of "
            "models/stable_animator, else it converts the recogniser of the face analyser, for which the package onnx "
            "must be installed.",
        ),
        io.Int.Input("start", default=0, min=0, max=999, tooltip="The first step that is optimised, from 0."),
        io.Int.Input("end", default=20, min=0, max=999, tooltip="The last step that is optimised."),
        io.Int.Input("iterations", default=3, min=1, max=100, tooltip="How often each of these steps is optimised."),
        io.Float.Input(
            "eta",
            default=0.1,
            min=0.001,
            max=10.0,
            step=0.001,
            tooltip="How far an iteration goes at the first step; it falls to 0 towards the last one.",
        ),
        io.Int.Input(
            "chunk",
            default=4,
            min=1,
            max=256,
            tooltip="Frames decoded together, 4 as published. It changes the result a little; fewer need less memory.",
        ),
        io.Combo.Input(
            "dtype",
            options=["float32", "bfloat16", "float16"],
            default="float32",
            tooltip="Precision of the decoder: float32 as published, the others need half the memory.",
        ),
        io.Boolean.Input(
            "offload",
            default=False,
            tooltip="Keep what the gradient needs in main memory: slower, with the least memory of the card.",
        ),
    ]


def _arcface_path(name: str, analyser: FaceFiles) -> Path:
    """The file that ArcFace's network is read from."""
    key = folders.STABLEANIMATOR
    if name != AUTOMATIC:
        return folders.find(key, name, Path())
    names = (n for n in folder_paths.get_filename_list(key) if Path(n).name == "glintr100_torch.pth")
    return next((folders.find(key, name, Path()) for name in names), analyser.recogniser)


def _face_in(frame: np.ndarray, analyser: FaceFiles, mask: torch.Tensor | None) -> Sequence[int]:
    """The box of the picture's face, x1, y1, x2, y2: where the mask says, else the largest face that is found."""
    from ..pose.identity import largest_box

    if mask is not None:
        (box,) = _boxes(mask[:1], frame.shape[:2], "picture_mask")
        if box is None:
            raise ValueError("picture_mask does not say where the face is in the picture: it has only one colour.")
        return box
    with analyser.open() as networks:
        box = largest_box(frame, networks)
    if box is None:
        raise ValueError("No face was found in the picture: connect picture_mask, which says where it is.")
    return box


def _boxes(masks: torch.Tensor, size: tuple[int, int], what: str) -> list[np.ndarray | None]:
    """The box around the white of each mask (frames, h, w), in pixels of a picture of this size; None: no face."""
    from ..pose.masks import boxes_of_masks

    if masks.ndim != 3 or 0 in masks.shape:
        raise ValueError(f"{what} is empty or no mask: expected frames x height x width, got {tuple(masks.shape)}.")
    return boxes_of_masks(((mask > 0.5).mul(255).byte().cpu().numpy() for mask in masks), size)


NODES = [ChoreoFaceOptimisation]
