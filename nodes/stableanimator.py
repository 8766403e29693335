"""StableAnimator's nodes: the picture's person keeps their face."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import folder_paths
from comfy_api.latest import io

from ..host import folders
from ..host.models import DTYPES
from ..host.progress import followed
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
from .loaders import AUTOMATIC
from .sockets import ChoreoFace

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
                io.Image.Input(
                    "whole_picture",
                    optional=True,
                    tooltip="The picture before Fit Picture cut it: CLIP sees all of it, as published. Without it CLIP "
                    "sees the picture that is animated.",
                ),
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
    def execute(
        cls, noise_aug_seed: int, picture: Any, poses: Any, face: Any, whole_picture: Any = None, **inputs: Any
    ) -> io.NodeOutput:
        """Encode picture, face and poses."""
        from ..host.conditioning import Face

        frame = single_picture(picture)
        known = Face(face.embedding, None if whole_picture is None else single_picture(whole_picture))
        frames, count = drawn(poses, frame.shape[:2], STYLE)
        pictures = followed(frames, "pose features", count)
        found, _ = conditioned(noise_aug_seed, frame, pictures, face=known, **inputs)
        return io.NodeOutput(found.positive, found.negative, found.latent)


NODES = [ChoreoLoadStableAnimator, ChoreoStableAnimatorConditioning]
