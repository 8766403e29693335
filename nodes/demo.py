"""The demo's picture and video, so that a fresh install has something to run on."""

from __future__ import annotations

import torch
from comfy_api.latest import InputImpl, io

CATEGORY = "Choreo/Loaders"


class ChoreoDemoInputs(io.ComfyNode):
    """The picture and the video that come with the pack."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Sockets."""
        return io.Schema(
            node_id="ChoreoDemoInputs",
            display_name="Demo Inputs",
            category=CATEGORY,
            description="The picture and the video that come with the pack: drawn puppets that the built-in tiny "
            "networks understand. With your own files use Load Image and Load Video.",
            inputs=[],
            outputs=[
                io.Image.Output("picture", display_name="picture", tooltip="A puppet to animate."),
                io.Video.Output("video", display_name="video", tooltip="Another puppet, dancing."),
            ],
        )

    @classmethod
    def execute(cls) -> io.NodeOutput:
        """Read the picture; the video is read by whoever needs its frames."""
        from ..media.pictures import load_picture
        from ..pipelines.demo import DEMO_FOLDER

        picture = torch.from_numpy(load_picture(DEMO_FOLDER / "reference.png"))[None].float() / 255
        return io.NodeOutput(picture, InputImpl.VideoFromFile(str(DEMO_FOLDER / "driving.mp4")))


NODES = [ChoreoDemoInputs]
