"""
Where to go on reading, or why not to. Pure.

What the store holds and what the server says must fit together: the slot is confirmed only to what was saved before, so
a slot that stands further, another cluster, or a cluster that went back in time means that changes were missed.
"""

from __future__ import annotations

from bridge.change import Position
from bridge.errors import SlotLost, SourceUnavailable
from bridge.lsn import LSN
from bridge.store.protocol import Progress, SourceIdentity

ACCEPT_GAP = (
    "to go on without the changes in between run: pgbridge init --accept-gap, "
    "then have their rows sent again by an UPDATE that touches them (a backfill)"
)

NOT_A_STANDBY = "it is tried again; to go past standbys add target_session_attrs=read-write to source.dsn"


def standby_is_behind(position: LSN) -> SourceUnavailable:
    """
    Nothing is read from it before it has caught up: promoted in the middle of a stream it would go on with other
    transactions at positions that were read already.
    """
    return SourceUnavailable(
        f"this server is a standby, and behind {position} where reading ended", remedy=NOT_A_STANDBY, position=position
    )


def resume_at(
    progress: Progress,
    identity: SourceIdentity,
    *,
    slot_confirmed_lsn: LSN,
    server_lsn: LSN | None,
    branched_at: LSN | None = None,
    in_recovery: bool = False,
) -> LSN:
    """
    The position to start the stream at.

    Args:
        progress: what the store holds for this slot.
        identity: what the server says it is.
        slot_confirmed_lsn: the slot's `confirmed_flush_lsn`. It may lie behind what we confirmed: the server saves it
            lazily, and a crash takes it back.
        server_lsn: where the server's WAL ended, asked after the progress was read; None where that may have moved on
            since.
        branched_at: where a server on a later timeline left the one that was read (`timeline.py`).
        in_recovery: the server is a standby, which may have to catch up first.

    Raises:
        SlotLost: changes were missed, or would be.
        SourceUnavailable: a standby is not as far yet.
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
    newest = max([Position(saved, -1), *progress.checkpoints.values()])
    went_back = server_lsn is not None and newest > Position(server_lsn, -1)
    if in_recovery and (identity.timeline < known.timeline or went_back):
        raise standby_is_behind(newest.commit_lsn)
    if identity.timeline < known.timeline:
        raise SlotLost(
            f"this server is on timeline {identity.timeline}, behind timeline {known.timeline} that was read already",
            remedy=f"connect to the promoted server, or {ACCEPT_GAP}",
        )
    if branched_at is not None and identity.timeline > known.timeline and newest > Position(branched_at, -1):
        # Positions beyond the branch name other transactions here, which would be taken for those that were read.
        raise SlotLost(
            f"this server was promoted from timeline {known.timeline} at {branched_at}, before {newest.commit_lsn}"
            " where reading ended: it lacks changes that were delivered, and has others in their place",
            position=branched_at,
            remedy="connect to a standby that had received them, or, to read again from where the slot stands here,"
            " run: pgbridge init --accept-gap",
        )
    if slot_confirmed_lsn > saved:
        raise SlotLost(
            f"the slot {identity.slot!r} stands at {slot_confirmed_lsn}, ahead of {saved} where reading ended: "
            "it was made anew, or somebody else read from it, and the changes in between were not delivered",
            position=saved,
            remedy=ACCEPT_GAP,
        )
    if went_back:
        raise SlotLost(
            f"this server's WAL ends at {server_lsn}, before {newest.commit_lsn} where reading ended:"
            " it went back in time",
            position=saved,
            remedy=f"connect to the right server, or, after a restore, {ACCEPT_GAP}",
        )
    return saved
