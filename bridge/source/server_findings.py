"""What is wrong with a server, whatever it is asked for. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from bridge.source import commands, provision
from bridge.source.facts import Facts
from bridge.source.findings import Finding
from bridge.source.slot import SlotState

NEWEST_SERVER: Final = 18
"""The newest major that pgbridge was tested with."""

# AWS refuses signatures that are five minutes off; ages and lags are wrong by as much as the clocks differ.
_CLOCK_SKEW_SECONDS: Final = 5.0


def about_server(seen: Facts, state: SlotState | None) -> Iterator[Finding]:
    """`state` is that of our slot, if there is one."""
    major = seen.version // 10000
    details = {"version": seen.version_text, "database": seen.database, "user": seen.user}
    what = f'connected to PostgreSQL {seen.version_text}, database "{seen.database}"'
    if seen.version < provision.OLDEST_SERVER:
        yield Finding.of(provision.too_old(seen.version))
    elif major > NEWEST_SERVER:
        yield Finding(
            "warning",
            f"{what}, a newer major than pgbridge was tested with ({NEWEST_SERVER})",
            "upgrade pgbridge when a release names it",
            details,
        )
    else:
        yield Finding("ok", what, details=details)
    if seen.wal_level != "logical":
        yield Finding.of(provision.wrong_wal_level(seen.wal_level), wal_level=seen.wal_level)
    else:
        yield Finding("ok", "wal_level is logical", details={"wal_level": seen.wal_level})
    yield from _room(seen, state)
    if seen.plugins is not None and commands.PLUGIN not in [name.strip(' "') for name in seen.plugins.split(",")]:
        yield Finding(
            "error",
            f"output_plugin_libraries does not have {commands.PLUGIN}, so the server refuses to decode with it",
            f"run ALTER SYSTEM SET output_plugin_libraries = {seen.plugins}, {commands.PLUGIN}, and reload",
            {"output_plugin_libraries": seen.plugins},
        )
    if seen.in_recovery:
        yield Finding(
            # Logical decoding on standbys came with 16.
            "warning" if major >= 16 else "error",
            "the server is a standby",
            "name the primary in source.dsn: publications and slots of its own are made there",
        )
    if seen.encoding == "SQL_ASCII":
        yield Finding(
            "warning",
            "the database's encoding is SQL_ASCII: bytes that are not UTF-8 can't stand in JSON as they are",
            "convert the database to UTF8",
            {"server_encoding": seen.encoding},
        )
    yield _clocks(seen)


def _room(seen: Facts, state: SlotState | None) -> Iterator[Finding]:
    """Slots and walsenders: one of each is needed, unless it is in use by a bridge already."""
    for what, setting, most, used, have in (
        ("replication slots", "max_replication_slots", seen.slots, seen.slots_used, state is not None),
        ("walsenders", "max_wal_senders", seen.senders, seen.senders_used, state is not None and state.active_pid),
    ):
        details = {setting: most, "used": used}
        if used < most:
            yield Finding("ok", f"{most - used} of {most} {what} are free", details=details)
        elif have:
            yield Finding("ok", f"all {most} {what} are in use, one of them for pgbridge", details=details)
        else:
            yield Finding(
                "error",
                f"all {most} {what} are in use",
                f"raise {setting} and restart the server, or end what uses them without need",
                details,
            )


def _clocks(seen: Facts) -> Finding:
    ahead = seen.clock_ahead_seconds
    details = {"server_ahead_seconds": round(ahead, 3), "round_trip_seconds": round(seen.round_trip_seconds, 3)}
    if abs(ahead) - seen.round_trip_seconds / 2 > _CLOCK_SKEW_SECONDS:
        return Finding(
            "warning",
            f"the server's clock is {abs(ahead):.1f} seconds {'ahead of' if ahead > 0 else 'behind'} this machine's:"
            " lag and record age will be wrong by as much, and AWS refuses signatures of a clock that is far off",
            "synchronise both clocks (NTP)",
            details,
        )
    return Finding("ok", "the server's clock and this machine's agree", details=details)
