"""Which changes of its tables a trigger takes. Pure."""

from __future__ import annotations

from dataclasses import dataclass, replace

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

    def of(self, trigger: str) -> Selection:
        """
        This selection as that trigger's own.

        All filters of a table are asked about one document, in which the name of a trigger has no place.
        """
        return self if self.matcher is None else replace(self, matcher=self.matcher.given("metadata.trigger", trigger))
