"""Does installing requirements.txt leave a host's environment as it was?"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable

from .environment import REQUIREMENTS, ROOT, TORCH, Environment, throw_away

# What the hosts have in common; "transformers 4" is the older ComfyUI installation that bare lower bounds break.
COMMON = (TORCH, "av>=14.2", "einops", "kornia", "Pillow", "safetensors", "scipy", "tqdm")
TRANSFORMERS_4 = ("transformers==4.57.1", "huggingface_hub<1", "numpy==1.26.4")
LINE_BY_LINE = "line by line"
HOSTS = {
    "transformers 4": TRANSFORMERS_4,
    f"transformers 4, {LINE_BY_LINE}": TRANSFORMERS_4,
    "newest": ("transformers", "huggingface_hub", "numpy"),
    "onnxruntime-gpu and opencv-python": ("transformers", "numpy", "onnxruntime-gpu", "opencv-python"),
}

STATE = """
import json
from importlib.metadata import PackageNotFoundError, version
def installed(name):
    try:
        return version(name)
    except PackageNotFoundError:
        return None
state = {name: installed(name) for name in ("torch", "numpy", "transformers", "onnxruntime", "onnxruntime-gpu")}
try:
    import onnxruntime
    state["providers"] = onnxruntime.get_available_providers()
except ImportError:
    pass
print(json.dumps(state))
"""

HOST_USE = "import numpy, torch, transformers; from transformers import CLIPVisionModelWithProjection, T5EncoderModel"

USE = """
import numpy, torch, transformers, diffusers, onnxruntime, cv2
from transformers import CLIPVisionModelWithProjection
from diffusers import AutoencoderKLTemporalDecoder, UNetSpatioTemporalConditionModel
torch.from_numpy(cv2.resize(numpy.zeros((8, 8, 3), numpy.uint8), (4, 4), interpolation=cv2.INTER_AREA))
assert cv2.imdecode(cv2.imencode(".png", numpy.zeros((4, 4, 3), numpy.uint8))[1], cv2.IMREAD_COLOR).shape == (4, 4, 3)
cv2.ellipse(numpy.zeros((8, 8, 3), numpy.uint8), (4, 4), (2, 2), 0, 0, 360, (255, 255, 255), -1)
print("diffusers", diffusers.__version__, "transformers", transformers.__version__, "numpy", numpy.__version__,
      "OpenCV", cv2.__version__, "onnxruntime", onnxruntime.__version__, onnxruntime.get_available_providers())
"""

PACK = """
import importlib, pkgutil, sys
from importlib import util
spec = util.spec_from_file_location("pack", {init!r}, submodule_search_locations=[{root!r}])
sys.modules["pack"] = pack = util.module_from_spec(spec)
spec.loader.exec_module(pack)
for folder in {folders!r}:
    package = importlib.import_module("pack." + folder)
    for module in pkgutil.iter_modules(package.__path__):
        importlib.import_module(f"pack.{{folder}}.{{module.name}}")
"""
FOLDERS = ("pose", "media", "networks", "model_loaders", "conditioning", "samplers", "pipelines")


def check_host(environment: Environment, line_by_line: bool) -> list[str]:
    """Install requirements.txt over a host; what is wrong afterwards.

    line_by_line: as ComfyUI-Manager does it. No order of lines gives a diffusers that fits transformers 4 then, so only
    the host itself has to be sound.
    """
    before = json.loads(environment.output(STATE))
    if line_by_line:
        for line in REQUIREMENTS.read_text().splitlines():
            if line and not line.startswith("#"):
                environment.pip("install", line)
    else:
        environment.pip("install", "-r", REQUIREMENTS)
    after = json.loads(environment.output(STATE))
    problems = [
        f"{name} was {before[name]} and is {after[name]}"
        for name in ("torch", "numpy", "transformers")
        if before[name] != after[name]
    ]
    if missing := set(before.get("providers", [])) - set(after["providers"]):
        problems.append(f"onnxruntime lost {', '.join(sorted(missing))}")
    if after["onnxruntime"] and after["onnxruntime-gpu"]:
        problems.append("both onnxruntime and onnxruntime-gpu are installed")
    checks = {"import of transformers": lambda: environment.output(HOST_USE)}
    if not line_by_line:
        checks["pip check"] = lambda: environment.pip("check")
        checks["use of the packages"] = lambda: print("   ", environment.output(USE))
        checks["import of the pack"] = lambda: environment.output(_import_pack())
    return problems + [f"{what} failed (see above)" for what, check in checks.items() if not _succeeds(check)]


def _succeeds(check: Callable[[], object]) -> bool:
    try:
        check()
    except subprocess.CalledProcessError:
        return False
    return True


def _import_pack() -> str:
    return PACK.format(init=str(ROOT / "__init__.py"), root=str(ROOT), folders=FOLDERS)


def check_hosts() -> bool:
    """Every host in an environment of its own; prints one line each."""
    sound = True
    for name, packages in HOSTS.items():
        with throw_away() as environment:
            environment.pip("install", *COMMON, *packages)
            problems = check_host(environment, line_by_line=name.endswith(LINE_BY_LINE))
        print(f"{'FAIL' if problems else 'PASS'}  {name}", *problems, sep="\n      ", flush=True)
        sound = sound and not problems
    return sound
