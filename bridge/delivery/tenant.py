"""Which tenant an event belongs to, for functions with tenant isolation. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import orjson

from bridge.change import Event

TENANT = re.compile(r"[A-Za-z0-9_.:/=+@ -]{1,256}")
"""What Lambda takes as a tenant's id."""


def tenant_reader(column: str, complete: Callable[[Event], bytes]) -> Callable[[Event], str | None]:
    """
    Make what reads the tenant of an event from a column.

    Args:
        column: of the table; a delete of which only the key was sent has it only where it is part of the key.
        complete: an event's whole JSON.
    """

    def read(event: Event) -> str | None:
        document: dict[str, Any] = orjson.loads(complete(event))
        for row in (document.get("record"), (document.get("metadata") or {}).get("keys")):
            if isinstance(row, dict) and (tenant := _tenant(row.get(column))) is not None:
                return tenant
        return None

    return read


def _tenant(value: Any) -> str | None:
    if isinstance(value, bool) or not isinstance(value, str | int):
        return None
    text = str(value)
    return text if TENANT.fullmatch(text) else None
