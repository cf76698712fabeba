"""
Records of running transactions, from which decoding can begin, and the transaction that it has to begin before.

Why somebody wants them written, and when, is in `progress/restart.py`. Before 16 nothing writes one and only that: a
temporary logical slot does when it is made, but takes one of max_replication_slots for it, waits for every transaction
that is open then, and leaves three lines or more in the server's log, each second or two. There the background writer's
round of 15 seconds has to do.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from bridge.errors import SourceError
from bridge.lsn import LSN
from bridge.source.commands import quote_identifier
from bridge.source.queries import Queries

OLDEST_SERVER: Final = 160000
"""The first with a function that writes one."""

MAY_WRITE: Final = """
pg_catalog.has_function_privilege(
    pg_catalog.to_regprocedure('pg_catalog.pg_log_standby_snapshot()'), 'EXECUTE')
AND NOT pg_catalog.pg_is_in_recovery()
"""
"""An expression; not true where the role may not, on a standby, and where there is no such function."""

# Who has written something, so that decoding knows of it. Ids and processes are there for every role to see, since when
# a transaction of somebody else's is open only for pg_read_all_stats.
_OLDEST: Final = """
SELECT t.who, t.database, t.open_seconds
  FROM (SELECT 'server process ' || a.pid AS who, a.datname AS database,
               extract(epoch FROM pg_catalog.clock_timestamp() - a.xact_start) AS open_seconds,
               pg_catalog.age(a.backend_xid) AS age
          FROM pg_catalog.pg_stat_activity a
         WHERE a.backend_xid IS NOT NULL
         UNION ALL
        SELECT 'prepared transaction ' || pg_catalog.quote_literal(p.gid), p.database,
               extract(epoch FROM pg_catalog.clock_timestamp() - p.prepared), pg_catalog.age(p.transaction)
          FROM pg_catalog.pg_prepared_xacts p) t
 ORDER BY t.age DESC LIMIT 1
"""


@dataclass(frozen=True, slots=True)
class OpenTransaction:
    """One that has written something and has not ended."""

    who: str
    """`server process 4711`, or `prepared transaction 'name'`."""
    database: str | None
    open_seconds: float | None
    """Since it began, or was prepared; None where the role may not see that."""

    def __str__(self) -> str:
        where = f' in database "{self.database}"' if self.database else ""
        since = "" if self.open_seconds is None else f", open for {self.open_seconds:.0f} s"
        return f"{self.who}{where}{since}"


async def may_write(session: Queries) -> bool:
    """
    Whether `write` will do.

    Raises:
        SourceError: the server refused.
    """
    ((may,),) = await session.query(f"SELECT {MAY_WRITE}")
    return may == "t"


async def write(session: Queries) -> LSN:
    """
    Have the server write a record; returns its end. It costs the server about as much as an INSERT of one row.

    Raises:
        SourceError: the server refused; see `may_write`.
    """
    ((end,),) = await session.query("SELECT pg_catalog.pg_log_standby_snapshot()")
    if end is None:
        raise SourceError("pg_log_standby_snapshot() said nothing")
    return LSN.parse(end)


async def oldest_open(session: Queries) -> OpenTransaction | None:
    """
    The oldest transaction that has written something, in any database; None where there is none.

    Raises:
        SourceError: the server refused.
    """
    for who, database, open_seconds in await session.query(_OLDEST):
        return OpenTransaction(who or "", database, None if open_seconds is None else float(open_seconds))
    return None


def grant(role: str) -> str:
    """The statement that lets a role `write`."""
    return f"GRANT EXECUTE ON FUNCTION pg_catalog.pg_log_standby_snapshot() TO {quote_identifier(role)}"
