"""Which changes of its tables a trigger takes. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from bridge.triggers.filter import Matcher


@dataclass(frozen=True, slots=True)
class Selection:
    """
    A trigger's filter: patterns, and columns of which an update must have changed one.

    Attributes:
        matcher: over the event, as it is before columns are left out, renamed or covered; None takes every event.
        changed: column names; empty: any update will do. What can't be told from the rows that were sent counts as
            changed.
    """

    matcher: Matcher | None = None
    changed: frozenset[str] = frozenset()
