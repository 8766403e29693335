"""StableAnimator's nodes: the picture's person keeps their face."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import folder_paths
import numpy as np
import torch
from comfy_api.latest import io

from ..host import folders
from ..host.models import DTYPES
from ..host.progress import followed, on_host
from .conditioning import (
    conditioned,
    conditioning_outputs,
    drawn,
    noise_seed_input,
    single_picture,
    socket_inputs,
    strength_inputs,
    svd_inputs,
)
from .sockets import ChoreoFace, ChoreoFaceAnalyser, FaceFiles

AUTOMATIC = "automatic"
NO_WEIGHTS = "put unet.pth into models/stable_animator/Animation"
STYLE = "stableanimator"


class ChoreoLoadStableAnimator(io.ComfyNode):
    """Load StableAnimator as a MODEL."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Widgets and sockets."""
        names = folder_paths.get_filename_list(folders.STABLEANIMATOR)
        unets = sorted(names, key=lambda name: not Path(name).name.startswith("unet")) or [NO_WEIGHTS]
        return io.Schema(
            node_id="ChoreoLoadStableAnimator",
            display_name="Load StableAnimator",
            category="Choreo/Loaders",
            description="Loads StableAnimator as a MODEL for the stock samplers, with its PoseNet and its face "
            "encoder. The three files lie in models/stable_animator/Animation.",
            inputs=[
                io.Combo.Input(
                    "weights",
                    options=unets,
                    default=folders.preferred(unets, "unet.pth"),
                    tooltip="StableAnimator's UNet, which holds the identity adapter: unet.pth.",
                ),
                io.Combo.Input(
                    "pose_net",
                    options=[AUTOMATIC, *names],
                    default=AUTOMATIC,
                    tooltip="automatic takes pose_net.pth from the folder of the UNet, else from any folder of "
                    "models/stable_animator.",
                ),
                io.Combo.Input(
                    "face_encoder",
                    options=[AUTOMATIC, *names],
                    default=AUTOMATIC,
                    tooltip="automatic takes face_encoder.pth from the folder of the UNet, else from any folder of "
                    "models/stable_animator.",
                ),
                io.Combo.Input(
                    "weight_dtype",
                    options=list(DTYPES),
                    default="default",
                    tooltip="How the UNet's weights are kept. default: what ComfyUI finds best for your device. fp8 "
                    "halves the memory of fp16 and costs some quality.",
                ),
            ],
            outputs=[
                io.Model.Output(
                    "MODEL", display_name="MODEL", tooltip="StableAnimator's UNet, with its PoseNet and face encoder."
                )
            ],
        )

    @classmethod
    def validate_inputs(cls, weights: str | None) -> bool | str:
        """Say where the file can be had that has vanished."""
        return folders.missing(folders.STABLEANIMATOR, weights) or True

    @classmethod
    def fingerprint_inputs(cls, weights: str, pose_net: str, face_encoder: str, weight_dtype: str) -> str:
        """Load again when a file has changed."""
        names = [name for name in (weights, pose_net, face_encoder) if name != AUTOMATIC]
        return f"{folders.fingerprint(folders.STABLEANIMATOR, *names)} {pose_net} {face_encoder} {weight_dtype}"

    @classmethod
    def execute(cls, weights: str, pose_net: str, face_encoder: str, weight_dtype: str) -> io.NodeOutput:
        """Load."""
        from ..host.models import stableanimator_of
        from ..model_loaders.stableanimator import read_stableanimator

        path = folders.find(folders.STABLEANIMATOR, weights, Path())
        parts = {"pose_net": pose_net, "face_encoder": face_encoder}
        found = read_stableanimator(path, *(_part(path, part, name) for part, name in parts.items()))
        return io.NodeOutput(stableanimator_of(found, weight_dtype))


def _part(unet_path: Path, part: str, name: str) -> Path | None:
    """The file of a part; None leaves it to the reader, which says what it looked for when there is none."""
    from ..model_loaders.stableanimator import SUFFIXES, part_names

    key = folders.STABLEANIMATOR
    if name != AUTOMATIC:
        return folders.find(key, name, Path())
    if any(path.is_file() for path in part_names(unet_path, part)):
        return None
    wanted = {part + suffix for suffix in SUFFIXES}
    return next(
        (folders.find(key, n, Path()) for n in folder_paths.get_filename_list(key) if Path(n).name in wanted), None
    )


class ChoreoStableAnimatorConditioning(io.ComfyNode):
    """Condition StableAnimator on a picture, a face and poses."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Widgets and sockets."""
        return io.Schema(
            node_id="ChoreoStableAnimatorConditioning",
            display_name="StableAnimator Conditioning",
            category="Choreo/Conditioning",
            description="Prepares picture, face and poses for sampling, with the preprocessing that StableAnimator was "
            "published with. The LATENT has one frame a pose.",
            inputs=[
                io.Model.Input(
                    "model",
                    tooltip="StableAnimator, from Load StableAnimator; it brings its PoseNet and face encoder.",
                ),
                ChoreoFace.Input("face", tooltip="Whose face the video keeps, from Face Identity."),
                *socket_inputs(),
                io.Float.Input(
                    "identity_strength",
                    default=1.0,
                    min=0.0,
                    max=10.0,
                    step=0.05,
                    tooltip="How strongly the face acts; 1 as published, 0 leaves it out.",
                ),
                *strength_inputs(),
                *svd_inputs(noise_aug_strength=0.02),
                noise_seed_input(),
            ],
            outputs=conditioning_outputs("Empty latents, one a pose."),
        )

    @classmethod
    def execute(cls, noise_aug_seed: int, picture: Any, poses: Any, face: Any, **inputs: Any) -> io.NodeOutput:
        """Encode picture, face and poses."""
        frame = single_picture(picture)
        frames, count = drawn(poses, frame.shape[:2], STYLE)
        pictures = followed(frames, "pose features", count)
        found, _ = conditioned(noise_aug_seed, frame, pictures, identity=face.embedding, **inputs)
        return io.NodeOutput(found.positive, found.negative, found.latent)


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


def _face_in(frame: np.ndarray, analyser: FaceFiles, mask: torch.Tensor | None) -> tuple[int, int, int, int]:
    """The box of the picture's face: where the mask says, else the largest face that is found."""
    height, width = frame.shape[:2]
    if mask is not None:
        (box,) = _boxes(mask[:1], (height, width), "picture_mask")
        if box is None:
            raise ValueError("picture_mask is black, so it does not say where the face is in the picture.")
        return box
    with analyser.open() as networks:
        faces = networks.find(frame)
    if not len(faces):
        raise ValueError("No face was found in the picture: connect picture_mask, which says where it is.")
    x1, y1, x2, y2 = faces.boxes[faces.largest()].astype(int).tolist()
    return max(x1, 0), max(y1, 0), min(x2, width - 1), min(y2, height - 1)


def _boxes(masks: torch.Tensor, size: tuple[int, int], what: str) -> list[tuple[int, int, int, int] | None]:
    """The box around the white of each mask (frames, h, w), in pixels of a picture of this size; None without white."""
    if masks.ndim != 3 or 0 in masks.shape:
        raise ValueError(f"{what} is empty or no mask: expected frames x height x width, got {tuple(masks.shape)}.")
    if masks.shape[1:] != size:
        masks = torch.nn.functional.interpolate(masks[:, None].float(), size)[:, 0]
    found = []
    for mask in masks > 0.5:
        rows, columns = (mask.any(dim=axis).nonzero().flatten().tolist() for axis in (1, 0))
        found.append((columns[0], rows[0], columns[-1], rows[-1]) if rows else None)
    return found


NODES = [ChoreoLoadStableAnimator, ChoreoStableAnimatorConditioning, ChoreoFaceOptimisation]
