"""Finished parts of a long job, one JSON line each, so that the same job goes on where it was broken off."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any


class Ledger:
    """Values by key, kept in a file when there is one; a value appears in it when it is finished, and at once.

    path: the file, of this job only; None keeps nothing. Its last line may be incomplete and is then ignored.
    Raises ValueError for a file that holds anything else.
    """

    def __init__(self, path: Path | None = None) -> None:
        self.path = path
        self.values: dict[str, Any] = {} if path is None or not path.is_file() else _read(path)
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            lines = (json.dumps([key, value]) + "\n" for key, value in self.values.items())
            path.write_text("".join(lines), encoding="utf-8")

    def recall(self, key: str, compute: Callable[[], Any]) -> Any:
        """The value of a key; computed and kept when it is not there. Values are what JSON can hold, and NaN."""
        if key not in self.values:
            value = compute()
            if self.path is not None:
                with self.path.open("a", encoding="utf-8") as file:
                    file.write(json.dumps([key, value]) + "\n")
            self.values[key] = value
        return self.values[key]

    def drop(self) -> None:
        """Remove the file: the job is complete."""
        if self.path is not None:
            self.path.unlink(missing_ok=True)


def _read(path: Path) -> dict[str, Any]:
    complete = path.read_text(encoding="utf-8").split("\n")[:-1]
    try:
        return dict(map(json.loads, complete))
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path} is damaged: remove it, and the job begins anew.") from error
