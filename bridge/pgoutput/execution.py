"""
The two ways to execute programs: generated Python, and the extension module where there is one.

They give the same events and raise the same errors; tests run over both, and hold both to the plain way.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final, Protocol

from bridge import native
from bridge.pgoutput import compiled
from bridge.pgoutput.glance import Glance, Look
from bridge.pgoutput.look import compile_glance
from bridge.pgoutput.plan import Plan, Stamp
from bridge.pgoutput.program import RowEncoder


class Reader(Protocol):
    """The assembler's loop over frames, executed by the extension."""

    def consume(self, frames: Iterable[memoryview | bytes]) -> None: ...


@dataclass(frozen=True, slots=True)
class Execution:
    """One of the ways."""

    name: str
    """As it is shown to people: `python` or `compiled`."""
    compile_row: Callable[[Plan, bytes], RowEncoder]
    """A plan and a kind of row (of `KINDS`) to what writes such rows."""
    step_over_row: Callable[[bytes, int, Stamp], None]
    """Checks the framing of a row that nobody wants."""
    compile_glance: Callable[[Glance], Look]
    """What filters ask to what looks at rows."""
    reader: Callable[[object, dict[bytes, Any]], Reader] | None
    """From an assembler, and its mapping for the time outside of transactions; None: the assembler's own loop."""


GENERATED: Final = Execution("python", compiled.compile_row, compiled.step_over_row, compile_glance, reader=None)


def _native() -> Execution | None:
    try:
        from bridge.pgoutput import _rows  # noqa: PLC0415 - it may not have been built
    except ImportError:
        return None
    return Execution("compiled", _rows.compile_row, _rows.step_over_row, _rows.compile_glance, _rows.Reader)


NATIVE: Final = _native()
"""None where the extension was not built."""


def preferred() -> Execution:
    """The quickest way that there is and that may be used."""
    return NATIVE if NATIVE is not None and native.ALLOWED else GENERATED


DEFAULT: Final = preferred()
