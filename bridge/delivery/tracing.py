"""
Trace headers, so that a call shows up in the receiver's traces as one with a beginning. Pure.

Every call gets an id of its own in both forms: W3C's `traceparent` and X-Ray's `X-Amzn-Trace-Id`, which write the same
96 random bits behind the same 32 bits of time. No decision about sampling is made for a function, whose own setting
(active tracing) then holds; `traceparent` has no way to leave it open, and says that the trace may be recorded.
"""

from __future__ import annotations

from collections.abc import Callable

W3C_HEADER = "traceparent"
XRAY_HEADER = "X-Amzn-Trace-Id"


def trace_headers(now: float, random_bits: Callable[[int], int]) -> tuple[str, str]:
    """
    The values of `traceparent` and `X-Amzn-Trace-Id` for one call.

    Args:
        now: seconds since 1970; X-Ray refuses ids that are a month old.
        random_bits: as `random.getrandbits`.
    """
    seconds, number = int(now) & 0xFFFFFFFF, random_bits(96)
    # An id of the caller that is all zeros is none (W3C Trace Context, 3.2.2.4).
    parent = random_bits(64) or 1
    return (
        f"00-{seconds:08x}{number:024x}-{parent:016x}-01",
        f"Root=1-{seconds:08x}-{number:024x};Parent={parent:016x}",
    )
