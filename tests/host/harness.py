"""ComfyUI in this process: its loader, its executor, and inputs and outputs that are any Python values.

Only modules of the host and of the pack as the host loaded it are used here; `import choreo` would give other classes.
The host's folders (models, input, output, ...) lie in a temporary folder. Which host: CHOREO_HOST, a checkout.
"""

from __future__ import annotations

import asyncio
import copy
import gc
import importlib
import os
import shutil
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

import torch

ROOT = Path(__file__).resolve().parents[2]
CHECKED = (
    torch.Tensor,
    list,
    tuple,
    dict,
)  # inputs that nodes could modify: IMAGE, LATENT, CONDITIONING, POSE_KEYPOINT
Prompt = dict[str, tuple[str, dict[str, Any]]]


class Any_(str):  # noqa: N801 - the host compares socket types as strings
    """A socket type that fits every other."""

    __hash__ = str.__hash__

    def __ne__(self, other: object) -> bool:
        return False


class Value:
    """Wrap a Python value to hand it to a node's socket: host.run("ChoreoX", image=Value(tensor))."""

    kept: ClassVar[dict[str, Any]] = {}

    def __init__(self, value: Any) -> None:
        self.value = value
        self.key = f"{type(value).__name__} {id(value)}"
        self.kept[self.key] = value  # also keeps the value alive, so that no other gets its id


class ValueNode:
    """Test node: hands out a kept value."""

    RETURN_TYPES = (Any_("*"),)
    FUNCTION = "get"
    CATEGORY = "tests"

    @classmethod
    def INPUT_TYPES(cls) -> dict:  # noqa: N802 - the host's name
        return {"required": {"key": ("STRING", {})}}

    def get(self, key: str) -> tuple:
        return (Value.kept[key],)


class SinkNode:
    """Test node: an output node that makes the host compute the node in front of it."""

    RETURN_TYPES = ()
    FUNCTION = "take"
    CATEGORY = "tests"
    OUTPUT_NODE = True

    @classmethod
    def INPUT_TYPES(cls) -> dict:  # noqa: N802
        return {"required": {"value": (Any_("*"), {})}}

    @classmethod
    def VALIDATE_INPUTS(cls, input_types: dict) -> bool:  # noqa: N802 - with input_types, links are not checked
        return True

    def take(self, value: Any) -> dict:
        return {}


@dataclass
class Run:
    """What one queued prompt did.

    outputs: values of each node's sockets; ui: what each output node showed; cached: ids of nodes that did not run;
    progress: (node id, done, total, preview); error: the message of the error dialog, None when all went well;
    interrupted: the user's stop was obeyed.
    """

    outputs: dict[str, tuple] = field(default_factory=dict)
    ui: dict[str, dict] = field(default_factory=dict)
    cached: list[str] = field(default_factory=list)
    progress: list[tuple[str | None, int, int, Any]] = field(default_factory=list)
    error: str | None = None
    error_type: str | None = None
    interrupted: bool = False


class Server:
    """Stands for the web server: keeps the messages."""

    client_id = "tests"
    last_node_id = None
    last_prompt_id = None

    def __init__(self) -> None:
        self.sockets_metadata: dict = {}
        self.messages: list[tuple[Any, Any]] = []

    def send_sync(self, event: Any, data: Any, sid: str | None = None) -> None:
        self.messages.append((event, data))


class Host:
    """A ComfyUI with the pack loaded; one a process."""

    def __init__(self, checkout: Path, pack: Path = ROOT) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="choreo-host-"))
        for name in ("models", "input", "output", "temp", "user", "custom_nodes"):
            (self.folder / name).mkdir()
        sys.path.insert(0, str(checkout))
        from comfy.cli_args import args  # before anything imports comfy.model_management

        args.cpu = True
        args.base_directory = str(self.folder)
        import execution

        import nodes

        nodes.NODE_CLASS_MAPPINGS |= {"TestValue": ValueNode, "TestSink": SinkNode}
        self.nodes = nodes
        self.execution = execution
        self.checkout = checkout
        self.version = importlib.import_module("comfyui_version").__version__
        known = set(nodes.NODE_CLASS_MAPPINGS)
        self.loaded = self._load(pack)
        self.pack_nodes = sorted(set(nodes.NODE_CLASS_MAPPINGS) - known)
        self.pack_name = str(pack).replace(".", "_x_")
        self.count = 0
        self.fresh()

    def _load(self, path: Path, parent: str = "custom_nodes") -> bool:
        return asyncio.run(self.nodes.load_custom_node(str(path), module_parent=parent))

    def load_extra(self, name: str) -> None:
        """Load one of the host's own extra node files, e.g. "nodes_video"."""
        assert self._load(self.checkout / "comfy_extras" / f"{name}.py", "comfy_extras"), name

    def fresh(self) -> None:
        """Forget all cached outputs, as after a restart."""
        cache = {"cache_args": {"lru": 0, "ram": 0}} if self.version >= "0.4" else {"cache_size": 0}
        self.server = Server()
        self.executor = self.execution.PromptExecutor(self.server, cache_type=self.execution.CacheType.CLASSIC, **cache)

    def close(self) -> None:
        """Let go of everything while the host's modules are still whole, and delete its folders."""
        import comfy.model_management

        self.fresh()
        Value.kept.clear()
        comfy.model_management.unload_all_models()
        gc.collect()
        shutil.rmtree(self.folder, ignore_errors=True)

    def module(self, name: str) -> ModuleType:
        """A module of the pack as the host loaded it, e.g. module("pose.poses")."""
        return importlib.import_module(f"{self.pack_name}.{name}")

    def node(self, node_id: str) -> type:
        """A node class, of the pack or of the host."""
        return self.nodes.NODE_CLASS_MAPPINGS[node_id]

    def defaults(self, node_id: str) -> dict[str, Any]:
        """The values a new node's widgets have (first option of a list without a default)."""
        found = {}
        for inputs in (self.node(node_id).INPUT_TYPES().get(kind, {}) for kind in ("required", "optional")):
            for name, (kind, *rest) in inputs.items():
                options = rest[0] if rest else {}
                if "default" in options:
                    found[name] = options["default"]
                elif isinstance(kind, list) or kind == "COMBO":
                    found[name] = (kind if isinstance(kind, list) else options["options"])[0]
        return found

    def run(self, node_id: str, **inputs: Any) -> tuple:
        """One node's outputs; widgets that are not named have their defaults. RuntimeError with the host's message."""
        result = self.queue({"node": (node_id, inputs)})
        if result.error is not None:
            raise RuntimeError(result.error)
        return result.outputs["node"]

    def queue(self, prompt: Prompt, interrupt_at: int | None = None) -> Run:
        """Run a prompt {id: (node id, {input: widget value, Value(...) or (id, slot)})} as the server would.

        Widgets that are not named have their defaults. interrupt_at: press stop at this progress report (0 the first).
        """
        graph = self._graph(prompt)
        self.count += 1
        run = Run()
        valid, error, wanted, node_errors = asyncio.run(self.execution.validate_prompt(str(self.count), graph, None))
        if not valid:
            details = [f"{e['message']}: {e['details']}" for n in node_errors.values() for e in n["errors"]]
            run.error = "; ".join(details) or f"{error['message']}: {error['details']}"
            run.error_type = "validation"
            return run
        self.server.messages.clear()
        self._watch(run, interrupt_at)
        values = [value.value for _, inputs in prompt.values() for value in inputs.values() if isinstance(value, Value)]
        before = [copy.deepcopy(value) if isinstance(value, CHECKED) else None for value in values]
        self.executor.execute(graph, str(self.count), {"client_id": "tests"}, wanted)
        assert all(map(_same, before, values)), "a node modified its inputs"
        self._read_messages(run)
        for name in prompt:
            entry = self.executor.caches.outputs.get(name)
            if entry is not None:
                run.outputs[name] = tuple(slot[0] for slot in getattr(entry, "outputs", entry))
        run.ui = self.executor.history_result["outputs"]
        return run

    def _graph(self, prompt: Prompt) -> dict[str, dict]:
        graph: dict[str, dict] = {}
        for name, (node_id, inputs) in prompt.items():
            values = self.defaults(node_id) | inputs
            for key, value in values.items():
                if isinstance(value, Value):
                    graph[value.key] = {"class_type": "TestValue", "inputs": {"key": value.key}}
                    values[key] = [value.key, 0]
                elif isinstance(value, tuple):
                    values[key] = list(value)
            graph[name] = {"class_type": node_id, "inputs": values}
            if not getattr(self.node(node_id), "OUTPUT_NODE", False):
                graph[f"sink of {name}"] = {"class_type": "TestSink", "inputs": {"value": [name, 0]}}
        return graph

    def _watch(self, run: Run, interrupt_at: int | None) -> None:
        import comfy.model_management
        import comfy.utils
        from comfy_execution.utils import get_executing_context

        def hook(
            value: int, total: int, preview: Any, prompt_id: str | None = None, node_id: str | None = None
        ) -> None:
            if interrupt_at is not None and len(run.progress) >= interrupt_at:
                comfy.model_management.interrupt_current_processing()
            run.progress.append((node_id or get_executing_context().node_id, value, total, preview))
            comfy.model_management.throw_exception_if_processing_interrupted()

        comfy.utils.set_progress_bar_global_hook(hook)

    def _read_messages(self, run: Run) -> None:
        for event, data in self.executor.status_messages:
            if event == "execution_error":
                run.error = data["exception_message"].strip()
                run.error_type = data["exception_type"]
            elif event == "execution_interrupted":
                run.interrupted = True
            elif event == "execution_cached":
                run.cached = list(data["nodes"])


def _same(before: Any, after: Any) -> bool:
    if isinstance(before, torch.Tensor):
        return torch.equal(before, after)
    if isinstance(before, dict):
        return before.keys() == after.keys() and all(_same(before[key], after[key]) for key in before)
    if isinstance(before, (list, tuple)):
        return len(before) == len(after) and all(map(_same, before, after))
    return before is None or not isinstance(before, (int, float, str)) or before == after


def open_host() -> Host:
    """The host that CHOREO_HOST names."""
    return Host(Path(os.environ["CHOREO_HOST"]))
