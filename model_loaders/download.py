"""Fetch a known file from the Hugging Face hub, because the user asked for it; nothing else here uses the network."""

from __future__ import annotations

import hashlib
from pathlib import Path

from .catalogue import CATALOGUE, KnownFile, known, model_folders

BLOCK = 1 << 22


def download(name: str, folder: str | Path | None = None) -> Path:
    """Download a file or folder of the catalogue and verify it; returns where it lies.

    name:   as in :data:`catalogue.CATALOGUE`.
    folder: the models folder; None takes the first of :func:`catalogue.model_folders`. The file goes into its own
        folder there, where :func:`catalogue.find_file` finds it.
    An interrupted download goes on where it stopped, a complete one is not fetched again. The hub's official client
    does it, so its login, HF_ENDPOINT and HF_HUB_OFFLINE are honoured.

    Raises ValueError for names that are not in the catalogue, not on the hub, or whose size or hash differs, and
    OSError (PermissionError when a login is missing) with what to do.
    """
    entry = known(name)
    if entry is None:
        raise ValueError(f"{name} is not known; known are {', '.join(entry.name for entry in CATALOGUE)}.")
    if not entry.repository:
        raise ValueError(f"{entry.name} cannot be downloaded from here. {entry.address}")
    target = Path(folder or model_folders()[0]).expanduser() / entry.folder
    if entry.parts:
        target /= entry.name
        for part in entry.parts:
            _fetch(entry, part, target)
        return target
    path = _fetch(entry, entry.path, target)
    verify(path, entry)
    return path


def verify(path: Path, entry: KnownFile) -> None:
    """Compare a file with the size and the SHA-256 that the catalogue knows; raises ValueError when they differ."""
    size = path.stat().st_size
    if entry.size is not None and size != entry.size:
        raise ValueError(f"{path} has {size:,} bytes instead of {entry.size:,}: delete it and download it again.")
    if entry.sha256 and (found := _sha256(path)) != entry.sha256:
        raise ValueError(f"{path} has the SHA-256 {found} instead of {entry.sha256}: delete it and download it again.")


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            digest.update(block)
    return digest.hexdigest()


def _fetch(entry: KnownFile, path: str, target: Path) -> Path:
    import huggingface_hub
    from huggingface_hub.errors import (
        EntryNotFoundError,
        GatedRepoError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
    )

    by_hand = f"put {path} into {target} by hand"
    try:
        return Path(huggingface_hub.hf_hub_download(entry.repository, path, local_dir=target))
    except GatedRepoError as error:
        raise PermissionError(
            f"{entry.name} needs its licence accepted at https://huggingface.co/{entry.repository} and a login with "
            "`hf auth login` on this machine; then run the download again."
        ) from error
    except RepositoryNotFoundError as error:
        raise PermissionError(
            f"{entry.repository} was not found on the hub, or it is private: log in with `hf auth login` if you have "
            f"access to it, or {by_hand}."
        ) from error
    except (EntryNotFoundError, OSError) as error:
        if isinstance(error, EntryNotFoundError) and not isinstance(error, LocalEntryNotFoundError):
            raise ValueError(f"{entry.repository} no longer holds {path}; {by_hand}.") from error
        raise OSError(
            f"{entry.name} could not be fetched from {entry.repository} ({_first_line(error)}); what has arrived is "
            f"kept: run the download again, or {by_hand}."
        ) from error


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).strip().splitlines()[0]
