"""Files that appear complete or not at all, and the disk that is full."""

from __future__ import annotations

import errno
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_FULL = {errno.ENOSPC, errno.EFBIG, getattr(errno, "EDQUOT", errno.ENOSPC)}


@contextmanager
def complete_file(path: Path) -> Iterator[Path]:
    """A temporary name beside `path`, which becomes `path` when the block ends well and is removed when it does not.

    Missing folders are made.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}-{uuid.uuid4().hex[:8]}{path.suffix}")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def check_name(path: Path) -> None:
    """Raise now what writing a file there would raise: it is a folder, or its folder cannot be made or written to."""
    if path.is_dir():
        raise ValueError(f"{path} is a folder, but a file is to be written there.")
    free_name(path.with_name(f".{path.name}.check")).unlink()


def free_name(path: Path) -> Path:
    """`path`, or `name-2.suffix`, `name-3.suffix`, … when it is taken; the file is created, empty."""
    path.parent.mkdir(parents=True, exist_ok=True)
    number = 1
    while True:
        candidate = path if number == 1 else path.with_name(f"{path.stem}-{number}{path.suffix}")
        try:
            candidate.touch(exist_ok=False)
            return candidate
        except FileExistsError:
            number += 1


def is_disk_full(error: Exception) -> bool:
    """Whether an error of Python or FFmpeg says that nothing more can be written: disk, quota or file size limit."""
    return getattr(error, "errno", None) in _FULL
