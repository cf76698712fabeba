"""Makes the package of the chaos suite importable, and gives its tests a server."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from bridge.local.postgres import EmbeddedPostgres

sys.path.insert(0, str(Path(__file__).parent))
from chaos.rig import SERVER_SETTINGS


@pytest.fixture(scope="session")
def chaos_server() -> Iterator[EmbeddedPostgres]:
    """One server for all runs; some of them restart it."""
    with EmbeddedPostgres(settings=SERVER_SETTINGS) as server:
        yield server
