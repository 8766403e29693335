"""Read a weights file as data, never as code, and say in one sentence why when that is not possible."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from .catalogue import where_to_get

SAFETENSORS_SUFFIXES = (".safetensors", ".sft")
SUFFIXES = (*SAFETENSORS_SUFFIXES, ".pth", ".pt", ".th", ".ckpt", ".bin")
LFS_POINTER = b"version https://git-lfs"
HTML_STARTS = (b"<!doctype html", b"<html", b"<head", b"<?xml")
ZIP_START = b"PK\x03\x04"
PICKLE_START = b"\x80"


def read_weights(path: str | Path) -> dict[str, torch.Tensor]:
    """The tensors of a safetensors or PyTorch file, by name, in the file's dtypes, on the CPU.

    Tensors are mapped from the disk where the format allows it, so that only what is used is read. PyTorch files are
    read with `weights_only=True`. The name has to end in one of SUFFIXES; what is inside decides the format.
    A dictionary wrapped as {"state_dict": ...} is unwrapped, entries that are no tensors are left out.

    Raises FileNotFoundError, or ValueError for a Git-LFS pointer, a web page, a truncated file, Python objects other
    than weights, or a file without tensors.
    """
    path = Path(path)
    start = _check(path)
    content = _read_torch(path, start.startswith(ZIP_START)) if _is_torch(start) else _read_safetensors(path)
    if isinstance(content.get("state_dict"), Mapping):
        content = content["state_dict"]
    weights = {str(key): value for key, value in content.items() if isinstance(value, torch.Tensor)}
    if not weights:
        raise ValueError(f"{path} holds no tensors, a state dict of named weights was expected.")
    return weights


def read_metadata(path: str | Path) -> dict[str, str]:
    """The metadata of a safetensors file, all text; {} for other formats."""
    path = Path(path)
    if _is_torch(_check(path)):
        return {}
    return _safetensors_header(path).get("__metadata__", {})


def read_config(path: str | Path) -> dict[str, Any]:
    """The configuration that comes with a weights file: `config` in its metadata, else `config.json` beside it, or {}.

    Raises ValueError when it is not a JSON object.
    """
    path = Path(path)
    beside = path.parent / "config.json"
    text, source = read_metadata(path).get("config"), f"config in the metadata of {path}"
    if text is None and beside.is_file():
        text, source = beside.read_text(encoding="utf-8"), str(beside)
    try:
        config = json.loads(text or "{}")
    except json.JSONDecodeError as error:
        raise ValueError(f"{source} is not valid JSON ({error}); fetch it again.") from error
    if not isinstance(config, dict):
        raise ValueError(f"{source} must be a JSON object, found {type(config).__name__}.")
    return config


def _check(path: Path) -> bytes:
    """The first bytes of a file that may hold weights."""
    if not path.exists():
        raise FileNotFoundError(f"{path} was not found (looked in {path.absolute().parent}).{_hint(path)}")
    if path.is_dir():
        raise ValueError(f"{path} is a folder, a weights file ({', '.join(SUFFIXES)}) was expected.")
    if path.suffix.lower() not in SUFFIXES:
        raise ValueError(f"{path} ends in {path.suffix or 'nothing'}, weights end in one of {', '.join(SUFFIXES)}.")
    with path.open("rb") as file:
        start = file.read(512)
    if start.startswith(LFS_POINTER):
        raise ValueError(
            f"{path} is a Git-LFS pointer of {path.stat().st_size} bytes, not the weights it stands for: run "
            f"`git lfs pull` in its repository, or download the file itself.{_hint(path)}"
        )
    if start.lstrip().lower().startswith(HTML_STARTS):
        raise ValueError(
            f"{path} is a web page that was saved instead of the file: use the page's download link.{_hint(path)}"
        )
    if not start:
        raise ValueError(f"{path} is empty: download it again.{_hint(path)}")
    return start


def _hint(path: Path) -> str:
    where = where_to_get(path.name)
    return f" {where}" if where else ""


def _is_torch(start: bytes) -> bool:
    """Whether a file begins as PyTorch's do; a safetensors header may begin with any byte, but has a { at byte 8."""
    return start.startswith((ZIP_START, PICKLE_START)) and start[8:9] != b"{"


def _truncated(path: Path, found: str) -> ValueError:
    return ValueError(f"{path} is truncated ({found}): download it again.{_hint(path)}")


def _safetensors_header(path: Path) -> dict[str, Any]:
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        start = file.read(1)
        if size < 8 or start != b"{":
            raise ValueError(f"{path} is neither a safetensors nor a PyTorch weights file (unknown first bytes).")
        if 8 + length > size:
            raise _truncated(path, f"{size:,} bytes, its header alone needs {8 + length:,}")
        file.seek(8)
        try:
            header = json.loads(file.read(length))
        except ValueError as error:
            raise ValueError(f"{path} has a damaged safetensors header ({error}): download it again.") from error
    ends = [entry["data_offsets"][1] for key, entry in header.items() if key != "__metadata__"]
    promised = 8 + length + max(ends, default=0)
    if promised > size:
        raise _truncated(path, f"{size:,} bytes, its header promises {promised:,}")
    return header


def _read_safetensors(path: Path) -> Mapping[str, Any]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    _safetensors_header(path)
    try:
        return load_file(path)
    except SafetensorError as error:
        raise ValueError(f"{path} cannot be read as safetensors ({error}): download it again.") from error


def _read_torch(path: Path, is_zip: bool) -> Mapping[str, Any]:
    if path.suffix.lower() in SAFETENSORS_SUFFIXES:
        raise ValueError(f"{path} is a PyTorch file under a safetensors name: rename it to end in .pth.")
    if is_zip and not zipfile.is_zipfile(path):
        raise _truncated(path, f"{path.stat().st_size:,} bytes, without the zip directory at its end")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=is_zip)
    except (EOFError, RuntimeError) as error:
        raise _truncated(path, f"{path.stat().st_size:,} bytes; {_first_sentence(error)}") from error
    except Exception as error:
        if type(error).__name__ != "UnpicklingError":  # of a module that has no business here
            raise
        if not is_zip and "truncated" in str(error):
            raise _truncated(path, f"{path.stat().st_size:,} bytes") from error
        raise ValueError(
            f"{path} holds Python objects other than weights, which are never run here "
            f"({_first_sentence(error)}): use a safetensors version of it."
        ) from error
    if not isinstance(content, Mapping):
        raise ValueError(f"{path} holds a {type(content).__name__}, a state dict of named weights was expected.")
    return content


def _first_sentence(error: Exception) -> str:
    """The part of torch's long messages that names the trouble."""
    text = str(error) or type(error).__name__
    unsupported = text.find("Unsupported")
    return text[max(unsupported, 0) :].split("\n")[0].split(". ")[0][:160]
