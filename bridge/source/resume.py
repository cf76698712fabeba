"""
Where to go on reading, or why not to. Pure.

What the store holds and what the server says must fit together: the slot is confirmed only to what was saved before, so
a slot that stands further, another cluster, or a cluster that went back in time means that changes were missed.
"""

from __future__ import annotations

from bridge.errors import SlotLost
from bridge.lsn import LSN
from bridge.store.protocol import Progress, SourceIdentity

ACCEPT_GAP = (
    "to go on without the changes in between run: pgbridge init --accept-gap, "
    "then have their rows sent again by an UPDATE that touches them"
)


def resume_at(progress: Progress, identity: SourceIdentity, *, slot_confirmed_lsn: LSN, server_lsn: LSN) -> LSN:
    """
    The position to start the stream at.

    Args:
        progress: what the store holds for this slot.
        identity: what the server says it is.
        slot_confirmed_lsn: the slot's `confirmed_flush_lsn`. It may lie behind what we confirmed: the server saves it
            lazily, and a crash takes it back.
        server_lsn: the newest WAL position of the server.

    Raises:
        SlotLost: changes were missed, or would be.
    """
    known, saved = progress.identity, progress.confirmed_lsn
    if known is None or saved is None:
        return slot_confirmed_lsn
    if known.system_identifier != identity.system_identifier:
        raise SlotLost(
            f"the progress of slot {identity.slot!r} was made on the system {known.system_identifier}, "
            f"and this server is {identity.system_identifier}",
            remedy=f"connect to the right server, or, if the data moved here, {ACCEPT_GAP}",
        )
    if known.database != identity.database:
        raise SlotLost(
            f"the progress of slot {identity.slot!r} was made in the database {known.database!r}, "
            f"and this one is {identity.database!r}",
            remedy="set source.dsn to the right database, or give this one a slot of its own in source.slot",
        )
    if identity.timeline < known.timeline:
        raise SlotLost(
            f"this server is on timeline {identity.timeline}, behind timeline {known.timeline} that was read already",
            remedy=f"connect to the promoted server, or {ACCEPT_GAP}",
        )
    if slot_confirmed_lsn > saved:
        raise SlotLost(
            f"the slot {identity.slot!r} stands at {slot_confirmed_lsn}, ahead of {saved} where reading ended: "
            "it was made anew, or somebody else read from it, and the changes in between were not delivered",
            position=saved,
            remedy=ACCEPT_GAP,
        )
    if saved > server_lsn:
        raise SlotLost(
            f"this server's WAL ends at {server_lsn}, before {saved} where reading ended: it went back in time",
            position=saved,
            remedy=f"connect to the right server, or, after a restore, {ACCEPT_GAP}",
        )
    return saved
