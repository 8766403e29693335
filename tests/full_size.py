"""python -m tests.full_size FOLDER: random weights of full size in the layouts of the published files.

MimicMotion_1-1.pth (float16 pickle), svd_xt_1_1.safetensors (single file, LDM and OpenCLIP names, without its UNet) and
stable-video-diffusion-img2vid-xt-1-1/ (diffusers folder): 6.2 GB in all, the same on every machine.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path

import torch
from choreo.model_loaders import svd_keys
from choreo.model_loaders.random_weights import random_weights
from choreo.model_loaders.svd import CLIP_PREFIX, VAE_PREFIX
from choreo.networks.image_tower import CLIP_VIT_H_14, build_image_tower
from choreo.networks.pose_net import PoseNet
from choreo.networks.svd_unet import build_unet
from choreo.networks.video_vae import SVD_VAE, build_video_vae
from safetensors.torch import save_file

SVD_FOLDER, SVD_FILE = "stable-video-diffusion-img2vid-xt-1-1", "svd_xt_1_1.safetensors"


def write_mimicmotion(folder: Path) -> None:
    unet, pose_net = random_weights(build_unet, seed=1), random_weights(PoseNet, seed=2, gain=2.0)
    weights = {f"unet.{name}": tensor for name, tensor in unet.items()}
    weights |= {f"pose_net.{name}": tensor for name, tensor in pose_net.items()}
    torch.save(weights, folder / "MimicMotion_1-1.pth")


def write_svd(folder: Path) -> None:
    vae, clip = random_weights(build_video_vae, seed=3), random_weights(build_image_tower, seed=4)
    for part, file, weights, config in (
        ("vae", "diffusion_pytorch_model.fp16.safetensors", vae, SVD_VAE),
        ("image_encoder", "model.fp16.safetensors", clip, CLIP_VIT_H_14),
    ):
        (folder / SVD_FOLDER / part).mkdir(parents=True, exist_ok=True)
        save_file(weights, folder / SVD_FOLDER / part / file, {"format": "pt"})
        (folder / SVD_FOLDER / part / "config.json").write_text(json.dumps(config, indent=2))
    single = {VAE_PREFIX + name: tensor.contiguous() for name, tensor in svd_keys.vae_to_ldm(vae).items()}
    single |= {CLIP_PREFIX + name: tensor for name, tensor in svd_keys.clip_to_open_clip(clip).items()}
    save_file(single, folder / SVD_FILE, {"format": "pt"})


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.full_size", description=__doc__)
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args(arguments).folder
    folder.mkdir(parents=True, exist_ok=True)
    steps: tuple[Callable[[Path], None], ...] = (write_mimicmotion, write_svd)
    for step in steps:
        start = time.monotonic()
        step(folder)
        print(f"{step.__name__}: {time.monotonic() - start:.0f} s", flush=True)
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            print(f"{path.stat().st_size:>15,}  {path.relative_to(folder)}")


if __name__ == "__main__":
    main()
