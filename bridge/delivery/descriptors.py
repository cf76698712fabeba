"""How many connections the operating system lets this process have."""

from __future__ import annotations

import resource
from typing import Final

RESERVED: Final = 128
"""Descriptors for everything else: the source, the store, the admin port and its visitors, files, resolvers."""
FEWEST: Final = 32


def connections_allowed(wanted: int) -> int:
    """Raise the limit of open files as far as is wanted and allowed; returns the connections that fit under it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return wanted
    needed = wanted + RESERVED
    if soft < needed:
        raised = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (raised, hard))
        except (ValueError, OSError):
            pass  # macOS has a lower limit that getrlimit does not tell; then there are as many as before
        else:
            soft = raised
    return max(FEWEST, min(wanted, soft - RESERVED))
