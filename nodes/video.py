"""Nodes between latents and video."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import torch
from comfy_api.latest import io

from ..host.progress import on_host
from ..samplers.decode import DECODE_CHUNK
from .frames import start_input, video_file

CATEGORY = "Choreo/Video"


class ChoreoDecodeVideo(io.ComfyNode):
    """Decode latents in chunks of a fixed size."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Widgets and sockets."""
        return io.Schema(
            node_id="ChoreoDecodeVideo",
            display_name="Decode Video",
            category=CATEGORY,
            description="Decodes a clip with SVD's VAE in chunks of a fixed size, so that the result does not depend "
            "on free memory as the stock VAE Decode's does, and drops the reference frame in front.",
            inputs=[
                io.Latent.Input("samples", tooltip="The clip."),
                io.Vae.Input("vae", tooltip="SVD's VAE."),
                io.Int.Input(
                    "chunk",
                    default=DECODE_CHUNK,
                    min=1,
                    max=256,
                    tooltip="Frames decoded together, 8 as published. It changes the result a little: frames are "
                    "smoothed over time within a chunk. Fewer need less memory.",
                ),
                io.Int.Input(
                    "overlap",
                    default=0,
                    min=0,
                    max=255,
                    tooltip="Frames that neighbouring chunks share and fade over; 0 as published. Hides steps between "
                    "chunks and takes longer.",
                ),
                io.Int.Input(
                    "tile",
                    default=0,
                    min=0,
                    max=8192,
                    step=64,
                    tooltip="Side of picture tiles in pixels, for large pictures and little memory; 0 decodes whole "
                    "pictures. Unlike the stock tiled decode it keeps smoothing over time.",
                ),
                io.Int.Input(
                    "tile_overlap",
                    default=64,
                    min=0,
                    max=4096,
                    step=8,
                    tooltip="Pixels that neighbouring tiles share and fade over.",
                ),
            ],
            outputs=[
                io.Image.Output("IMAGE", display_name="IMAGE", tooltip="The frames, without the reference frame.")
            ],
        )

    @classmethod
    def execute(cls, samples: dict[str, Any], vae: Any, **pieces: int) -> io.NodeOutput:
        """Decode, then drop the frames in front."""
        from ..host.codecs import Pieces, decode_chunks
        from ..host.conditioning import REFERENCE_FRAMES

        latents, skip = samples["samples"], samples.get(REFERENCE_FRAMES, 0)
        if latents.ndim != 4 or len(latents) <= skip:
            raise ValueError(
                f"The LATENT holds no clip: expected frames x 4 x height x width with more than {skip} frame(s), got "
                f"{tuple(latents.shape)}."
            )
        with on_host():
            return io.NodeOutput(_joined(decode_chunks(vae, latents, Pieces(**pieces), skip), len(latents) - skip))


class ChoreoVideoSound(io.ComfyNode):
    """Take the sound and the frame rate of a video without reading its pictures."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Widgets and sockets."""
        return io.Schema(
            node_id="ChoreoVideoSound",
            display_name="Video Sound",
            category=CATEGORY,
            description="Gives the sound and the frame rate of a video for Create Video. The stock Get Video "
            "Components would hold all pictures of the video in memory.",
            inputs=[
                io.Video.Input("video", tooltip="The driving video."),
                start_input("Seconds to leave out at the beginning; the same as in Extract Poses."),
            ],
            outputs=[
                io.Audio.Output("AUDIO", display_name="AUDIO", tooltip="The sound; nothing when the video is silent."),
                io.Float.Output("fps", display_name="fps", tooltip="Frames per second of the video."),
            ],
        )

    @classmethod
    def execute(cls, video: Any, start: float) -> io.NodeOutput:
        """Decode the sound alone where the video is a file."""
        with video_file(video) as path:
            if path is None:
                parts = video.get_components()
                return io.NodeOutput(_from(parts.audio, start), float(parts.frame_rate))
            return io.NodeOutput(*_sound_of_file(path, start))


def _sound_of_file(path: Path, start: float) -> tuple[dict[str, Any] | None, float]:
    from ..media.sound import Sound, read_sound
    from ..media.video import probe

    info = probe(path)
    length = Fraction(info.duration - start).limit_denominator(10**6)
    if length <= 0:
        raise ValueError(f"The video lasts {info.duration:.2f} seconds, so it cannot start at {start:.2f}.")
    found = read_sound(Sound(path, start), length)
    audio = None if found is None else {"waveform": torch.from_numpy(found[0])[None], "sample_rate": found[1]}
    return audio, float(info.fps)


def _from(audio: dict[str, Any] | None, start: float) -> dict[str, Any] | None:
    """The sound after `start` seconds."""
    if audio is None or start == 0:
        return audio
    return {**audio, "waveform": audio["waveform"][..., round(start * audio["sample_rate"]) :]}


def _joined(chunks: Any, total: int) -> torch.Tensor:
    """An IMAGE of `total` frames, filled chunk by chunk."""
    images, done = None, 0
    for frames in chunks:
        if images is None:
            images = torch.empty(total, *frames.shape[1:])
        images[done : done + len(frames)] = frames
        done += len(frames)
    return images


NODES = [ChoreoDecodeVideo, ChoreoVideoSound]
