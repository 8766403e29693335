"""Model folders: registered with the host beside those of the user, listed for the widgets, and looked up."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path, PureWindowsPath

import folder_paths

from ..model_loaders.catalogue import where_to_get
from .progress import tell

TINY = "tiny (built in)"
WEIGHTS = frozenset({".safetensors", ".sft", ".pth", ".pt", ".bin", ".ckpt"})
POSE_NETWORKS = "dwpose"
FACE_NETWORKS = "insightface"
STABLEANIMATOR = "stable_animator"
MAGICPOSE = "magicpose"
ONNX = frozenset({".onnx"})
FOLDERS = {
    STABLEANIMATOR: WEIGHTS,
    "mimicmotion": WEIGHTS,
    MAGICPOSE: WEIGHTS | {".th"},
    POSE_NETWORKS: ONNX,
    FACE_NETWORKS: ONNX,
}
# where other node packs keep the same files: below the folders of another key
_ELSEWHERE = {
    POSE_NETWORKS: (("custom_nodes", "comfyui_controlnet_aux/ckpts/yzd-v/DWPose"), (STABLEANIMATOR, "DWPose")),
    FACE_NETWORKS: ((STABLEANIMATOR, "antelopev2"),),
}


def register() -> None:
    """Make the host know :data:`FOLDERS`; folders and file types that are registered already stay as they are."""
    for key, suffixes in FOLDERS.items():
        folder_paths.add_model_folder_path(key, str(Path(folder_paths.models_dir) / key))
        for other, inside in _ELSEWHERE.get(key, ()):
            for folder in (Path(root) / inside for root in folder_paths.get_folder_paths(other)):
                if folder.is_dir():
                    folder_paths.add_model_folder_path(key, str(folder))
        # a new set, because the host's own keys share one; an empty one would list every file
        paths, known = folder_paths.folder_names_and_paths[key]
        folder_paths.folder_names_and_paths[key] = (paths, set(known) | suffixes)


def list_files(key: str) -> list[str]:
    """The names for a list widget: the files of a model folder, then :data:`TINY`."""
    return [*folder_paths.get_filename_list(key), TINY]


def preferred(names: list[str], wanted: str) -> str:
    """What a new node's list widget shows: the file `wanted` wherever it lies, else the first."""
    return next((name for name in names if Path(name).name == wanted), names[0])


def missing(key: str, *names: str | None) -> str | None:
    """Why files of a model folder cannot be used, as a sentence for the user; None when all are there.

    A name is None, and nothing is wrong yet, where a link will bring it.
    """
    gone = [n for n in names if n not in (None, TINY) and _located(key, n) is None]
    return not_found(gone, folder_paths.get_folder_paths(key)) if gone else None


def not_found(names: Sequence[str], folders: Iterable[str], what: str = "") -> str:
    """A sentence: these files or folders (`what` tells more of them) are missing, and where they can be had."""
    were = "was" if len(names) == 1 else "were"
    advice = where_to_get(*(Path(name).name for name in names)) or "Choose another that is there."
    places = " or ".join(folders)
    return (
        f"{' and '.join(names)}{what} {were} not found in {places}. {advice.rstrip('.')}. "
        "Then press R to refresh the lists."
    )


def find(key: str, name: str, tiny: Path) -> Path:
    """The path of a chosen file, `tiny` for :data:`TINY`; FileNotFoundError says where it was looked for."""
    if name == TINY:
        return tiny
    problem = missing(key, name)
    if problem:
        raise FileNotFoundError(problem)
    path = _located(key, name)
    if folder_paths.get_full_path(key, name) is None:
        tell(f"{name} is not there; {path} is taken, the only file of that name.")
    return path


def _located(key: str, name: str) -> Path | None:
    """The file of a name; where it is not, the only one that is called the same in any folder of the key.

    Workflows of other people name folders that this user may have called otherwise.
    """
    names = [other for other in folder_paths.get_filename_list(key) if _file_name(other) == _file_name(name)]
    found = folder_paths.get_full_path(key, name)
    if found is None and len(names) == 1:
        found = folder_paths.get_full_path(key, names[0])
    return None if found is None else Path(found)


def _file_name(name: str) -> str:
    return PureWindowsPath(name).name  # either slash may separate folders


def fingerprint(key: str, *names: str | None) -> str:
    """A text that changes when one of the files does; names are None where links bring them."""
    facts = []
    for name in names:
        path = None if name in (None, TINY) else _located(key, name)
        facts.append(f"{name} {path.stat().st_mtime_ns if path else ''}")
    return "; ".join(facts)
