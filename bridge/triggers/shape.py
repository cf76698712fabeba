"""What makes two triggers' events the same bytes. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

OrderBy = Literal["primary_key", "table", "none"] | tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Shape:
    """
    How rows become events: triggers of one shape share each event's bytes, so a row is encoded once for all of them.

    Column names are exact. `include` None means every column. `order_by` names what must stay in order: the replica
    identity's key, the whole table, nothing, or the listed columns.
    """

    include: frozenset[str] | None = None
    exclude: frozenset[str] = frozenset()
    order_by: OrderBy = "primary_key"
