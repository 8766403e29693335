"""Names, shapes and dtypes of every tensor in the published checkpoints, packed; `python -m tests.manifests FOLDER`
packs a folder of manifests again."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import torch

PACKED = Path(__file__).parent / "manifests.json.gz"


def names() -> list[str]:
    """The manifests there are."""
    return list(_read())


def config(name: str) -> dict[str, Any]:
    """What a manifest says about the file, including the networks' configurations."""
    return _read()[name]["config"]


def key_map(name: str) -> dict[str, str]:
    """A table old name -> new name."""
    return _read()[name]["map"]


def weights(name: str) -> dict[str, torch.Tensor]:
    """The tensors of a manifest on the meta device."""
    tensors = _read()[name]["tensors"]
    return {
        key: torch.empty(shape, dtype=getattr(torch, dtype), device="meta") for key, (shape, dtype) in tensors.items()
    }


def _read() -> dict[str, dict[str, Any]]:
    return json.loads(gzip.decompress(PACKED.read_bytes()))


def pack(folder: Path) -> None:
    """Pack the manifests of a folder that list tensors or names."""
    packed = {}
    for path in sorted(folder.glob("*.json")):
        content = json.loads(path.read_text(encoding="utf-8"))
        parts = {key: content[key] for key in ("config", "tensors", "map") if key in content}
        if "rule" in content:  # name -> where it goes, "" for what is left out
            rows = content["tensors"].items()
            parts = {"map": {name: f"{row['component']}/{row['key']}" if row["key"] else "" for name, row in rows}}
        if "map" in parts or all(isinstance(entry, list) for entry in parts.get("tensors", {"": None}).values()):
            packed[path.stem] = parts
    text = json.dumps(packed, separators=(",", ":"))
    PACKED.write_bytes(gzip.compress(text.encode(), 9, mtime=0))
