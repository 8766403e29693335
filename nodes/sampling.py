"""Nodes that sample: latent fusion for the stock samplers, and everything in one box."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from .conditioning import clip_inputs, condition_clip

CATEGORY = "Choreo/Sampling"
MAX_SEED = 0xFFFFFFFFFFFFFFFF


def _window_inputs() -> list[io.Input]:
    return [
        io.Int.Input(
            "window",
            default=0,
            min=0,
            max=4096,
            tooltip="Frames predicted at once, the reference frame counted. 0: what the weights were trained for, 72 "
            "for version 1.1 and 16 for 1.0. Smaller windows need less memory.",
        ),
        io.Int.Input("overlap", default=6, min=1, max=4095, tooltip="Frames that neighbouring windows share."),
    ]


class ChoreoLatentFusion(io.ComfyNode):
    """Let any sampler predict long clips window by window."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Widgets and sockets."""
        return io.Schema(
            node_id="ChoreoLatentFusion",
            display_name="Latent Fusion",
            category=CATEGORY,
            description="Lets KSampler and other stock samplers animate clips of any length: windows that all begin "
            "with the first frame are fused in every step. The start noise repeats in every window, as published.",
            inputs=[
                io.Model.Input("model", tooltip="MimicMotion or StableAnimator, from its loader."),
                *_window_inputs(),
            ],
            outputs=[io.Model.Output("MODEL", display_name="MODEL", tooltip="The same MODEL with latent fusion.")],
        )

    @classmethod
    def execute(cls, model: Any, window: int, overlap: int) -> io.NodeOutput:
        """Clone and patch."""
        from ..host.fusion import fuse_latents
        from ..host.models import parts_of

        return io.NodeOutput(fuse_latents(model, window or parts_of(model).window, overlap))


class ChoreoMimicMotionSampler(io.ComfyNode):
    """Animate a picture in one node."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Widgets and sockets."""
        return io.Schema(
            node_id="ChoreoMimicMotionSampler",
            display_name="MimicMotion Sampler",
            category=CATEGORY,
            description="Animates a picture: conditioning, latent fusion and sampling in one box. The same seed gives "
            "the same video as Choreo gives outside of ComfyUI.",
            inputs=[
                *clip_inputs(),
                io.Int.Input(
                    "seed",
                    default=42,
                    min=0,
                    max=MAX_SEED,
                    control_after_generate=True,
                    tooltip="The same seed gives the same video.",
                ),
                io.Int.Input("steps", default=25, min=1, max=1000, tooltip="Sampling steps."),
                io.Float.Input(
                    "guidance_first",
                    default=2.0,
                    min=0.0,
                    max=100.0,
                    step=0.1,
                    tooltip="Guidance (CFG) of the first frame; up to 1 for both halves the work.",
                ),
                io.Float.Input(
                    "guidance_last",
                    default=2.0,
                    min=0.0,
                    max=100.0,
                    step=0.1,
                    tooltip="Guidance (CFG) of the last frame.",
                ),
                io.Combo.Input(
                    "sampler",
                    options=["euler", "animate_lcm"],
                    default="euler",
                    tooltip="animate_lcm is for UNets distilled for it, with 4 to 8 steps and the karras schedule.",
                ),
                io.Combo.Input(
                    "schedule",
                    options=["karras", "ays"],
                    default="karras",
                    tooltip="Noise levels. With ays (Align Your Steps) 10 steps are enough.",
                ),
                *_window_inputs(),
            ],
            outputs=[
                io.Latent.Output(
                    "LATENT",
                    display_name="LATENT",
                    tooltip="The clip; its first frame is the picture, which Decode Video drops.",
                )
            ],
        )

    @classmethod
    def execute(
        cls,
        seed: int,
        steps: int,
        guidance_first: float,
        guidance_last: float,
        sampler: str,
        schedule: str,
        window: int,
        overlap: int,
        reference_pose: Any = None,
        **inputs: Any,
    ) -> io.NodeOutput:
        """Condition and sample."""
        from ..host.models import parts_of
        from ..host.sampling import sample
        from ..pipelines.mimicmotion import Settings

        window = window or parts_of(inputs["model"]).window
        settings = Settings(
            steps=steps,
            sampler=sampler,
            schedule=schedule,
            guidance_first=guidance_first,
            guidance_last=guidance_last,
            window=window,
            overlap=overlap,
            seed=seed,
        )
        conditioned, noise = condition_clip(seed, reference_pose=reference_pose, **inputs)
        return io.NodeOutput(sample(inputs["model"], conditioned, settings, window, noise))


NODES = [ChoreoLatentFusion, ChoreoMimicMotionSampler]
