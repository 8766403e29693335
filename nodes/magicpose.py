"""MagicPose's nodes: the appearance of a picture and the pose of a video for the stock samplers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import folder_paths
import torch
from comfy_api.latest import io
from comfy_execution.graph_utils import ExecutionBlocker

from ..host import folders
from ..host.appearance import GUIDANCES
from ..host.models import DTYPES
from ..host.progress import followed, on_host
from .conditioning import drawn, single_picture
from .sockets import poses_input

NO_WEIGHTS = "put model_state-110000.th into models/magicpose"
STYLE = "classic"
NO_CONTROL_NET = (
    "This file holds no pose ControlNet, as it is of MagicPose's first stage: load control_v11p_sd15_openpose.pth with "
    "the stock Load ControlNet Model."
)


class ChoreoLoadMagicPose(io.ComfyNode):
    """Load MagicPose."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Widgets and sockets."""
        names = folder_paths.get_filename_list(folders.MAGICPOSE) or [NO_WEIGHTS]
        return io.Schema(
            node_id="ChoreoLoadMagicPose",
            display_name="Load MagicPose",
            category="Choreo/Loaders",
            description="Loads MagicPose: Stable Diffusion 1.5, its appearance network and its pose ControlNet. MODEL, "
            "CLIP and VAE are those of Stable Diffusion 1.5; those of Load Checkpoint serve as well.",
            inputs=[
                io.Combo.Input(
                    "weights",
                    options=names,
                    default=folders.preferred(names, "model_state-110000.th"),
                    tooltip="A checkpoint in models/magicpose: model_state-110000.th holds all of it.",
                ),
                io.Combo.Input(
                    "weight_dtype",
                    options=list(DTYPES),
                    default="default",
                    tooltip="How the weights of both UNets are kept. default: what ComfyUI finds best for your device.",
                ),
            ],
            outputs=[
                io.Model.Output("MODEL", display_name="MODEL", tooltip="The UNet of Stable Diffusion 1.5."),
                io.Model.Output(
                    "appearance", display_name="appearance", tooltip="The appearance network; it does not sample."
                ),
                io.ControlNet.Output("CONTROL_NET", display_name="CONTROL_NET", tooltip="The pose ControlNet."),
                io.Clip.Output("CLIP", display_name="CLIP", tooltip="The text encoder of Stable Diffusion 1.5."),
                io.Vae.Output("VAE", display_name="VAE", tooltip="The VAE of Stable Diffusion 1.5."),
            ],
        )

    @classmethod
    def validate_inputs(cls, weights: str | None) -> bool | str:
        """Say where the file can be had that has vanished."""
        return folders.missing(folders.MAGICPOSE, weights) or True

    @classmethod
    def fingerprint_inputs(cls, weights: str, weight_dtype: str) -> str:
        """Load again when the file has changed."""
        return f"{folders.fingerprint(folders.MAGICPOSE, weights)} {weight_dtype}"

    @classmethod
    def execute(cls, weights: str, weight_dtype: str) -> io.NodeOutput:
        """Load."""
        from ..host.magicpose import load_magicpose

        found = load_magicpose(folders.find(folders.MAGICPOSE, weights, Path()), weight_dtype)
        control_net = ExecutionBlocker(NO_CONTROL_NET) if found.control_net is None else found.control_net
        return io.NodeOutput(found.model, found.appearance, control_net, found.clip, found.vae)


def _network_inputs() -> list[io.Input]:
    return [
        io.Model.Input("model", tooltip="Stable Diffusion 1.5, from Load MagicPose or any other loader."),
        io.Model.Input("appearance", tooltip="The appearance network, from Load MagicPose."),
        io.Vae.Input("vae", tooltip="The VAE of Stable Diffusion 1.5."),
    ]


def _picture_input() -> io.Image.Input:
    return io.Image.Input("picture", tooltip="The person, at the size of the video (512x512 is best); see Fit Picture.")


def _guidance_input() -> io.Combo.Input:
    return io.Combo.Input(
        "guidance",
        options=list(GUIDANCES),
        default=GUIDANCES[0],
        tooltip="What the sampler's cfg strengthens. picture: appearance and pose, as published; negative is not used. "
        "text: the difference between positive and negative text. picture and text: the appearance and that.",
    )


def _frames_input() -> io.Int.Input:
    return io.Int.Input(
        "frames_at_once",
        default=0,
        min=0,
        max=4096,
        tooltip="Frames that go through the networks together; 0: as many as fit in memory. The result is the same.",
    )


class ChoreoApplyAppearance(io.ComfyNode):
    """Give a MODEL the appearance of a picture."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Widgets and sockets."""
        return io.Schema(
            node_id="ChoreoApplyAppearance",
            display_name="Apply Appearance",
            category="Choreo/Conditioning",
            description="Makes any Stable Diffusion 1.5 draw the person of a picture. Poses come from the stock Apply "
            "ControlNet; LoRA, IP-Adapter and motion modules go in front of it or behind it.",
            inputs=[
                *_network_inputs(),
                _picture_input(),
                _guidance_input(),
                _percent("start_percent", 0.0, "after"),
                _percent("end_percent", 1.0, "up to"),
                io.Boolean.Input(
                    "same_noise",
                    default=True,
                    tooltip="All frames begin with the same noise, as published: what holds them together.",
                ),
                _frames_input(),
            ],
            outputs=[
                io.Model.Output("MODEL", display_name="MODEL", tooltip="The same MODEL with the person's appearance.")
            ],
        )

    @classmethod
    def execute(
        cls,
        model: Any,
        appearance: Any,
        vae: Any,
        picture: torch.Tensor,
        guidance: str,
        start_percent: float,
        end_percent: float,
        same_noise: bool,
        frames_at_once: int,
    ) -> io.NodeOutput:
        """Encode the picture, clone and patch."""
        from ..host.appearance import Appearance, apply_appearance, check_networks
        from ..host.magicpose import encode_reference

        with on_host():
            check_networks(model, appearance)
            latents = encode_reference(model, vae, single_picture(picture))
            chosen = Appearance(appearance, latents, guidance, start_percent, end_percent, same_noise)
            return io.NodeOutput(apply_appearance(model, chosen, frames_at_once))


def _percent(name: str, default: float, when: str) -> io.Float.Input:
    tooltip = f"Share of the sampling {when} which the appearance acts."
    return io.Float.Input(name, default=default, min=0.0, max=1.0, step=0.001, tooltip=tooltip)


class ChoreoMagicPoseConditioning(io.ComfyNode):
    """Condition Stable Diffusion 1.5 on a person and poses."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Widgets and sockets."""
        return io.Schema(
            node_id="ChoreoMagicPoseConditioning",
            display_name="MagicPose Conditioning",
            category="Choreo/Conditioning",
            description="Prepares picture and poses for the stock samplers, as MagicPose was published. Sampler ddim, "
            "scheduler ddim_uniform, 50 steps, cfg 7. The LATENT has one frame a pose.",
            inputs=[
                *_network_inputs(),
                io.ControlNet.Input(
                    "control_net", tooltip="MagicPose's, from Load MagicPose, or another for OpenPose pictures."
                ),
                io.Conditioning.Input("positive", tooltip="The text; an empty one as published."),
                _picture_input(),
                poses_input("Motion of the video: poses, or pictures of them, one a frame.", "poses", io.Image),
                io.Conditioning.Input(
                    "negative",
                    optional=True,
                    tooltip="The negative text; guidance by picture does not use it. Without it: the positive one.",
                ),
                io.Float.Input(
                    "pose_strength",
                    default=1.0,
                    min=0.0,
                    max=10.0,
                    step=0.05,
                    tooltip="How strongly the poses act; 1 is usual.",
                ),
                _guidance_input(),
                _frames_input(),
            ],
            outputs=[
                io.Model.Output("MODEL", display_name="MODEL", tooltip="The MODEL with the person's appearance."),
                io.Conditioning.Output("positive_out", display_name="positive", tooltip="Text and poses."),
                io.Conditioning.Output("negative_out", display_name="negative", tooltip="Negative text and poses."),
                io.Latent.Output("latent", display_name="latent", tooltip="Empty latents, one a pose."),
            ],
        )

    @classmethod
    def execute(
        cls,
        model: Any,
        appearance: Any,
        vae: Any,
        control_net: Any,
        positive: list,
        picture: torch.Tensor,
        poses: Any,
        pose_strength: float,
        guidance: str,
        frames_at_once: int,
        negative: list | None = None,
    ) -> io.NodeOutput:
        """Encode the picture, draw the poses, patch."""
        from ..host.appearance import Appearance, check_networks
        from ..host.magicpose import condition, encode_reference

        with on_host():
            check_networks(model, appearance)
            frame = single_picture(picture)
            chosen = Appearance(appearance, encode_reference(model, vae, frame), guidance)
            pictures, count = drawn(poses, frame.shape[:2], STYLE)
            found = condition(
                model,
                chosen,
                control_net,
                (positive, positive if negative is None else negative),
                followed(pictures, "pose pictures", count),
                pose_strength=pose_strength,
                frames_at_once=frames_at_once,
            )
        return io.NodeOutput(found.model, found.positive, found.negative, found.latent)


NODES = [ChoreoLoadMagicPose, ChoreoApplyAppearance, ChoreoMagicPoseConditioning]
