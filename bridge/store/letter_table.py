"""The dead letters in PostgreSQL: found page by page, counted, tried again, discarded. A save puts them there."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any, Final

from psycopg import AsyncConnection, sql

from bridge.store.protocol import DeadLetter, LetterFilter, LetterKeys, LetterSurvey
from bridge.store.session import Session
from bridge.store.statements import Statements

# A page of letters ends at whichever comes first. At least one letter is in it, whatever its size.
PAGE_ROWS: Final = 1000
PAGE_BYTES: Final = 8 * 1024 * 1024

# Deleting a million rows in one statement would hold their locks, and run into the statement timeout.
_DISCARD_ROWS: Final = 5000

_COLUMNS: Final = (
    "id, trigger, event_id, table_name, {whole}, error, status, attempts, first_failed_at, last_failed_at, request_id, "
    "log_tail, ordering_key, old_ordering_key, barrier, report"
)
_WHOLE: Final = sql.SQL(_COLUMNS).format(whole=sql.SQL("event, detail"))
_OUTLINE: Final = sql.SQL(_COLUMNS).format(whole=sql.SQL("''::bytea, ''"))
_WHOLE_SIZE: Final = sql.SQL("(octet_length(event) + octet_length(detail) + coalesce(octet_length(log_tail), 0))")
_OUTLINE_SIZE: Final = sql.SQL("coalesce(octet_length(log_tail), 0)")


class LetterTable:
    """
    Args:
        session: for these letters alone, as listing a million of them takes its time.
        statements: with the schema's name in them.
    """

    def __init__(self, session: Session, statements: Statements) -> None:
        self._session = session
        self._statements = statements

    async def find(self, where: LetterFilter, *, limit: int | None = None) -> Sequence[DeadLetter]:
        """Matching letters in event order; as many as there are, so give a limit or iterate."""
        found: list[DeadLetter] = []
        while limit is None or len(found) < limit:
            rows = PAGE_ROWS if limit is None else min(PAGE_ROWS, limit - len(found))
            page = await self._page(where, found[-1] if found else None, rows, whole=True)
            if not page:
                break
            found += page
        return found

    async def iterate(self, where: LetterFilter, *, whole: bool = True) -> AsyncIterator[DeadLetter]:
        """Page by page, each from where the last one ended: no transaction stays open in between."""
        page = await self._page(where, None, PAGE_ROWS, whole=whole)
        while page:
            for letter in page:
                yield letter
            page = await self._page(where, page[-1], PAGE_ROWS, whole=whole)

    async def survey(self, where: LetterFilter) -> LetterSurvey:
        """How many match, and the newest of them."""

        async def work(connection: AsyncConnection[Any]) -> LetterSurvey:
            conditions, parameters = self._conditions(where)
            query = self._statements.fill("survey_letters", conditions=conditions)
            rows = await (await connection.execute(query, parameters)).fetchall()
            return LetterSurvey(
                {trigger: count for trigger, count, _ in sorted(rows)}, max((newest for *_, newest in rows), default=0)
            )

        return await self._session.run(work)

    async def keys(self, slot: str, trigger: str) -> LetterKeys:
        """The keys of a trigger's letters; see the protocol."""

        async def work(connection: AsyncConnection[Any]) -> LetterKeys:
            async with connection.cursor(binary=True) as cursor:
                await cursor.execute(self._statements["letter_keys"], {"slot": slot, "trigger": trigger})
                rows = await cursor.fetchall()
            keys = frozenset(bytes(key) for key, _ in rows if key is not None)
            return LetterKeys(keys, any(barrier for _, barrier in rows))

        return await self._session.run(work)

    async def mark_reported(self, ids: Sequence[int]) -> None:
        """The on-failure destination knows."""

        async def work(connection: AsyncConnection[Any]) -> None:
            await connection.execute(self._statements["mark_reported"], {"ids": sorted(ids)})

        await self._session.run(work)

    async def discard(self, ids: Sequence[int]) -> int:
        """Delete by id; returns how many there were."""

        async def discard_some(some: list[int]) -> int:
            async def work(connection: AsyncConnection[Any]) -> int:
                return (await connection.execute(self._statements["discard_letters"], {"ids": some})).rowcount

            return await self._session.run(work)

        # In order, so that two who delete the same do not wait for each other in a ring.
        ordered = sorted(set(ids))
        parts = [ordered[start : start + _DISCARD_ROWS] for start in range(0, len(ordered), _DISCARD_ROWS)]
        return sum([await discard_some(part) for part in parts])

    async def fail_again(
        self,
        letter_id: int,
        *,
        error: str,
        detail: str,
        status: int | None,
        request_id: str | None,
        log_tail: str | None,
    ) -> None:
        """One more attempt, and the new reason; see the protocol."""

        async def work(connection: AsyncConnection[Any]) -> None:
            text = self._session.outgoing
            await connection.execute(
                self._statements["fail_letter_again"],
                {
                    "id": letter_id,
                    "error": text(error),
                    "detail": text(detail),
                    "status": status,
                    "request_id": None if request_id is None else text(request_id),
                    "log_tail": None if log_tail is None else text(log_tail),
                },
            )

        # Repeated where the answer was lost, the attempt may count twice: better that than the old reason.
        await self._session.run(work)

    async def _page(self, where: LetterFilter, after: DeadLetter | None, rows: int, *, whole: bool) -> list[DeadLetter]:
        async def work(connection: AsyncConnection[Any]) -> list[DeadLetter]:
            conditions, parameters = self._conditions(where)
            if after is not None:
                conditions += sql.SQL(" AND (event_id, id) > (%(after_event_id)s, %(after_id)s)")
                parameters |= {"after_event_id": after.event_id, "after_id": after.id}
            query = self._statements.fill(
                "page_of_letters",
                columns=_WHOLE if whole else _OUTLINE,
                size=_WHOLE_SIZE if whole else _OUTLINE_SIZE,
                conditions=conditions,
            )
            # Binary, for the events: as text, bytea comes in hexadecimal.
            async with connection.cursor(binary=True) as cursor:
                await cursor.execute(query, {**parameters, "rows": rows, "bytes": PAGE_BYTES})
                return [self._letter(row) for row in await cursor.fetchall()]

        return await self._session.run(work)

    def _letter(self, row: Sequence[Any]) -> DeadLetter:
        text = self._session.incoming
        (
            letter_id, trigger, event_id, table, event, detail, error, status, attempts, first_failed_at,
            last_failed_at, request_id, log_tail, ordering_key, old_ordering_key, barrier, report,
        ) = row  # fmt: skip
        return DeadLetter(
            id=letter_id,
            trigger=trigger,
            event_id=event_id,
            table=text(table),
            event=event,
            error=text(error),
            detail=text(detail),
            status=status,
            attempts=attempts,
            first_failed_at=first_failed_at,
            last_failed_at=last_failed_at,
            request_id=None if request_id is None else text(request_id),
            log_tail=None if log_tail is None else text(log_tail),
            ordering_key=ordering_key,
            old_ordering_key=old_ordering_key,
            barrier=barrier,
            report=None if report is None else text(report),
        )

    def _conditions(self, where: LetterFilter) -> tuple[sql.Composed, dict[str, object]]:
        """Only the conditions that were given: the planner can then choose an index for them."""
        text = self._session.outgoing
        given: list[tuple[str, str, object]] = [
            ("slot = %(slot)s", "slot", where.slot),
            ("id = ANY (%(ids)s::bigint[])", "ids", None if where.ids is None else list(where.ids)),
            ("trigger = %(trigger)s", "trigger", where.trigger),
            ("table_name = %(table)s", "table", None if where.table is None else text(where.table)),
            ("first_failed_at >= %(since)s", "since", where.since),
            # Not LIKE: what was asked for may hold its wildcards.
            (
                "strpos(lower(error), lower(%(error)s)) > 0",
                "error",
                None if where.error is None else text(where.error),
            ),
            ("id <= %(up_to_id)s", "up_to_id", where.up_to_id),
            # The parameter is used up by a condition that always holds; the other one is what the index is made for.
            ("report IS NOT NULL AND %(unreported)s", "unreported", where.unreported or None),
        ]
        held = [(condition, name, value) for condition, name, value in given if value is not None]
        texts = [sql.SQL(condition) for condition, _, _ in held] or [sql.SQL("true")]
        return sql.SQL(" AND ").join(texts), {name: value for _, name, value in held}


def letter_row(slot: str, letter: DeadLetter, text: Callable[[str], str]) -> dict[str, object]:
    """What `set_aside` is given for a letter; `text` makes one that the database can hold."""
    return {
        "slot": slot,
        "trigger": letter.trigger,
        "event_id": letter.event_id,
        "table": text(letter.table),
        "event": letter.event,
        "error": text(letter.error),
        "detail": text(letter.detail),
        "status": letter.status,
        "request_id": None if letter.request_id is None else text(letter.request_id),
        "log_tail": None if letter.log_tail is None else text(letter.log_tail),
        "attempts": letter.attempts,
        "first_failed_at": letter.first_failed_at,
        "last_failed_at": letter.last_failed_at,
        "ordering_key": letter.ordering_key,
        "old_ordering_key": letter.old_ordering_key,
        "barrier": letter.barrier,
        "report": None if letter.report is None else text(letter.report),
    }
