"""Where a promoted server left the timeline that was read before: what was written after that it does not have."""

from __future__ import annotations

from bridge.lsn import LSN
from bridge.source.queries import Queries
from bridge.store.protocol import SourceIdentity


async def branched_at(session: Queries, known: SourceIdentity | None, timeline: int) -> LSN | None:
    """
    The position up to which a server shares the timeline of `known`.

    Args:
        session: a replication connection that does not stream.
        known: what was read before.
        timeline: that the server is on.

    Returns:
        None where the server is on that timeline itself, or on an older one; 0/0 where it does not descend from it.

    Raises:
        SourceError: the server refused, or has lost the file that says so.
    """
    if known is None or timeline <= known.timeline:
        return None
    ((_, history),) = await session.query(f"TIMELINE_HISTORY {timeline}")
    return parse_history(history or "").get(known.timeline, LSN(0))


def parse_history(text: str) -> dict[int, LSN]:
    """
    A timeline's history file: by ancestor, where it ends. Pure.

    A line is the ancestor's number, the position, and why it ended (`readTimeLineHistory` in `timeline.c`).
    """
    lines = [line.split(None, 2) for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    return {int(timeline): LSN.parse(position) for timeline, position, *_ in lines}
