"""A data set by its name or folder, whatever its layout."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .clips import ClipSource
from .folder import FolderClips
from .manifest import MANIFEST
from .published import (
    IMAGES,
    LANDMARKS,
    POSE_VIDEOS,
    TRAIN_SET,
    VIDEOS,
    PictureFolders,
    TikTok,
    VideoPairs,
    is_tiktok,
    picture_folders,
)
from .reading import VIDEO_SUFFIXES, Reading

PUPPETS, LIST_SUFFIX = "puppets", ".txt"


def open_dataset(
    name: str | Path, *, held_out: bool = False, seed: int = 0, videos: str | Path | None = None, **options: Any
) -> ClipSource:
    """The data set of a name or folder (docs/datasets.md).

    name:     "puppets", the drawn characters, or a folder in one of four layouts: made by `choreo dataset build`, or
              as one of the published trainers has it; a .txt file is a list of folders of pictures.
    held_out: the part that is never trained on; see :func:`has_held_out`.
    seed:     puppets only: which characters.
    videos:   where the videos of a built data set lie now.
    options:  the fields of :class:`.reading.Reading`, for folders; puppets take the style alone.
    Raises ValueError or FileNotFoundError with one sentence that says what was looked for.
    """
    reading = Reading(**options)
    if str(name) == PUPPETS:
        from .puppets import Puppets

        return Puppets(held_out=held_out, seed=seed, style=reading.style)
    folder = Path(name)
    if held_out and not has_held_out(folder):
        raise ValueError(
            f'{folder} has no part that is held out, as "{PUPPETS}" and the layout of TikTok have: name another.'
        )
    if folder.is_file() and folder.suffix == LIST_SUFFIX:
        return PictureFolders(folder, reading)
    if not folder.is_dir():
        raise FileNotFoundError(f'There is no data set {folder}: give a folder, or "{PUPPETS}".')
    if (folder / MANIFEST).is_file():
        return FolderClips(folder, reading, videos)
    if (folder / VIDEOS).is_dir() and (folder / POSE_VIDEOS).is_dir():
        return VideoPairs(folder, reading)
    if is_tiktok(folder):
        return TikTok(folder, reading, held_out=held_out)
    if picture_folders(folder):
        return PictureFolders(folder, reading)
    raise ValueError(
        f"{folder} is no data set that is known: looked for {MANIFEST}, for {VIDEOS}/ with {POSE_VIDEOS}/, for "
        f"{TRAIN_SET[0]}/ with {TRAIN_SET[1]}/, and for folders with {IMAGES[0]}/ and {LANDMARKS[0]}/ or {IMAGES[1]}/ "
        f"and {LANDMARKS[1]}/.{_hint(folder)}"
    )


def has_held_out(name: str | Path) -> bool:
    """Whether a data set has a part that is never trained on: the puppets, and folders as of TikTok."""
    return str(name) == PUPPETS or is_tiktok(Path(name))


def _hint(folder: Path) -> str:
    if any(path.suffix.lower() in VIDEO_SUFFIXES for path in folder.rglob("*")):
        return f" It holds videos: make a data set of them with `choreo dataset build {folder} --output FOLDER`."
    return ""
