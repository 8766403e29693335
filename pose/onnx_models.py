"""Opening ONNX networks with onnxruntime: where they run, what they are, and plain words when that fails."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

import numpy as np

from .onnx_kinds import Kind, known_shape, recognise, wrong_network

log = logging.getLogger(__name__)

PROVIDERS = {
    "tensorrt": "TensorrtExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "migraphx": "MIGraphXExecutionProvider",
    "rocm": "ROCMExecutionProvider",
    "directml": "DmlExecutionProvider",
    "openvino": "OpenVINOExecutionProvider",
    "coreml": "CoreMLExecutionProvider",
    "cpu": "CPUExecutionProvider",
}
# TensorRT builds engines for minutes, so only on request; OpenVINO on the CPU is no better than the CPU itself.
AUTOMATIC = ("cuda", "migraphx", "rocm", "directml", "coreml", "cpu")
GPU_PACKAGES = {
    "onnxruntime-gpu": "cuda",
    "onnxruntime-directml": "directml",
    "onnxruntime-rocm": "rocm",
    "onnxruntime-migraphx": "migraphx",
}
_OUT_OF_MEMORY = ("out of memory", "failed to allocate", "bad allocation", "bad_alloc", "not enough memory")
_reported: set[str] = set()


def available_providers() -> list[str]:
    """The names among :data:`PROVIDERS` that the installed onnxruntime was built with, best first."""
    import onnxruntime

    built = onnxruntime.get_available_providers()
    return [name for name, full in PROVIDERS.items() if full in built]


class OnnxModel:
    """An open ONNX network; a context manager, since its memory is invisible to torch and to hosts.

    path, provider (plain name of the one really in use), kind (of :mod:`.onnx_kinds`, or None),
    inputs and outputs (name -> shape as the file states it, with None for a free length).
    """

    def __init__(self, path: Path, session: object) -> None:
        self.path = path
        self._session = session
        self.provider = _plain_name(session.get_providers()[0])
        self.inputs = {node.name: known_shape(node.shape) for node in session.get_inputs()}
        self.outputs = {node.name: known_shape(node.shape) for node in session.get_outputs()}
        types = [node.type for node in session.get_inputs()]
        self.kind = recognise(self.inputs, self.outputs, types)

    def run(self, *arrays: np.ndarray) -> list[np.ndarray]:
        """All outputs, in the file's order, for the inputs in the file's order.

        Raises torch.cuda.OutOfMemoryError where onnxruntime has an error of its own, so that one handler does for both.
        """
        if self._session is None:
            raise ValueError(f"{self.path.name} was closed; open it again before running it")
        try:
            return self._session.run(None, dict(zip(self.inputs, arrays, strict=True)))
        except Exception as error:
            if not _ran_out_of_memory(error):
                raise
            message = f"{self.path.name} ran out of memory on {self.provider}"
        import torch

        raise torch.cuda.OutOfMemoryError(message)  # its name before torch 2.5 too

    def close(self) -> None:
        """Free the network's memory; harmless when done twice."""
        self._session = None

    def __enter__(self) -> OnnxModel:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def open_model(
    path: str | Path, provider: str = "auto", strict: bool = False, expect: Kind | Sequence[Kind] | None = None
) -> OnnxModel:
    """Open an ONNX file.

    provider: "auto" (the best that is installed) or a name of :data:`PROVIDERS`. The provider in use is logged;
    falling back to the CPU although something better was asked for or is there is a warning, or with `strict`
    a RuntimeError. expect: the kinds of network that will do.
    Raises FileNotFoundError and ValueError (not an ONNX file, a pointer or part of one, another network).
    """
    path = Path(path)
    if provider != "auto" and provider not in PROVIDERS:
        raise ValueError(f"provider must be one of auto, {', '.join(PROVIDERS)}; got {provider!r}")
    _check_file(path)
    wanted, problem = choose_provider(provider)
    if problem and strict:
        raise RuntimeError(problem)
    model = OnnxModel(path, _create_session(path, wanted))
    expected = (expect,) if isinstance(expect, Kind) else tuple(expect or ())
    if expected and model.kind not in expected:
        raise ValueError(f"{path} is {wrong_network(model.kind, model.inputs, model.outputs, expected)}")
    if not problem and model.provider != wanted:
        problem = _did_not_start(wanted, model.provider)
        if strict:
            raise RuntimeError(problem)
    _report(model.provider, problem)
    return model


def _check_file(path: Path) -> None:
    if not path.is_file():
        raise FileNotFoundError(f"No ONNX file at {path}. Give the path of the downloaded file itself.")
    with path.open("rb") as file:
        start = file.read(64)
    if start.startswith(b"version https://git-lfs"):
        raise ValueError(
            f"{path} is a Git-LFS pointer, not the network itself: run `git lfs pull` in its folder, or download "
            "the file with the download button of its page."
        )
    if start.lstrip()[:1] == b"<":
        raise ValueError(f"{path} is a web page, not an ONNX file: the download went wrong, fetch it again.")
    if not start:
        raise ValueError(f"{path} is empty: the download went wrong, fetch it again.")


def choose_provider(provider: str = "auto") -> tuple[str, str | None]:
    """The provider to ask for, and what is wrong when it is not the one that the user may expect."""
    built = available_providers()
    if provider == "auto":
        import torch

        usable = [name for name in AUTOMATIC if name in built and (name != "cuda" or torch.cuda.is_available())]
        return usable[0], _missed_gpu(built) if usable[0] == "cpu" else None
    if provider in built:
        return provider, None
    return "cpu", (
        f"The installed onnxruntime has no {provider} provider (it has {', '.join(built)}), so networks would run on "
        "the CPU. Usually the plain onnxruntime package hides the GPU one: uninstall every onnxruntime package, then "
        "install only the one for your device (onnxruntime-gpu for cuda and tensorrt, onnxruntime-directml for "
        'directml), or choose provider "cpu".'
    )


def _missed_gpu(built: Sequence[str]) -> str | None:
    """Why "auto" ends on the CPU although there is a GPU or software for one; None on a plain CPU machine."""
    import torch

    hidden = [package for package, name in GPU_PACKAGES.items() if name not in built and _installed(package)]
    if hidden:
        cause = f"{hidden[0]} is installed, but another onnxruntime package lies over it"
    elif torch.cuda.is_available():
        cause = "this computer has a GPU, but the installed onnxruntime was built without it"
    elif "cuda" in built and torch.version.cuda:
        return (
            "Poses and faces are found on the CPU, slowly: PyTorch and onnxruntime are built for CUDA, but no GPU "
            'answers. Check the driver with nvidia-smi, or choose provider "cpu" to keep it so.'
        )
    else:
        return None
    return (
        f"Poses and faces are found on the CPU, slowly: {cause}. Uninstall every onnxruntime package, then install "
        f'only {hidden[0] if hidden else "onnxruntime-gpu"}; or choose provider "cpu" to keep it so.'
    )


def _installed(package: str) -> bool:
    try:
        metadata.distribution(package)
    except metadata.PackageNotFoundError:
        return False
    return True


def _did_not_start(wanted: str, got: str) -> str:
    return (
        f"onnxruntime could not start {wanted} and uses {got} instead, which is slower. Usually its libraries do not "
        "match: current onnxruntime-gpu builds need CUDA 12 with cuDNN 9, as PyTorch 2.4 and later bring. Update "
        f"PyTorch and onnxruntime-gpu together, or choose provider {got!r}."
    )


def _create_session(path: Path, provider: str) -> object:
    import onnxruntime

    onnxruntime.disable_telemetry_events()  # some builds report what they run unless told not to
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors only: onnxruntime's warnings are about its own graph rewriting
    if provider == "directml":  # it knows neither memory patterns nor parallel execution
        options.enable_mem_pattern = False
        options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    if provider in ("cuda", "tensorrt") and hasattr(onnxruntime, "preload_dlls"):
        import torch  # noqa: F401  (its CUDA and cuDNN libraries are the ones that preload_dlls finds)

        onnxruntime.preload_dlls()
    chain = [(PROVIDERS[provider], _provider_options(provider))]
    if provider == "tensorrt":
        chain.append((PROVIDERS["cuda"], _provider_options("cuda")))
    if provider != "cpu":
        chain.append((PROVIDERS["cpu"], {}))
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=chain)
    except Exception as error:
        reason, no_memory = str(error).strip().splitlines()[0], _ran_out_of_memory(error)
    if no_memory:
        raise MemoryError(f"Not enough memory to open {path} on {provider}: close other programs or use the CPU.")
    raise ValueError(
        f"onnxruntime {onnxruntime.__version__} cannot open {path} ({path.stat().st_size:,} bytes): it is not an ONNX "
        "network, its download is incomplete, or it needs a newer onnxruntime. Compare its size with the one on its "
        f"page and fetch it again. ({reason})"
    )


def _provider_options(provider: str) -> dict[str, object]:
    from ..runtime import current

    device = current().device
    index = device.index or 0 if device.type in ("cuda", "privateuseone") else 0
    if provider == "cuda":
        # The exhaustive search, onnxruntime's default, tunes for seconds at every new batch size.
        return {
            "device_id": index,
            "cudnn_conv_algo_search": "HEURISTIC",
            "arena_extend_strategy": "kSameAsRequested",
        }
    if provider == "tensorrt":
        cache = Path.home() / ".cache" / "choreo" / "tensorrt"
        cache.mkdir(parents=True, exist_ok=True)
        return {
            "device_id": index,
            "trt_fp16_enable": True,
            "trt_engine_cache_enable": True,
            "trt_engine_cache_path": str(cache),
        }
    if provider in ("rocm", "migraphx", "directml"):
        return {"device_id": index}
    return {}


def _report(provider: str, problem: str | None) -> None:
    if problem:  # always from this line, so that Python says it once however many networks are opened
        warnings.warn(problem, RuntimeWarning, stacklevel=1)
    elif provider not in _reported:
        _reported.add(provider)
        log.info("onnxruntime runs networks on %s", provider)


def _plain_name(full: str) -> str:
    return next((name for name, known in PROVIDERS.items() if known == full), full)


def _ran_out_of_memory(error: Exception) -> bool:
    text = str(error).lower()
    return isinstance(error, MemoryError) or any(sign in text for sign in _OUT_OF_MEMORY)
