"""
Whether compiled parts may be used.

A few hot paths have an extension module beside their Python; it is built where pgbridge was installed with a C compiler
at hand, and gives the same results in a fraction of the time. `PGBRIDGE_PURE=1` leaves it aside, to compare or to
rule it out; then the event loop is asyncio's own as well (`cli/run.py`).
"""

from __future__ import annotations

import os
from typing import Final

ALLOWED: Final = not os.environ.get("PGBRIDGE_PURE")
"""Asked by each room that has such a part, when it is imported."""
