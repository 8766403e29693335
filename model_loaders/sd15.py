"""Parts of Stable Diffusion 1.5 (UNet, VAE, text encoder) from a single file or a diffusers folder, and ControlNets."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

from ..networks.appearance import build_appearance
from ..networks.picture_vae import SD15_VAE, build_picture_vae
from ..networks.sd15_unet import SD15_UNET, build_controlnet, build_sd15_unet
from ..networks.text_encoder import CLIP_VIT_L_14_TEXT, build_text_encoder
from .assemble import fill, skeleton, without_prefix
from .catalogue import where_to_get
from .ldm_keys import Weights, as_linear, controlnet_to_diffusers, rename, unet_to_diffusers, vae_to_diffusers
from .recognise import Content, not_what_was_expected, recognise
from .svd import clip_names_of
from .weights import read_config, read_weights

if TYPE_CHECKING:
    from diffusers import AutoencoderKL
    from transformers import CLIPTextModel

log = logging.getLogger(__name__)

UNET_PREFIX, VAE_PREFIX = "model.diffusion_model.", "first_stage_model."
TEXT_PREFIX, CONTROL_PREFIX = "cond_stage_model.transformer.", "control_model."
CONFIGS: Mapping[str, Mapping[str, Any]] = {"unet": SD15_UNET, "vae": SD15_VAE, "text_encoder": CLIP_VIT_L_14_TEXT}
BUILDERS: Mapping[str, Callable[[Mapping[str, Any]], nn.Module]] = {
    "unet": build_sd15_unet,
    "appearance": build_appearance,
    "controlnet": build_controlnet,
    "vae": build_picture_vae,
    "text_encoder": build_text_encoder,
}
TITLES = {
    "unet": "the UNet of Stable Diffusion 1.5",
    "appearance": "MagicPose's appearance network",
    "controlnet": "a ControlNet of Stable Diffusion 1.5",
    "vae": "the VAE of Stable Diffusion 1.5",
    "text_encoder": "the text encoder of Stable Diffusion 1.5",
}
DIFFUSION_NAMES = tuple(f"diffusion_pytorch_model{end}" for end in (".safetensors", ".fp16.safetensors", ".bin"))
FOLDER_NAMES = {
    "unet": DIFFUSION_NAMES,
    "vae": DIFFUSION_NAMES,
    "text_encoder": ("model.safetensors", "model.fp16.safetensors", "pytorch_model.bin"),
}
TEXT_INNER = "text_model."
OLD_VAE_ATTENTION = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
SD15_NAMES = (
    "v1-5-pruned-emaonly.safetensors",
    "v1-5-pruned-emaonly-fp16.safetensors",
    "v1-5-pruned.safetensors",
    "stable-diffusion-v1-5",
)
WHOLE = ("sd1", "magicpose", "magicpose_stage1", "controlnet_sd15")  # files with all parts of SD 1.5
OTHER_WIDTHS = {1024: "SD 2", 2048: "SDXL"}  # by the channels of their texts
EXPECTED = "the weights of Stable Diffusion 1.5"
CONTROLNET_EXPECTED = (
    "an SD 1.5 ControlNet for OpenPose pictures (control_v11p_sd15_openpose.pth or its diffusers form)"
)
OTHER_KINDS = ("canny", "depth", "hed", "lineart", "mlsd", "normal", "scribble", "seg", "shuffle", "softedge", "tile")


@dataclass(frozen=True)
class Part:
    """One network before it is made: weights under diffusers' or transformers' names, configuration and file."""

    weights: Weights
    config: Mapping[str, Any]
    path: Path

    def build(self, name: str) -> nn.Module:
        """The network, on the CPU in the file's dtypes; name: a key of BUILDERS. ValueError when it does not fit."""
        network = skeleton(partial(BUILDERS[name], self.config))
        weights = clip_names_of(network, self.weights, TEXT_INNER) if name == "text_encoder" else self.weights
        return fill(network, weights, TITLES[name], self.path)


@dataclass(frozen=True)
class SD15Parts:
    """What a picture and a text go through, on the CPU in the files' dtypes.

    tokenizer: a folder with the vocabulary of CLIP, or None; only texts other than the empty one need it.
    """

    vae: AutoencoderKL
    text_encoder: CLIPTextModel
    tokenizer: Path | None = None


def read_sd15(path: str | Path) -> dict[str, Part]:
    """The parts of Stable Diffusion 1.5 that a single file or a diffusers folder holds; needs torch only.

    Of "unet", "vae" and "text_encoder" those that are there. Configurations: `config.json` beside a part, for a
    single file {"unet": ..., ...} in its metadata; full-size ones without.
    Raises FileNotFoundError, or ValueError for SD 2, SDXL, inpainting models and anything else.
    """
    path = Path(path)
    if path.is_dir():
        return _read_folder(path)
    weights, config = read_weights(path), read_config(path)
    content = recognise(weights)
    if content.kind not in WHOLE:
        raise not_what_was_expected(path, content, EXPECTED)
    parts = parts_of(weights, config, path)
    check_unet(parts["unet"])
    return parts


def parts_of(weights: Weights, config: Mapping[str, Any], path: Path) -> dict[str, Part]:
    """The parts in the weights of a single file, LDM's names."""
    configs = {part: {**full, **config.get(part, {})} for part, full in CONFIGS.items()}
    found = {
        "unet": unet_to_diffusers(without_prefix(weights, UNET_PREFIX), configs["unet"]["layers_per_block"]),
        "vae": vae_to_diffusers(without_prefix(weights, VAE_PREFIX)),
        "text_encoder": without_prefix(weights, TEXT_PREFIX),
    }
    return {name: Part(part, configs[name], path) for name, part in found.items() if part}


def check_unet(part: Part) -> None:
    """Raise ValueError in one sentence for UNets of the same names and another make."""
    channels = part.weights["conv_in.weight"].shape[1]
    if channels == 9:
        raise ValueError(f"{part.path} is an inpainting model, {EXPECTED} were expected.")
    context = _text_width(part.weights)
    if context in OTHER_WIDTHS and part.config["cross_attention_dim"] not in OTHER_WIDTHS:
        raise ValueError(f"{part.path} is a UNet of {OTHER_WIDTHS[context]}, {EXPECTED} were expected.")


def _text_width(weights: Weights) -> int | None:
    """Channels of the texts that a UNet or a ControlNet attends to."""
    return next((t.shape[1] for name, t in weights.items() if name.endswith("attn2.to_k.weight")), None)


def _read_folder(folder: Path) -> dict[str, Part]:
    parts = {}
    for name, files in FOLDER_NAMES.items():
        path = next((folder / name / file for file in files if (folder / name / file).is_file()), None)
        if path is None:
            continue
        weights = read_weights(path)
        if name == "vae":
            weights = {_new_vae_name(key): as_linear(key, tensor) for key, tensor in weights.items()}
        full = {key: value for key, value in read_config(path).items() if key in CONFIGS[name]}
        parts[name] = Part(weights, {**CONFIGS[name], **full}, path)
    if not parts:
        raise FileNotFoundError(
            f"{folder} holds none of {', '.join(FOLDER_NAMES)} with weights, as a diffusers folder of Stable Diffusion "
            f"1.5 does. {where_to_get(SD15_NAMES[0])}"
        )
    if "unet" in parts:
        _check_folder_unet(parts["unet"])
    return parts


def _check_folder_unet(part: Part) -> None:
    content = recognise(part.weights)
    if content.kind != "sd_unet":
        raise not_what_was_expected(part.path, content, EXPECTED)
    check_unet(Part(part.weights, SD15_UNET, part.path))


def _new_vae_name(name: str) -> str:
    """diffusers' present name of a VAE weight; files of Stable Diffusion 1.5 have those of its first versions."""
    before, middle, inside = name.partition(".attentions.0.")
    return before + middle + rename(inside, OLD_VAE_ATTENTION)


def read_controlnet(path: str | Path, config: Mapping[str, Any] = SD15_UNET) -> Part:
    """An SD 1.5 ControlNet from a single file (LDM's or diffusers' names) or a diffusers folder.

    config: of the UNet beside it, for files without one of their own.
    Raises FileNotFoundError, or ValueError for ControlNets of SD 2, SDXL and others. What pictures a ControlNet is
    for cannot be seen in its weights; a name that says something other than OpenPose is warned of.
    """
    path = _controlnet_file(Path(path))
    weights = read_weights(path)
    content = recognise(weights)
    if content.kind != "controlnet":
        raise not_what_was_expected(path, content, CONTROLNET_EXPECTED)
    other = next((kind for kind in OTHER_KINDS if kind in path.stem.lower()), None)
    if other and "openpose" not in path.stem.lower():
        log.warning("%s seems to be a ControlNet for %s; MagicPose needs the one for OpenPose pictures.", path, other)
    own = read_config(path)
    config = {**config, **own.get("unet", {key: value for key, value in own.items() if key in SD15_UNET})}
    weights = controlnet_names(weights, config["layers_per_block"])
    check_controlnet(weights, path, content, config)
    return Part(weights, config, path)


def controlnet_names(weights: Weights, layers_per_block: int = 2) -> Weights:
    """A ControlNet's weights under diffusers' names, from those or LDM's, with `control_model.` or without."""
    if any(name.startswith(CONTROL_PREFIX) for name in weights):
        weights = without_prefix(weights, CONTROL_PREFIX)
    is_ldm = "input_hint_block.0.weight" in weights
    return controlnet_to_diffusers(weights, layers_per_block) if is_ldm else weights


def _controlnet_file(path: Path) -> Path:
    if not path.is_dir():
        return path
    found = next((path / name for name in DIFFUSION_NAMES if (path / name).is_file()), None)
    if found is None:
        raise FileNotFoundError(f"{path} holds none of {', '.join(DIFFUSION_NAMES)}, as a ControlNet's folder does.")
    return found


def check_controlnet(weights: Weights, path: Path, content: Content, config: Mapping[str, Any]) -> None:
    """Raise ValueError when a ControlNet (diffusers' names) is not one of the UNet of a configuration."""
    context = _text_width(weights)
    hint = weights.get("controlnet_cond_embedding.conv_in.weight")
    if context != config["cross_attention_dim"]:
        title = f"a ControlNet of {OTHER_WIDTHS[context]}" if context in OTHER_WIDTHS else content.title
        raise ValueError(
            f"{path} is {title} (its texts have {context} channels, SD 1.5's have {config['cross_attention_dim']}), "
            f"{CONTROLNET_EXPECTED} was expected."
        )
    if hint is None or hint.shape[1] != 3:
        channels = "no" if hint is None else hint.shape[1]
        raise ValueError(f"{path} takes pictures of {channels} channels, {CONTROLNET_EXPECTED} was expected.")
