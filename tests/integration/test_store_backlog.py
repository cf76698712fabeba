"""The backlog of a store: the contract for both, then what only tables in PostgreSQL can do or suffer."""

from __future__ import annotations

import random
from dataclasses import replace

import psycopg
import pytest
from psycopg import sql

from bridge.change import Event, Position, Transaction
from bridge.errors import StoreError, StoreFenced
from bridge.lsn import LSN
from bridge.store import segments
from bridge.store.memory import MemoryStore
from bridge.store.postgres import PostgresStore
from bridge.store.protocol import BacklogSize, Parked, SourceIdentity, Store

WHO = SourceIdentity("s", "7584208214917443585", 1, "shop")


def parked(number: int, *, body: bytes = b'{"record":{"id":1},"metadata":{', **changes) -> Parked:
    transaction = Transaction(number * 256, number * 256, 1_700_000_000.25, 0)
    event_id = Position(LSN(number * 256), 3).event_id.encode()
    event = Event(event_id, transaction, 3, b"key", None, "public.users", "insert", body)
    return Parked(event._replace(**changes))


def number_of(each: Parked) -> int:
    return each.event.transaction.commit_lsn // 256


async def whole(store: Store, trigger: str = "t", *, events: int = 1000, body_bytes: int = 1 << 30) -> list[Parked]:
    found: list[Parked] = []
    while page := await store.read_backlog(
        trigger, found[-1].event.id if found else b"", events=events, body_bytes=body_bytes
    ):
        found += page
    return found


async def numbers(store: Store, trigger: str = "t", **limits: int) -> list[int]:
    return [number_of(each) for each in await whole(store, trigger, **limits)]


class Stores:
    """Makes stores of one database, which see the same tables as several processes do."""

    def __init__(self, dsn: str) -> None:
        self.dsn = dsn
        self.made: list[PostgresStore] = []

    async def _supply(self) -> str:
        return self.dsn

    def __call__(self) -> PostgresStore:
        self.made.append(PostgresStore(self._supply, "pgbridge"))
        return self.made[-1]

    async def close(self) -> None:
        for store in self.made:
            await store.close()


@pytest.fixture
async def connect(database):
    make = Stores(database)
    await make().migrate()
    yield make
    await make.close()


@pytest.fixture(params=["memory", "postgres"])
async def processes(request):
    if request.param == "memory":
        first = MemoryStore()
        yield lambda: MemoryStore(first.tables)
        return
    make = Stores(request.getfixturevalue("database"))
    await make().migrate()
    yield make
    await make.close()


@pytest.fixture
async def store(processes):
    store = processes()
    await store.open()
    await store.claim(WHO)
    return store


@pytest.fixture
async def tables(connect):
    store = connect()
    await store.claim(WHO)
    return store


@pytest.fixture
def admin(database):
    with psycopg.connect(database, autocommit=True) as connection:
        yield connection


class TestContract:
    async def test_every_field_survives(self, store):
        given = [
            parked(1),
            parked(2, key=None, barrier=True, action="truncate"),
            parked(3, key=b"\x00\xff\\", old_key=b"", table='public."Účty 😀"', body=b"\x00\xff not JSON"),
            replace(parked(4, body=b""), attempts=7, first_failed_at=1_700_000_001.5),
            parked(5, body=b"x" * 3_000_000),
        ]
        await store.save(None, {}, parked={"t": given})
        found = await whole(store)
        assert [each.event[2:] for each in found] == [each.event[2:] for each in given]
        assert [each.event.id for each in found] == [each.event.id for each in given]
        assert [(each.attempts, each.first_failed_at) for each in found] == [(0, 0)] * 3 + [
            (7, 1_700_000_001.5),
            (0, 0),
        ]
        for was, now in zip(given, found, strict=True):
            assert now.event.position == was.event.position
            assert now.event.transaction.committed_at == was.event.transaction.committed_at

    async def test_pages_come_in_event_order_whatever_order_the_rows_were_saved_in(self, store):
        rng = random.Random(7)
        order = list(range(1, 300))
        rng.shuffle(order)
        while order:
            some, order = order[:17], order[17:]
            await store.save(None, {}, parked={"t": [parked(number) for number in some]})
        assert await numbers(store, events=10) == list(range(1, 300))

    async def test_a_page_ends_at_its_limits_and_holds_at_least_one(self, store):
        await store.save(None, {}, parked={"t": [parked(number, body=b"x" * 100) for number in range(1, 11)]})
        assert len(await store.read_backlog("t", b"", events=3, body_bytes=10_000)) == 3
        assert len(await store.read_backlog("t", b"", events=100, body_bytes=150)) == 2
        assert len(await store.read_backlog("t", b"", events=100, body_bytes=1)) == 1
        assert len(await store.read_backlog("t", parked(8).event.id, events=100, body_bytes=10_000)) == 2
        assert await store.read_backlog("t", parked(10).event.id, events=100, body_bytes=10_000) == []

    async def test_what_is_taken_out_is_gone_and_what_is_not_there_is_no_error(self, store):
        await store.save(None, {}, parked={"t": [parked(number) for number in range(1, 11)]})
        ids = [parked(number).event.id for number in (9, 2, 77, 2)]
        await store.save(None, {}, removed={"t": ids, "unknown": ids})
        assert await numbers(store) == [1, 3, 4, 5, 6, 7, 8, 10]

    async def test_one_save_can_park_anew_what_it_takes_out(self, store):
        await store.save(None, {}, parked={"t": [parked(1), parked(2)]})
        again = replace(parked(1), attempts=3, first_failed_at=5.0)
        await store.save(None, {}, parked={"t": [again]}, removed={"t": [again.event.id]})
        assert [(number_of(each), each.attempts) for each in await whole(store)] == [(1, 3), (2, 0)]

    async def test_sizes_are_told_by_trigger(self, store):
        await store.save(
            None, {}, parked={"t": [parked(1, body=b"x" * 10), parked(2, body=b"x" * 5)], "u": [parked(1)]}
        )
        await store.save(None, {}, removed={"t": [parked(1).event.id], "u": [parked(1).event.id]})
        assert await store.backlogs("s") == {"t": BacklogSize(1, 5)}
        assert await store.backlogs("other") == {}

    async def test_a_save_that_is_refused_parks_and_takes_out_nothing(self, store, processes):
        await store.save(LSN(5), {}, parked={"t": [parked(1)]})
        await processes().claim(WHO)
        with pytest.raises(StoreFenced):
            await store.save(LSN(6), {}, parked={"t": [parked(2)]}, removed={"t": [parked(1).event.id]})
        successor = processes()
        await successor.claim(WHO)
        assert await numbers(successor) == [1]

    async def test_triggers_and_slots_do_not_see_each_other(self, store, processes):
        other = processes()
        await other.claim(replace(WHO, slot="other"))
        await store.save(None, {}, parked={"t": [parked(1)], "u": [parked(2)]})
        await other.save(None, {}, parked={"t": [parked(3)]})
        await other.save(None, {}, removed={"t": [parked(1).event.id]})
        assert [await numbers(store), await numbers(store, "u"), await numbers(other)] == [[1], [2], [3]]
        assert await numbers(store, "none") == []

    async def test_saving_the_same_again_changes_nothing(self, store):
        """A save whose answer was lost is made again, and its rows may stand there already."""
        rows = {"t": [parked(number) for number in range(1, 6)]}
        await store.save(LSN(5), {}, parked=rows)
        if isinstance(store, PostgresStore):
            store._backlog._unsure = True
        await store.save(LSN(5), {}, parked=rows)
        assert await numbers(store) == [1, 2, 3, 4, 5]
        assert (await store.backlogs("s"))["t"].events == 5


class TestTables:
    async def test_a_lost_answer_is_found_out(self, tables, admin, monkeypatch):
        """Given a connection that breaks as the commit is answered, when the save is repeated, then no row is doubled."""
        await tables.save(LSN(4), {}, parked={"t": [parked(0)]})
        note = segments.Segments.written
        broken = iter([True])

        def breaks(*arguments: object) -> None:
            if next(broken, False):
                raise psycopg.OperationalError("the answer was lost")
            note(*arguments)

        monkeypatch.setattr(segments.Segments, "written", breaks)
        rows = {"t": [parked(number) for number in range(1, 6)]}
        tables._backlog._unsure = False
        try:
            await tables.save(LSN(5), {}, parked=rows)
        except StoreError:
            await tables.save(LSN(5), {}, parked=rows)
        assert await numbers(tables) == [0, 1, 2, 3, 4, 5]

    async def test_everything_is_seen_in_one_table_by_people(self, tables, admin):
        await tables.save(None, {}, parked={"t": [parked(1), parked(2)], "u": [parked(3)]})
        rows = admin.execute("SELECT trigger, convert_from(event, 'UTF8') FROM pgbridge.backlog ORDER BY event_id")
        assert [trigger for trigger, _ in rows] == ["t", "t", "u"]

    async def test_the_space_comes_back_when_a_segment_is_delivered(self, tables, admin, monkeypatch):
        monkeypatch.setattr(segments, "SEGMENT_BYTES", 50_000)
        total = 400
        for start in range(0, total, 20):
            rows = [parked(number, body=random.Random(number).randbytes(1000)) for number in range(start, start + 20)]
            await tables.save(None, {}, parked={"t": rows})

        def standing() -> int:
            return admin.execute("SELECT count(*) FROM pgbridge.backlog_segments").fetchone()[0]

        assert standing() == total // 60 + 1
        await tables.save(
            None, {}, removed={"t": [parked(number).event.id for number in range(total - 1) if number != 200]}
        )
        await tables.tidy_backlog()
        await tables.tidy_backlog()
        assert standing() == 2
        assert await numbers(tables) == [200, total - 1]
        await tables.save(None, {}, removed={"t": [parked(200).event.id, parked(total - 1).event.id]})
        await tables.tidy_backlog()
        left = admin.execute("SELECT relname FROM pg_class WHERE relname ~ '^backlog_[0-9]+$'").fetchall()
        assert (standing(), left) == (0, [])
        await tables.save(None, {}, parked={"t": [parked(1)]})
        assert await numbers(tables) == [1]

    async def test_late_rows_are_merged_with_those_of_older_segments(self, tables, monkeypatch):
        """What was in flight when its trigger's changes moved is parked last and read first."""
        monkeypatch.setattr(segments, "SEGMENT_BYTES", 1)
        for group in ([10, 11, 12], [20, 21], [30, 31], [5, 11_000, 25], [40], [13, 26]):
            await tables.save(None, {}, parked={"t": [parked(number) for number in group]})
        order = [5, 10, 11, 12, 13, 20, 21, 25, 26, 30, 31, 40, 11_000]
        for events in (1, 2, 100):
            assert await numbers(tables, events=events) == order
        for number in order:
            page = await tables.read_backlog("t", parked(number).event.id, events=1, body_bytes=1)
            assert [number_of(each) for each in page] == [other for other in order if other > number][:1]

    async def test_a_dump_or_a_long_query_delays_the_dropping_and_nothing_else(self, tables, database):
        await tables.save(None, {}, parked={"t": [parked(1)]})
        with psycopg.connect(database) as reader:
            reader.execute("SELECT count(*) FROM pgbridge.backlog")
            await tables.save(None, {}, removed={"t": [parked(1).event.id]})
            with pytest.raises(StoreError):
                await tables.tidy_backlog()
            await tables.save(None, {}, parked={"t": [parked(2)]})
            assert await numbers(tables) == [2]
            await tables.save(None, {}, removed={"t": [parked(2).event.id]})
        await tables.tidy_backlog()
        assert await numbers(tables) == []

    async def test_a_process_that_lost_its_claim_drops_nothing(self, tables, connect):
        await tables.save(None, {}, parked={"t": [parked(1)]})
        await tables.save(None, {}, removed={"t": [parked(1).event.id]})
        successor = connect()
        await successor.claim(WHO)
        with pytest.raises(StoreFenced):
            await tables.tidy_backlog()
        await successor.save(None, {}, parked={"t": [parked(2)]})
        assert await numbers(successor) == [2]

    async def test_a_row_that_was_not_counted_is_never_dropped(self, tables, admin):
        await tables.save(None, {}, parked={"t": [parked(1)]})
        admin.execute("UPDATE pgbridge.backlog_segments SET events = 0")
        await tables.tidy_backlog()
        assert await tables.backlogs("s") == {"t": BacklogSize(1, len(parked(1).event.body))}
        assert await numbers(tables) == [1]

    async def test_rows_can_be_taken_out_where_every_table_is_published(self, tables, admin):
        admin.execute("CREATE PUBLICATION everything FOR ALL TABLES")
        await tables.save(None, {}, parked={"t": [parked(1)]})
        await tables.save(None, {}, removed={"t": [parked(1).event.id]})
        assert await numbers(tables) == []

    async def test_parking_and_delivering_again_and_again_leaves_nothing_behind(self, tables, admin):
        for round_number in range(30):
            start = round_number * 50
            rows = [parked(number, body=b"x" * 500) for number in range(start, start + 50)]
            await tables.save(None, {}, parked={"t": rows})
            await tables.save(None, {}, removed={"t": [each.event.id for each in rows]})
            await tables.tidy_backlog()
        query = "SELECT count(*), sum(pg_total_relation_size(c.oid)) FROM pg_class c WHERE relname ~ '^backlog' AND relkind = 'r'"
        count, size = admin.execute(query).fetchone()
        assert count == 2
        assert size < 300_000

    async def test_a_database_without_most_of_unicode_keeps_the_names(self, postgres):
        with psycopg.connect(postgres.dsn(), autocommit=True) as admin:
            name = "latin1_backlog"
            create = "CREATE DATABASE {} ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0"
            admin.execute(sql.SQL(create).format(sql.Identifier(name)))

            async def supply() -> str:
                return postgres.dsn(name)

            store = PostgresStore(supply, "pgbridge")
            try:
                await store.migrate()
                await store.claim(WHO)
                await store.save(None, {}, parked={"t": [parked(1, table='public."日本"')]})
                assert [each.event.table for each in await whole(store)] == ['public."日本"']
            finally:
                await store.close()
                admin.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))
