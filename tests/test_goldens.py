"""Golden files of the published implementations: the ones kept here, and folders of more when there are any.

CHOREO_GOLDENS names further folders in the same format, separated as in PATH; without it a folder of shared files
beside the checkout is looked for.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from .goldens.cases import Case
from .goldens.walk import PASS, find_cases, run_case

ROOT = Path(__file__).resolve().parents[1]
KEPT = ROOT / "tests" / "golden_files"
TOPICS = ("pose", "mimicmotion", "stableanimator", "magicpose")

_named = os.environ.get("CHOREO_GOLDENS")
FOLDERS = [Path(folder) for folder in _named.split(os.pathsep)] if _named else [ROOT.parent / "shared" / "goldens"]


def all_cases() -> list[Case]:
    """Cases of all folders; a file that is the same in two folders counts once."""
    found: dict[tuple[str, bytes], Case] = {}
    for folder in (KEPT, *FOLDERS):
        for case in find_cases(folder, TOPICS):
            found.setdefault((case.name, case.path.read_bytes()), case)
    return list(found.values())


@pytest.mark.parametrize("case", all_cases(), ids=lambda case: case.name)
def test_golden(case: Case) -> None:
    result = run_case(case)
    assert result.status == PASS, str(result)


@pytest.mark.parametrize("folder", FOLDERS, ids=str)
def test_more_goldens_are_there(folder: Path) -> None:
    if not folder.is_dir():
        pytest.skip(f"NO GOLDEN FILES in {folder}: only those in tests/golden_files ran. Set CHOREO_GOLDENS for more.")
    assert list(find_cases(folder, TOPICS))
