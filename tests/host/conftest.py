"""Tests in this folder need ComfyUI; `python -m tests.host.environment test` starts them in its environment."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from .harness import Host

collect_ignore_glob = [] if "CHOREO_HOST" in os.environ else ["test_*.py"]


@pytest.fixture(scope="session")
def one_host() -> Iterator[Host]:
    from .harness import open_host

    host = open_host()
    yield host
    host.close()


@pytest.fixture
def host(one_host: Host) -> Iterator[Host]:
    """The host with nothing cached."""
    one_host.fresh()
    yield one_host
    one_host.fresh()
