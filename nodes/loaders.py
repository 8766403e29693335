"""Nodes that load networks; the tiny model is in every list, so that a fresh install can run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import folder_paths
from comfy_api.latest import io

from ..host.folders import STABLEANIMATOR, TINY, find, fingerprint, list_files, missing, not_found, preferred
from ..host.models import DTYPES

CATEGORY = "Choreo/Loaders"
MIMICMOTION = "mimicmotion"
AUTOMATIC = "automatic"
LORAS = "loras"
NO_LORA = "put a LoRA into models/loras"


class ChoreoLoadMimicMotion(io.ComfyNode):
    """Load MimicMotion as a MODEL."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Widgets and sockets."""
        names = list_files(MIMICMOTION)
        return io.Schema(
            node_id="ChoreoLoadMimicMotion",
            display_name="Load MimicMotion",
            category=CATEGORY,
            description="Loads MimicMotion as a MODEL for Choreo's and the stock samplers. Files lie in "
            "models/mimicmotion: MimicMotion_1-1.pth, or a MimicMotionMergedUnet with its PoseNet.",
            inputs=[
                io.Combo.Input(
                    "weights",
                    options=names,
                    default=preferred(names, "MimicMotion_1-1.pth"),
                    tooltip="A full checkpoint, or a UNet alone. The built-in tiny model only shows that all works.",
                ),
                io.Combo.Input(
                    "pose_net",
                    options=[AUTOMATIC, *names[:-1]],
                    default=AUTOMATIC,
                    tooltip="PoseNet of a UNet alone; automatic takes the checkpoint's own, or "
                    "mimic_motion_pose_net.safetensors from the same folder or models/mimicmotion.",
                ),
                io.Combo.Input(
                    "weight_dtype",
                    options=list(DTYPES),
                    default="default",
                    tooltip="How the UNet's weights are kept. default: what ComfyUI finds best for your device. fp8 "
                    "halves the memory of fp16 and costs some quality.",
                ),
            ],
            outputs=[io.Model.Output("MODEL", display_name="MODEL", tooltip="MimicMotion's UNet, with its PoseNet.")],
        )

    @classmethod
    def validate_inputs(cls, weights: str | None) -> bool | str:
        """Say what to do when the file has vanished; the host says it once for each input that is named here."""
        return missing(MIMICMOTION, weights) or True

    @classmethod
    def fingerprint_inputs(cls, weights: str, pose_net: str, weight_dtype: str) -> str:
        """Load again when a file has changed."""
        names = [weights] if pose_net == AUTOMATIC else [weights, pose_net]
        return f"{fingerprint(MIMICMOTION, *names)} {pose_net} {weight_dtype}"

    @classmethod
    def execute(cls, weights: str, pose_net: str, weight_dtype: str) -> io.NodeOutput:
        """Load."""
        from ..host.models import load_model, model_of
        from ..model_loaders.tiny import read_tiny

        if weights == TINY:
            return io.NodeOutput(model_of(read_tiny()[0], weight_dtype))
        path = find(MIMICMOTION, weights, Path())
        chosen = cls._registered_pose_net(path) if pose_net == AUTOMATIC else find(MIMICMOTION, pose_net, Path())
        return io.NodeOutput(load_model(path, chosen, weight_dtype))

    @classmethod
    def _registered_pose_net(cls, path: Path) -> Path | None:
        """A PoseNet in the model folders, for a UNet that has none inside or beside itself."""
        from ..model_loaders.mimicmotion import POSE_NET_NAMES
        from ..model_loaders.recognise import recognise
        from ..model_loaders.weights import read_weights

        if recognise(read_weights(path)).kind == "mimicmotion" or any(
            (path.parent / n).is_file() for n in POSE_NET_NAMES
        ):
            return None
        names = (name for name in list_files(MIMICMOTION) if Path(name).name in POSE_NET_NAMES)
        return next((find(MIMICMOTION, name, Path()) for name in names), None)


class ChoreoLoadSVDParts(io.ComfyNode):
    """Load SVD's VAE and CLIP image tower."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Widgets and sockets."""
        names = _svd_folders()
        return io.Schema(
            node_id="ChoreoLoadSVDParts",
            display_name="Load SVD Parts",
            category=CATEGORY,
            description="Loads VAE and CLIP_VISION of Stable Video Diffusion from a folder in diffusers' layout below "
            "models/diffusers. For svd_xt*.safetensors use the stock Image Only Checkpoint Loader.",
            inputs=[
                io.Combo.Input(
                    "folder",
                    options=[*names, TINY],
                    default=[*names, TINY][0],
                    tooltip="A folder with vae/ and image_encoder/, such as stable-video-diffusion-img2vid-xt-1-1. The "
                    "built-in tiny parts belong to the tiny MimicMotion.",
                ),
            ],
            outputs=[
                io.Vae.Output("VAE", display_name="VAE", tooltip="SVD's VAE with its temporal decoder."),
                io.ClipVision.Output("CLIP_VISION", display_name="CLIP_VISION", tooltip="SVD's CLIP image tower."),
            ],
        )

    @classmethod
    def validate_inputs(cls, folder: str) -> bool | str:
        """Say what to do when the folder has vanished."""
        if folder == TINY or folder in _svd_folders():
            return True
        return not_found([folder], folder_paths.get_folder_paths("diffusers"), " with vae/ and image_encoder/")

    @classmethod
    def execute(cls, folder: str) -> io.NodeOutput:
        """Load."""
        from ..host.svd_parts import host_parts
        from ..model_loaders.svd import read_svd_parts
        from ..model_loaders.tiny import read_tiny

        parts = read_tiny()[1] if folder == TINY else read_svd_parts(_svd_folders()[folder])
        return io.NodeOutput(*host_parts(parts))


def _svd_folders() -> dict[str, Path]:
    """Folders below models/diffusers, and below StableAnimator's, that hold SVD's parts, by name."""
    from ..model_loaders.svd import CLIP_FOLDER, VAE_FOLDER

    roots = [Path(root) for key in ("diffusers", STABLEANIMATOR) for root in folder_paths.get_folder_paths(key)]
    folders: dict[str, Path] = {}
    for folder in (folder for root in roots if root.is_dir() for folder in sorted(root.iterdir())):
        if (folder / VAE_FOLDER).is_dir() and (folder / CLIP_FOLDER).is_dir():
            folders.setdefault(folder.name, folder)
    return folders


class ChoreoLoadLora(io.ComfyNode):
    """Apply a LoRA to MimicMotion."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Widgets and sockets."""
        names = folder_paths.get_filename_list(LORAS)
        return io.Schema(
            node_id="ChoreoLoadLora",
            display_name="Load Video LoRA",
            category=CATEGORY,
            description="Applies a LoRA to MimicMotion or Stable Video Diffusion, whichever way its layers are named. "
            "The stock loader leaves out temporal layers under diffusers' and Kohya's names.",
            inputs=[
                io.Model.Input("model", tooltip="MimicMotion, from Load MimicMotion."),
                io.Combo.Input("lora", options=names or [NO_LORA], tooltip="A file in models/loras."),
                io.Float.Input(
                    "strength", default=1.0, min=-100.0, max=100.0, step=0.05, tooltip="How strongly it acts."
                ),
            ],
            outputs=[io.Model.Output("MODEL", display_name="MODEL", tooltip="The same MODEL with the LoRA.")],
        )

    @classmethod
    def validate_inputs(cls, lora: str) -> bool | str:
        """Say what to do when the file has vanished."""
        return missing(LORAS, lora) or True

    @classmethod
    def fingerprint_inputs(cls, lora: str, strength: float, **_links: Any) -> str:
        """Load again when the file has changed."""
        return f"{fingerprint(LORAS, lora)} {strength}"

    @classmethod
    def execute(cls, model: Any, lora: str, strength: float) -> io.NodeOutput:
        """Clone and patch."""
        from ..host.lora import apply_lora
        from ..model_loaders.weights import read_weights

        return io.NodeOutput(apply_lora(model, read_weights(find(LORAS, lora, Path())), strength, lora))


NODES = [ChoreoLoadMimicMotion, ChoreoLoadSVDParts, ChoreoLoadLora]
