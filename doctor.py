"""What `choreo doctor` says: the machine, what is installed, the weights that are there, and what would run.

Nothing here may fail: what is missing or broken becomes a line of the report.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterable, Iterator
from importlib import import_module
from pathlib import Path

import torch

from . import __version__
from .model_loaders.catalogue import find_file, model_folders, table, where_to_get
from .model_loaders.inspection import inspect
from .model_loaders.mimicmotion import POSE_NET_NAMES, WINDOW_1_1, MimicMotionNetworks, find_pose_net, window_by_name
from .model_loaders.stableanimator import RELEASE, find_part, unet_in_folder
from .model_loaders.svd import SVDParts
from .networks.image_tower import build_image_tower
from .networks.pose_net import PoseNet
from .networks.svd_unet import build_unet
from .networks.video_vae import build_video_vae
from .pipelines.faces import ANTELOPE, Identity, find_network
from .pipelines.job import SVD_NAMES
from .pipelines.magicpose_job import MagicPoseFiles
from .pipelines.preflight import estimate, free_memory, largest_window
from .pipelines.stableanimator_job import find_release
from .pose.onnx_models import available_providers, choose_provider
from .runtime import current
from .samplers.decode import DECODE_CHUNK

PACKAGES = ("torch", "diffusers", "transformers", "onnxruntime", "av", "cv2", "numpy")
FULL_CHECKPOINTS = ("MimicMotion_1-1.pth", "MimicMotion_1.pth")
MERGED_UNETS = ("MimicMotionMergedUnet_1-1-fp16.safetensors", "MimicMotionMergedUnet_1-0-fp16.safetensors")
DETECTION = ("yolox_l.onnx", "dw-ll_ucoco_384.onnx")
SIZE = (576, 1024)
LONGEST = 500  # frames; windows beyond the length of common clips are of no use


def report(folders: Iterable[str | Path] = ()) -> str:
    """The report, many lines; folders: models folders to look in first."""
    folders = list(folders)
    sections: tuple[tuple[str, Callable[[], Iterable[str]]], ...] = (
        ("Versions", _versions),
        ("Devices", _devices),
        ("onnxruntime", _providers),
        ("Weights", lambda: _weights(folders)),
        ("What would run", lambda: _conclusion(folders)),
    )
    return "\n".join(line for title, lines in sections for line in (title, *(f"  {each}" for each in _safely(lines))))


def _safely(lines: Callable[[], Iterable[str]]) -> list[str]:
    """The lines, and what broke them off: a broken package may raise anything."""
    said: list[str] = []
    try:
        said.extend(lines())
    except Exception as error:
        said.append(f"cannot be told: {_reason(error)}")
    return said


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".strip().splitlines()[0]


def _versions() -> Iterator[str]:
    yield f"Choreo {__version__}, Python {platform.python_version()}, {platform.system()} {platform.machine()}"
    for package in PACKAGES:
        try:
            module = import_module(package)
            yield f"{package} {getattr(module, '__version__', 'of an unknown version')}"
        except ModuleNotFoundError as error:
            missing = "is not installed" if error.name == package else f"is broken: {_reason(error)}"
            yield f"{package} {missing}"
        except Exception as error:
            yield f"{package} is broken: {_reason(error)}"


def _devices() -> Iterator[str]:
    for i in range(torch.cuda.device_count()):
        device = torch.device("cuda", i)
        yield f"{device}: {torch.cuda.get_device_name(i)}, {_free(device)}"
    if torch.backends.mps.is_available():
        yield "mps: Apple GPU, shares the main memory"
    yield f"cpu: {torch.get_num_threads()} threads, {_free(torch.device('cpu'))}"
    yield f"networks would run on {current().device} in {str(current().dtype).removeprefix('torch.')}"


def _free(device: torch.device) -> str:
    free = free_memory(device)
    return "free memory unknown" if free is None else f"{free / 1e9:.1f} GB free"


def _providers() -> Iterator[str]:
    yield f"providers: {', '.join(available_providers())}"
    chosen, problem = choose_provider()
    yield f"auto would open: {chosen}"
    if problem:
        yield problem


def _weights(folders: list[str | Path]) -> Iterator[str]:
    for folder in model_folders(folders):
        yield f"folder {folder}{'' if folder.is_dir() else ' (does not exist)'}"
    rows = table(folders)
    for row in rows:
        if row["found"]:
            yield f"{row['file']}: {_recognised(Path(row['found']))}"
    if not any(row["found"] for row in rows):
        yield "no known file was found; `choreo models` lists them"


def _recognised(path: Path) -> str:
    """Where a file is and what its keys say it is; ONNX files are told by their first use."""
    if path.suffix == ".onnx":
        return str(path)
    try:
        titles = dict.fromkeys(line for file in inspect(path) for line in (file.title, *file.problems))
        return "; ".join([str(path), *titles])
    except Exception as error:
        return f"{path} cannot be read: {_reason(error)}"


def _conclusion(folders: list[str | Path]) -> Iterator[str]:
    yield "tiny model: yes"
    found = [name for name in DETECTION if find_file(name, folders)]
    missing = [_missing(name) for name in DETECTION if name not in found]
    yield f"poses from videos: {'no: ' + ' '.join(missing) if missing else 'yes'}"
    weights, missing = _mimicmotion(folders)
    if missing:
        yield f"MimicMotion: no: {' '.join(missing)}"
    else:
        yield f"MimicMotion: yes, with {weights.name} and windows of {window_by_name(weights)} frames"
    name = MagicPoseFiles.weights
    yield f"MagicPose: {f'yes, with {name}' if find_file(name, folders) else f'no: {_missing(name)}'}"
    missing = _stableanimator(folders)
    yield f"StableAnimator: {'no: ' + ' '.join(missing) if missing else 'yes'}"
    faces = [name for name in (Identity.face_detector, Identity.face_recogniser) if not find_network(name, folders)]
    lost = f"no: {' and '.join(faces)} missing. {where_to_get(ANTELOPE)}" if faces else "yes"
    yield f"faces kept by StableAnimator: {lost}"
    if current().device.type == "cuda":
        yield from _windows(window_by_name(weights) if weights else WINDOW_1_1)


def _missing(name: str) -> str:
    return f"{name} is missing. {where_to_get(name).rstrip('.')}."


def _mimicmotion(folders: list[str | Path]) -> tuple[Path | None, list[str]]:
    """The weights that `choreo animate` could take, and what else is missing."""
    missing = []
    found = (find_file(name, folders) for name in (*FULL_CHECKPOINTS, *MERGED_UNETS))
    weights = next((path for path in found if path), None)
    if weights is None:
        missing.append(_missing(FULL_CHECKPOINTS[0]))
    elif weights.name in MERGED_UNETS:
        try:
            find_pose_net(weights)
        except FileNotFoundError:
            if not find_file(POSE_NET_NAMES[0], folders):
                missing.append(f"{weights.name} needs its PoseNet. {_missing(POSE_NET_NAMES[0])}")
    if not any(find_file(name, folders) for name in SVD_NAMES):
        missing.append(_missing(SVD_NAMES[0]))
    return weights, missing


def _stableanimator(folders: list[str | Path]) -> list[str]:
    """What `choreo animate --model stableanimator` lacks."""
    missing, release = [], find_release(folders)
    if release is None:
        missing.append(_missing(RELEASE))
    else:
        try:
            unet = unet_in_folder(release) if release.is_dir() else release
            for part in ("pose_net", "face_encoder"):
                find_part(unet, part)
        except FileNotFoundError as error:
            missing.append(str(error))
    if not any(find_file(name, folders) for name in SVD_NAMES):
        missing.append(_missing(SVD_NAMES[0]))
    return missing


def _windows(window: int) -> Iterator[str]:
    """What fits on the GPU at full size; the networks are built without memory."""
    dtype, device = current().dtype, current().device
    with torch.device("meta"):
        networks = MimicMotionNetworks(build_unet(), PoseNet(), window)
        parts = SVDParts(build_video_vae(), build_image_tower())
    clip = {"size": SIZE, "num_frames": LONGEST, "chunk": DECODE_CHUNK, "dtype": dtype}
    need = estimate(networks, parts, window=window, **clip)
    largest = largest_window(networks, parts, free_bytes=free_memory(device), **clip)
    at = f"at {SIZE[0]}x{SIZE[1]} on {device}"
    yield f"windows of {window} frames {at} need about {need.device_bytes / 1e9:.1f} GB"
    if largest:
        yield f"the largest window that fits {at} is {largest if largest < LONGEST else f'{LONGEST} or more'} frames"
    else:
        yield f"no window fits {at}; choose a smaller --decode-chunk or a smaller size"
