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
STYLE = "mimicmotion"


class ChoreoFitPicture(io.ComfyNode):
    """Bring a picture to the size of the video."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Widgets and sockets."""
        return io.Schema(
            node_id="ChoreoFitPicture",
            display_name="Fit Picture",
            category=CATEGORY,
            description="Resizes and crops a picture to a size that MimicMotion can animate, as published. Find the "
            "pose of the picture in the result, not in the original.",
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
            ],
            outputs=[
                io.Image.Output("IMAGE", display_name="IMAGE", tooltip="The picture at the size of the video."),
            ],
        )

    @classmethod
    def execute(cls, picture: torch.Tensor, resolution: int, width: int, height: int) -> io.NodeOutput:
        """Cover the size, cut out the centre."""
        from ..conditioning.picture import cover_crop, video_size

        frame = single_picture(picture)
        usual = video_size(*frame.shape[:2], resolution)
        fitted = cover_crop(frame, (height or usual[0], width or usual[1]))
        return io.NodeOutput(torch.from_numpy(fitted)[None].float() / 255)


def single_picture(images: torch.Tensor) -> np.ndarray:
    """The picture of an IMAGE, uint8 (H, W, 3) RGB; ValueError when there are several."""
    check_images(images, "picture")
    if len(images) != 1:
        raise ValueError(f"One picture is needed here, the IMAGE holds {len(images)}; choose one of them.")
    return to_frame(images[0])


def clip_inputs() -> list[io.Input]:
    """Sockets and widgets that say what the clip shows; shared by the conditioning and the all-in-one node."""
    return [
        io.Model.Input("model", tooltip="MimicMotion, from Load MimicMotion; it brings its PoseNet."),
        io.Vae.Input("vae", tooltip="SVD's VAE."),
        io.ClipVision.Input("clip_vision", tooltip="SVD's CLIP image tower."),
        io.Image.Input("picture", tooltip="The person to animate, at the size of the video; see Fit Picture."),
        poses_input(
            "Motion of the video, fitted to the picture: poses, or pictures of them, one a frame.", "poses", io.Image
        ),
        poses_input(
            "Pose of the person in the picture, found in the picture itself. Without it the first pose stands for it.",
            "reference_pose",
            io.Image,
            optional=True,
        ),
        *_strength_inputs(),
        *_svd_inputs(),
    ]


def _strength_inputs() -> list[io.Input]:
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


def _svd_inputs() -> list[io.Input]:
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
            default=0.0,
            min=0.0,
            max=10.0,
            step=0.01,
            tooltip="Noise added to the picture; 0 as published.",
        ),
        io.Combo.Input(
            "clip_method",
            options=list(CLIP_METHODS),
            default="squash",
            tooltip="How the picture becomes the square that CLIP sees. squash: whole, as published. centre crop: as "
            "ComfyUI does elsewhere.",
        ),
    ]


def condition_clip(
    seed: int, model: Any, vae: Any, clip_vision: Any, picture: torch.Tensor, poses: Any, **settings: Any
) -> tuple[Any, Any]:
    """Run :func:`.host.conditioning.condition` on the values of :func:`clip_inputs`: what it gives, and the noise."""
    from ..host.conditioning import Strengths, condition
    from ..samplers.svd import PoseUse, seeded_noise

    frame = single_picture(picture)
    pictures = _pose_pictures(poses, settings.pop("reference_pose"), frame.shape[:2])
    start, end = settings.pop("pose_start"), settings.pop("pose_end")
    if start > end:
        raise ValueError(f"pose_start ({start}) must not be above pose_end ({end}).")
    use = PoseUse(settings.pop("pose_strength"), start, end)
    noise = seeded_noise(seed)
    with on_host():
        conditioned = condition(
            model,
            vae,
            clip_vision,
            picture=frame,
            pose_pictures=pictures,
            noise=noise,
            strengths=Strengths(pose_use=use, **settings),
        )
    return conditioned, noise


def _pose_pictures(poses: Any, reference: Any, size: tuple[int, int]) -> Iterator[np.ndarray]:
    """The pose of the picture, then one picture a frame; uint8 (H, W, 3) RGB."""
    frames, count = _drawn(poses, size)
    first, firsts = _drawn(poses if reference is None else reference, size, only_first=reference is None)
    if firsts != 1:
        raise ValueError(f"reference_pose must be one pose, got {firsts}.")
    return followed(chain(first, frames), "pose features", count + 1)


def _drawn(poses: Any, size: tuple[int, int], only_first: bool = False) -> tuple[Iterator[np.ndarray], int]:
    """Pictures of poses at the size of the video, as they are or drawn for MimicMotion, and their number."""
    from ..pose.align import onto_canvas
    from ..pose.draw import draw_clip

    if isinstance(poses, torch.Tensor):
        images = check_images(poses, "poses")[: 1 if only_first else None]
        return to_frames(images), len(images)
    poses = onto_canvas(as_poses(poses)[: 1 if only_first else None], size)
    return draw_clip(poses, size, STYLE), len(poses)


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
                io.Int.Input(
                    "noise_aug_seed",
                    default=42,
                    min=0,
                    max=0xFFFFFFFFFFFFFFFF,
                    tooltip="Seed of the noise that noise_aug_strength adds.",
                ),
            ],
            outputs=[
                io.Conditioning.Output("positive", display_name="positive", tooltip="Picture and poses."),
                io.Conditioning.Output("negative", display_name="negative", tooltip="Neither picture nor poses."),
                io.Latent.Output(
                    "latent",
                    display_name="latent",
                    tooltip="Empty latents, one a pose and one for the picture in front.",
                ),
            ],
        )

    @classmethod
    def execute(cls, noise_aug_seed: int, reference_pose: Any = None, **inputs: Any) -> io.NodeOutput:
        """Encode picture and poses."""
        conditioned, _ = condition_clip(noise_aug_seed, reference_pose=reference_pose, **inputs)
        return io.NodeOutput(conditioned.positive, conditioned.negative, conditioned.latent)


NODES = [ChoreoFitPicture, ChoreoMimicMotionConditioning]
