"""
How long to wait before a call is made again. Pure: the random source and the time come in as arguments.

Full jitter (a uniform draw between nothing and a ceiling that doubles) spreads callers that failed together better
than a jitter around a fixed step; the ceiling starts at 0.2 s and stops at 60 s.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Final

BASE_SECONDS: Final = 0.2
CEILING_SECONDS: Final = 60.0
RETRY_AFTER_LIMIT_SECONDS: Final = 300.0
"""
The longest wait that a target may ask for. A mistaken or hostile `Retry-After: 86400` must not hold changes back for a
day; asking an honest one again every five minutes costs it nothing.
"""

_RETRY_AFTER_SPREAD: Final = 0.1  # those who were told the same moment should not all come back in it
_DELAY_SECONDS = re.compile(r"[0-9]{1,18}(?:\.[0-9]{1,9})?", re.ASCII)


def ceiling_seconds(attempt: int) -> float:
    """The most that is waited after this many failed attempts, counted from 1."""
    if attempt < 1:
        raise ValueError(f"attempts are counted from 1, not {attempt}")
    # The exponent is bounded first: 2.0 ** 1100 is an OverflowError, and busy targets may be asked that often.
    return float(min(CEILING_SECONDS, BASE_SECONDS * 2.0 ** min(attempt - 1, 32)))


def wait_seconds(attempt: int, random: Callable[[], float], retry_after_seconds: float | None = None) -> float:
    """
    How long to wait after the `attempt`th failed attempt.

    Args:
        attempt: counted from 1.
        random: answers a number in [0, 1), as `random.random` does.
        retry_after_seconds: what the target asked for, as `parse_retry_after` gives it. Never undercut: the wait is
            this and up to a tenth more, or the back-off where that is longer.
    """
    wait = random() * ceiling_seconds(attempt)
    if retry_after_seconds is None:
        return wait
    asked = clamp_retry_after(retry_after_seconds)
    return max(wait, asked * (1.0 + _RETRY_AFTER_SPREAD * random()))


def clamp_retry_after(seconds: float) -> float:
    """Bring what a target asked for into 0 … 300 s."""
    return min(max(seconds, 0.0), RETRY_AFTER_LIMIT_SECONDS)


def parse_retry_after(value: str | None, now: float) -> float | None:
    """
    Read a `Retry-After` header (RFC 9110, 10.2.3): seconds, or an HTTP date in any of its three forms.

    Fractions of a second are accepted, because rate limiters send them. A date in the past is 0.

    Args:
        value: the header as sent, or None.
        now: seconds since 1970, UTC.

    Returns:
        Seconds from now, clamped; None when there is no header or it can't be read, which then counts as not sent.
    """
    if value is None:
        return None
    text = value.strip()
    if _DELAY_SECONDS.fullmatch(text):
        return clamp_retry_after(float(text))
    try:
        moment = parsedate_to_datetime(text)
    except ValueError:
        return None
    if moment.tzinfo is None:
        # asctime dates carry no zone, and "-0000" parses as none; HTTP dates are UTC.
        moment = moment.replace(tzinfo=UTC)
    try:
        return clamp_retry_after(moment.timestamp() - now)
    except (OverflowError, ValueError):
        return None
