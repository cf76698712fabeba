"""Both ways to execute programs: the room's tests run over each."""

from __future__ import annotations

import pytest

from bridge.pgoutput.execution import GENERATED, NATIVE, Execution

WAYS = [
    pytest.param(GENERATED, id="python"),
    pytest.param(
        NATIVE, id="compiled", marks=pytest.mark.skipif(NATIVE is None, reason="the extension was not built here")
    ),
]


@pytest.fixture(scope="module", params=WAYS)
def execution(request: pytest.FixtureRequest) -> Execution:
    """How rows are written; a module's tests are run once for each."""
    return request.param
