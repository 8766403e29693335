"""The files Choreo knows: what they are for, where users get them, and where they are looked for on this machine."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

MODELS_VARIABLE = "CHOREO_MODELS"


@dataclass(frozen=True)
class KnownFile:
    """A file, or a folder of several, that users may have or get.

    name:       its name on disk; a folder's name when `parts` is not empty.
    system:     what it belongs to.
    folder:     where it lies inside a models folder; "" for the models folder itself.
    repository: of the Hugging Face hub, "" when it is not there.
    path:       file or folder inside the repository.
    parts:      the files of a folder.
    size, sha256: of a single file, None or "" when not known.
    note:       what else there is to know, as whole sentences.
    """

    name: str
    system: str
    folder: str
    repository: str
    path: str
    licence: str
    parts: tuple[str, ...] = ()
    size: int | None = None
    sha256: str = ""
    gated: bool = False
    note: str = ""

    @property
    def address(self) -> str:
        """Where it is, in words a person can follow."""
        if not self.repository:
            return self.note
        path = "" if self.path == self.name else self.path or "the whole repository"
        details = ", ".join(filter(None, (path, "after accepting the licence there" if self.gated else "")))
        return f"https://huggingface.co/{self.repository}" + (f" ({details})" if details else "")


SVD_PARTS = (
    "vae/config.json",
    "vae/diffusion_pytorch_model.fp16.safetensors",
    "image_encoder/config.json",
    "image_encoder/model.fp16.safetensors",
)
STABLEANIMATOR_PARTS = ("Animation/unet.pth", "Animation/pose_net.pth", "Animation/face_encoder.pth")
MIMICMOTION = ("MimicMotion", "mimicmotion")
MAGICPOSE = ("MagicPose", "magicpose")
SD15 = "stable-diffusion-v1-5/stable-diffusion-v1-5"
SVD_XT = "stabilityai/stable-video-diffusion-img2vid-xt"
SD15_LICENCE = "CreativeML OpenRAIL-M"
MAGICPOSE_LICENCE = f"USC research licence; its base under {SD15_LICENCE}"
SVD_LICENCE = "Stability AI Community Licence"
ANTELOPE_LICENCE = "research and other non-commercial use only"
MIMICMOTION_LICENCE = f"Apache-2.0; its base under the {SVD_LICENCE}"

CATALOGUE: Sequence[KnownFile] = (
    KnownFile(
        *("yolox_l.onnx", "DWPose", "dwpose", "yzd-v/DWPose", "yolox_l.onnx", "Apache-2.0"),
        size=216_746_733,
        sha256="7860ae79de6c89a3c1eb72ae9a2756c0ccfbe04b7791bb5880afabd97855a411",
    ),
    KnownFile(
        *("dw-ll_ucoco_384.onnx", "DWPose", "dwpose", "yzd-v/DWPose", "dw-ll_ucoco_384.onnx", "Apache-2.0"),
        size=134_399_116,
        sha256="724f4ff2439ed61afb86fb8a1951ec39c6220682803b4a8bd4f598cd913b1843",
    ),
    KnownFile(
        *("MimicMotion_1-1.pth", *MIMICMOTION, "tencent/MimicMotion", "MimicMotion_1-1.pth", MIMICMOTION_LICENCE),
        size=3_049_867_447,
    ),
    KnownFile("MimicMotion_1.pth", *MIMICMOTION, "tencent/MimicMotion", "MimicMotion_1.pth", MIMICMOTION_LICENCE),
    *(
        KnownFile(
            *(name, *MIMICMOTION, "Kijai/MimicMotion_pruned", name, MIMICMOTION_LICENCE),
            note="Needs mimic_motion_pose_net.safetensors beside it.",
        )
        for name in (
            "MimicMotionMergedUnet_1-1-fp16.safetensors",
            "MimicMotionMergedUnet_1-0-fp16.safetensors",
        )
    ),
    KnownFile(
        *("mimic_motion_pose_net.safetensors", *MIMICMOTION, "", "", MIMICMOTION_LICENCE),
        size=412_730,
        note="It comes with the node pack kijai/ComfyUI-MimicMotionWrapper (its folder `models`).",
    ),
    KnownFile(
        *("stable_animator", "StableAnimator", "", "FrancisRing/StableAnimator", "Animation"),
        f"MIT; its base under the {SVD_LICENCE}",
        parts=STABLEANIMATOR_PARTS,
    ),
    KnownFile(
        *("glintr100_torch.pth", "StableAnimator", "stable_animator", "FrancisRing/StableAnimator"),
        *("Animation/glintr100_torch.pth", ANTELOPE_LICENCE),
        note="ArcFace for the face optimisation; glintr100.onnx of antelopev2 serves in its place.",
    ),
    KnownFile(
        *("antelopev2", "StableAnimator", "insightface/models", "", "", ANTELOPE_LICENCE),
        parts=("scrfd_10g_bnkps.onnx", "glintr100.onnx"),
        note="Unpack antelopev2.zip of https://github.com/deepinsight/insightface/releases/tag/v0.7 there.",
    ),
    KnownFile(
        *("model_state-110000.th", *MAGICPOSE, "", "", MAGICPOSE_LICENCE),
        note="The folder of weights that the README of https://github.com/Boese0601/MagicDance links to; 9.15 GB.",
    ),
    KnownFile(
        *("model_state-10000.th", *MAGICPOSE, "", "", MAGICPOSE_LICENCE),
        note="Stage 1, where training stage 2 begins; beside model_state-110000.th, 7.7 GB.",
    ),
    KnownFile(
        *("control_sd15_ini.ckpt", *MAGICPOSE, "Boese0601/MagicDance", "control_sd15_ini.ckpt", SD15_LICENCE),
        note="Where training stage 1 begins.",
    ),
    KnownFile(
        *("control_v11p_sd15_openpose.pth", "MagicPose", "controlnet", "lllyasviel/ControlNet-v1-1"),
        *("control_v11p_sd15_openpose.pth", SD15_LICENCE),
        note="The pose ControlNet for weights of stage 1.",
    ),
    KnownFile(
        *("v1-5-pruned-emaonly.safetensors", "Stable Diffusion 1.5", "checkpoints", SD15),
        *("v1-5-pruned-emaonly.safetensors", SD15_LICENCE),
        note="Only for weights of MagicPose that lack VAE and text encoder.",
    ),
    KnownFile(
        *("clip-vit-large-patch14", "CLIP", "clip", "openai/clip-vit-large-patch14", "", "MIT"),
        parts=("vocab.json", "merges.txt", "tokenizer_config.json", "special_tokens_map.json"),
        note="The vocabulary, for texts with MagicPose.",
    ),
    KnownFile(
        *("stable-video-diffusion-img2vid-xt-1-1", "SVD-XT 1.1", "diffusers", f"{SVD_XT}-1-1", "", SVD_LICENCE),
        parts=SVD_PARTS,
        gated=True,
    ),
    KnownFile(
        *("svd_xt_1_1.safetensors", "SVD-XT 1.1", "checkpoints", f"{SVD_XT}-1-1"),
        *("svd_xt_1_1.safetensors", SVD_LICENCE),
        gated=True,
    ),
    KnownFile(
        *("stable-video-diffusion-img2vid-xt", "SVD-XT", "diffusers", SVD_XT, "", SVD_LICENCE),
        parts=SVD_PARTS,
    ),
    KnownFile("svd_xt.safetensors", "SVD-XT", "checkpoints", SVD_XT, "svd_xt.safetensors", SVD_LICENCE),
)


def known(name: str) -> KnownFile | None:
    """The entry of a file name, case aside; None when Choreo does not know it."""
    return next((entry for entry in CATALOGUE if entry.name.lower() == name.lower()), None)


def where_to_get(*names: str) -> str:
    """One sentence for error messages: where to get files; "" when none of them is known."""
    entries = list(filter(None, map(known, names)))
    addresses = ", ".join(dict.fromkeys(entry.address for entry in entries))
    return f"Get {'it' if len(entries) == 1 else 'them'} here: {addresses}" if entries else ""


def model_folders(first: Iterable[str | Path] = ()) -> list[Path]:
    """Where files are looked for, in order: given folders, those of CHOREO_MODELS, ./models, ~/.cache/choreo/models.

    CHOREO_MODELS holds one or more folders, separated as in PATH. Folders that do not exist are listed too.
    """
    from_environment = [part for part in os.environ.get(MODELS_VARIABLE, "").split(os.pathsep) if part]
    usual = (Path("models"), Path.home() / ".cache" / "choreo" / "models")
    folders = [Path(folder).expanduser() for folder in (*first, *from_environment, *usual)]
    return list(dict.fromkeys(folders))


def find_file(name: str | Path, folders: Iterable[str | Path] = ()) -> Path | None:
    """A file or folder by its name, or None: the path itself, else in one of :func:`model_folders` or below it.

    Two levels of folders are searched, so a ComfyUI `models` folder (checkpoints/, mimicmotion/, diffusers/,
    animation/svd/ ...) and the folders of :func:`download` serve alike. The name may carry folders of its own.
    """
    if Path(name).exists():
        return Path(name)
    if Path(name).is_absolute():
        return None
    pattern = glob.escape(str(name))
    for folder in model_folders(folders):
        for depth in ("", "*/", "*/*/"):
            found = sorted(folder.glob(depth + pattern)) if folder.is_dir() else []
            if found:
                return found[0]
    return None


def require_file(name: str | Path, folders: Iterable[str | Path] = ()) -> Path:
    """:func:`find_file`, or a FileNotFoundError that says where it was looked for and where to get it."""
    found = find_file(name, folders)
    if found is None:
        places = ", ".join(str(folder) for folder in ["the current folder", *model_folders(folders)])
        looked = "" if Path(name).is_absolute() else f"; looked in {places} and two levels below"
        raise FileNotFoundError(f"{name} was not found{looked}. {where_to_get(Path(name).name)}".strip())
    return found


def table(folders: Iterable[str | Path] = ()) -> list[dict[str, str]]:
    """The catalogue as rows of text for people: system, file, folder, where, licence, found."""
    folders = list(folders)
    return [
        {
            "system": entry.system,
            "file": entry.name,
            "folder": entry.folder,
            "where": entry.address,
            "licence": entry.licence,
            "found": str(find_file(entry.name, folders) or ""),
        }
        for entry in CATALOGUE
    ]
