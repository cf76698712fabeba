"""Which tenant an event belongs to, for functions with tenant isolation. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Callable

import msgspec

from bridge.change import Event
from bridge.triggers.forms.members import take_apart

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
        parts = take_apart(complete(event))
        for row in (parts.record, parts.keys):
            if row is not None and (tenant := _tenant(row.get(column))) is not None:
                return tenant
        return None

    return read


def _tenant(value: msgspec.Raw | None) -> str | None:
    if value is None or bytes(value)[:1] in {b"{", b"["}:
        return None
    text = json.loads(bytes(value), parse_int=str, parse_float=lambda _: None)
    return text if isinstance(text, str) and TENANT.fullmatch(text) else None
