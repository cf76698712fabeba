"""
Whether the process is alive, and whether it is ready. Pure: judged from a status snapshot.

Not live means that a restart may help or that a person must look: the slot is lost, the service has stopped, or the
stream is silent. A target that is down is neither: its trigger pauses, others go on, and a restart would mend nothing
(design 7).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from bridge.observe.status import ServiceState, ServiceStatus

STREAM_SILENT_SECONDS: Final = 90.0
"""
Default of `wal_sender_timeout` (60 s) and half of it again: a living walsender sends a keepalive after half of the
timeout, so by then it or the link is dead.
"""

RECONNECTING_SECONDS: Final = 300.0
"""
How long a lost source leaves the process live. A failover or a server's restart is over by then; a restart of ours
would only repeat what was in flight.
"""


@dataclass(frozen=True, slots=True)
class Health:
    """The two answers, each with what speaks against it; empty when nothing does."""

    not_live: tuple[str, ...] = ()
    not_ready: tuple[str, ...] = ()

    @property
    def live(self) -> bool:
        return not self.not_live

    @property
    def ready(self) -> bool:
        return not self.not_ready


def judge(status: ServiceStatus, now: float) -> Health:
    """
    Judge a snapshot.

    Args:
        status: the snapshot.
        now: wall clock, seconds since 1970.
    """
    not_live: list[str] = []
    not_ready: list[str] = []
    reason = f": {status.reason}" if status.reason else ""
    if status.state is ServiceState.STOPPED and status.reason:
        not_live.append(f"stopped{reason}")
    elif status.slot is not None and status.slot.wal_status == "lost":
        not_live.append(f"slot {status.slot.name} is lost, and changes were missed; see pgbridge check")
    elif status.state is ServiceState.STOPPED:
        not_live.append("stopped")
    elif status.state is ServiceState.STREAMING:
        silent = None if status.last_message_at is None else now - status.last_message_at
        if silent is not None and silent > STREAM_SILENT_SECONDS:
            not_live.append(f"the stream has been silent for {silent:.0f} s")
    elif status.state is ServiceState.RECONNECTING:
        lasted = 0.0 if status.since is None else now - status.since
        if lasted > RECONNECTING_SECONDS:
            not_live.append(f"the source has been out of reach for {lasted:.0f} s{reason}")
    if status.state not in (ServiceState.STREAMING, ServiceState.STOPPED):
        not_ready.append(f"{status.state.value.replace('_', ' ')}{reason}")
    return Health(tuple(not_live), (*not_live, *not_ready))
