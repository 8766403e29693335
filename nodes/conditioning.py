"""Nodes that turn a picture and poses into what MimicMotion is conditioned on."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import Any

import numpy as np
import torch
from comfy_api.latest import io

from ..conditioning.clip_image import CLIP_METHODS
from ..host.progress import followed, on_host
from .sockets import as_poses, check_images, poses_input, to_frame, to_frames

CATEGORY = "Choreo/Conditioning"
FILTERS = ("bilinear", "lanczos")


class ChoreoFitPicture(io.ComfyNode):
    """Bring a picture to the size of the video."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Widgets and sockets."""
        return io.Schema(
            node_id="ChoreoFitPicture",
            display_name="Fit Picture",
            category=CATEGORY,
            description="Resizes and crops a picture to a size that can be animated, as published. Find the pose of "
            "the picture in the result, not in the original.",
            inputs=[
                io.Image.Input("picture", tooltip="The person to animate."),
                io.Int.Input(
                    "resolution",
                    default=576,
                    min=64,
                    max=4096,
                    step=64,
                    tooltip="Length of the short side; the long one is 16/9 of it, in whole steps of 64 pixels.",
                ),
                io.Int.Input(
                    "width",
                    default=0,
                    min=0,
                    max=8192,
                    tooltip="Pixels, in place of resolution; 0: as resolution says.",
                ),
                io.Int.Input(
                    "height",
                    default=0,
                    min=0,
                    max=8192,
                    tooltip="Pixels, in place of resolution; 0: as resolution says.",
                ),
                io.Combo.Input(
                    "filter",
                    options=list(FILTERS),
                    default=FILTERS[0],
                    optional=True,
                    tooltip="bilinear: as published for MimicMotion. lanczos: as published for StableAnimator.",
                ),
            ],
            outputs=[
                io.Image.Output("IMAGE", display_name="IMAGE", tooltip="The picture at the size of the video."),
            ],
        )

    @classmethod
    def execute(
        cls, picture: torch.Tensor, resolution: int, width: int, height: int, filter: str = FILTERS[0]
    ) -> io.NodeOutput:
        """Cover the size, cut out the centre."""
        from ..conditioning.picture import cover_crop, lanczos_fit, video_size

        frame = single_picture(picture)
        usual = video_size(*frame.shape[:2], resolution)
        fit = lanczos_fit if filter == "lanczos" else cover_crop
        fitted = fit(frame, (height or usual[0], width or usual[1]))
        return io.NodeOutput(torch.from_numpy(np.array(fitted))[None].float() / 255)


def single_picture(images: torch.Tensor) -> np.ndarray:
    """The picture of an IMAGE, uint8 (H, W, 3) RGB; ValueError when there are several."""
    images = check_images(images, "picture")
    if len(images) != 1:
        raise ValueError(f"One picture is needed here, the IMAGE holds {len(images)}; choose one of them.")
    return to_frame(images[0])


def clip_inputs() -> list[io.Input]:
    """Sockets and widgets that say what the clip shows; shared by the conditioning and the all-in-one node."""
    return [
        io.Model.Input("model", tooltip="MimicMotion, from Load MimicMotion; it brings its PoseNet."),
        *socket_inputs(),
        poses_input(
            "Pose of the person in the picture, found in the picture itself. Without it the first pose stands for it.",
            "reference_pose",
            io.Image,
            optional=True,
        ),
        *strength_inputs(),
        *svd_inputs(),
    ]


def socket_inputs() -> list[io.Input]:
    """Sockets that all systems on SVD have behind their MODEL."""
    return [
        io.Vae.Input("vae", tooltip="SVD's VAE."),
        io.ClipVision.Input("clip_vision", tooltip="SVD's CLIP image tower."),
        io.Image.Input("picture", tooltip="The person to animate, at the size of the video; see Fit Picture."),
        poses_input(
            "Motion of the video, fitted to the picture: poses, or pictures of them, one a frame.", "poses", io.Image
        ),
    ]


def strength_inputs() -> list[io.Input]:
    """Widgets for how strongly poses and picture act."""
    return [
        io.Float.Input(
            "pose_strength",
            default=1.0,
            min=0.0,
            max=10.0,
            step=0.05,
            tooltip="How strongly the poses act; 1 is usual.",
        ),
        io.Float.Input(
            "pose_start", default=0.0, min=0.0, max=1.0, step=0.01, tooltip="Share of the steps after which poses act."
        ),
        io.Float.Input(
            "pose_end", default=1.0, min=0.0, max=1.0, step=0.01, tooltip="Share of the steps up to which poses act."
        ),
        io.Float.Input(
            "image_embed_strength",
            default=1.0,
            min=0.0,
            max=10.0,
            step=0.05,
            tooltip="Strength of the picture's CLIP embedding.",
        ),
    ]


def svd_inputs(noise_aug_strength: float = 0.0) -> list[io.Input]:
    """Widgets for what SVD itself is conditioned on."""
    return [
        io.Int.Input(
            "fps_id",
            default=7,
            min=1,
            max=1024,
            tooltip="SVD's conditioning on speed, 7 as published; not the frame rate of the video.",
        ),
        io.Int.Input(
            "motion_bucket_id", default=127, min=0, max=1023, tooltip="SVD's conditioning on the amount of motion."
        ),
        io.Float.Input(
            "noise_aug_strength",
            default=noise_aug_strength,
            min=0.0,
            max=10.0,
            step=0.01,
            tooltip=f"Noise added to the picture; {noise_aug_strength:g} as published.",
        ),
        io.Combo.Input(
            "clip_method",
            options=list(CLIP_METHODS),
            default="squash",
            tooltip="How the picture becomes the square that CLIP sees. squash: whole, as published. centre crop: as "
            "ComfyUI does elsewhere.",
        ),
    ]


def noise_seed_input() -> io.Int.Input:
    """The widget for the seed of the noise on the picture, for nodes that do not sample."""
    return io.Int.Input(
        "noise_aug_seed",
        default=42,
        min=0,
        max=0xFFFFFFFFFFFFFFFF,
        tooltip="Seed of the noise that noise_aug_strength adds.",
    )


def condition_clip(seed: int, picture: torch.Tensor, poses: Any, **inputs: Any) -> tuple[Any, Any]:
    """Condition MimicMotion on the values of :func:`clip_inputs`: what samplers take, and the noise of the seed."""
    frame = single_picture(picture)
    pictures = _with_reference(poses, inputs.pop("reference_pose"), frame.shape[:2])
    return conditioned(seed, frame, pictures, **inputs)


def conditioned(seed: int, frame: np.ndarray, pictures: Iterator[np.ndarray], **inputs: Any) -> tuple[Any, Any]:
    """Run :func:`.host.conditioning.condition` on the values of widgets: what it gives, and the noise of the seed.

    frame, pictures: the picture and the pose pictures. inputs: model, vae, clip_vision, `face` for
    StableAnimator (:class:`.host.conditioning.Face`), and the values of :func:`strength_inputs` and :func:`svd_inputs`.
    """
    from ..host.conditioning import Strengths, condition
    from ..samplers.svd import PoseUse, seeded_noise

    networks = [inputs.pop(name) for name in ("model", "vae", "clip_vision")]
    start, end = inputs.pop("pose_start"), inputs.pop("pose_end")
    if start > end:
        raise ValueError(f"pose_start ({start}) must not be above pose_end ({end}).")
    use = PoseUse(inputs.pop("pose_strength"), start, end)
    face, noise = inputs.pop("face", None), seeded_noise(seed)
    with on_host():
        found = condition(
            *networks,
            picture=frame,
            pose_pictures=pictures,
            noise=noise,
            strengths=Strengths(pose_use=use, **inputs),
            face=face,
        )
    return found, noise


def _with_reference(poses: Any, reference: Any, size: tuple[int, int]) -> Iterator[np.ndarray]:
    """The pose of the picture, then one picture a frame, for MimicMotion; uint8 (H, W, 3) RGB."""
    frames, count = drawn(poses, size, "mimicmotion")
    first, firsts = drawn(poses if reference is None else reference, size, "mimicmotion", only_first=reference is None)
    if firsts != 1:
        raise ValueError(f"reference_pose must be one pose, got {firsts}.")
    return followed(chain(first, frames), "pose features", count + 1)


def drawn(poses: Any, size: tuple[int, int], style: str, only_first: bool = False) -> tuple[Iterator[np.ndarray], int]:
    """Pictures of poses at the size of the video, as they are or drawn in a network's style, and their number."""
    from ..pose.align import onto_canvas
    from ..pose.draw import draw_clip

    if isinstance(poses, torch.Tensor):
        images = check_images(poses, "poses")[: 1 if only_first else None]
        return to_frames(images), len(images)
    poses = onto_canvas(as_poses(poses)[: 1 if only_first else None], size)
    return draw_clip(poses, size, style), len(poses)


def conditioning_outputs(latent: str) -> list[io.Output]:
    """What conditioning nodes give; latent: its tooltip."""
    return [
        io.Conditioning.Output("positive", display_name="positive", tooltip="Picture and poses."),
        io.Conditioning.Output("negative", display_name="negative", tooltip="Neither picture nor poses."),
        io.Latent.Output("latent", display_name="latent", tooltip=latent),
    ]


class ChoreoMimicMotionConditioning(io.ComfyNode):
    """Condition MimicMotion on a picture and poses."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Widgets and sockets."""
        return io.Schema(
            node_id="ChoreoMimicMotionConditioning",
            display_name="MimicMotion Conditioning",
            category=CATEGORY,
            description="Prepares picture and poses for sampling, with the preprocessing that MimicMotion was "
            "published with. The first frame of the LATENT is the picture itself; Decode Video drops it.",
            inputs=[
                *clip_inputs(),
                noise_seed_input(),
            ],
            outputs=conditioning_outputs("Empty latents, one a pose and one for the picture in front."),
        )

    @classmethod
    def execute(cls, noise_aug_seed: int, reference_pose: Any = None, **inputs: Any) -> io.NodeOutput:
        """Encode picture and poses."""
        found, _ = condition_clip(noise_aug_seed, reference_pose=reference_pose, **inputs)
        return io.NodeOutput(found.positive, found.negative, found.latent)


NODES = [ChoreoFitPicture, ChoreoMimicMotionConditioning]
