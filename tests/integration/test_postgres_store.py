"""What only the store in PostgreSQL can do or suffer: migrations, rights, lost connections, other sessions."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import make_conninfo

from bridge.change import Event, Position, Transaction
from bridge.errors import ConfigError, Disposition, InvariantBroken, StoreError, StoreMisconfigured
from bridge.lsn import LSN
from bridge.store import postgres, session
from bridge.store.migrations import latest_version, migration_sql, migrations, record_version, version_table
from bridge.store.postgres import PostgresStore
from bridge.store.protocol import BacklogSize, DeadLetter, KeptPause, LetterFilter, Parked, SourceIdentity

WHO = SourceIdentity("s", "7584208214917443585", 1, "shop")
NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
LETTER = DeadLetter(
    trigger="t",
    event_id=Position(LSN(256), 3).event_id,
    table="public.users",
    event=b'{"record":{"name":"a secret value"}}',
    error="HTTP 500",
    detail="",
    status=500,
    attempts=9,
    first_failed_at=NOON,
    last_failed_at=NOON,
)
PARKED = Parked(
    Event(Position(LSN(6), 0).event_id.encode(), Transaction(6, 5, 0.0, 1), 0, b"k", None, "t", "insert", b"{}"), 1, 1.0
)
NAMES = [migration.name for migration in migrations()]


@pytest.fixture
async def connect(database):
    """Makes stores of the test's database, closed at its end."""
    made: list[PostgresStore] = []

    def make(schema: str = "pgbridge", **parameters: str) -> PostgresStore:
        async def supply() -> str:
            return make_conninfo(database, **parameters)

        made.append(PostgresStore(supply, schema))
        return made[-1]

    yield make
    for store in made:
        await store.close()


@pytest.fixture
async def store(connect):
    store = connect()
    await store.migrate()
    await store.open()
    return store


@pytest.fixture
def admin(database):
    with psycopg.connect(database, autocommit=True) as connection:
        yield connection


def shape(admin: psycopg.Connection, schema: str) -> list[tuple]:
    """Columns, constraints, indexes and functions of a schema, without its name."""
    quoted = sql.Identifier(schema).as_string(admin)
    rows = admin.execute(
        """
        SELECT 'column', table_name::text, column_name::text, data_type::text, is_nullable, column_default, collation_name, identity_generation
        FROM information_schema.columns WHERE table_schema = %(schema)s
        UNION ALL
        SELECT 'constraint', conrelid::regclass::text, conname::text, pg_get_constraintdef(oid), '', '', '', ''
        FROM pg_constraint WHERE connamespace = %(quoted)s::regnamespace
        UNION ALL
        SELECT 'index', tablename, indexname::text, indexdef, '', '', '', '' FROM pg_indexes WHERE schemaname = %(schema)s
        UNION ALL
        SELECT 'function', proname::text, pg_get_functiondef(oid), '', '', '', '', ''
        FROM pg_proc WHERE pronamespace = %(quoted)s::regnamespace
        UNION ALL
        SELECT 'comment', objsubid::text, description, '', '', '', '', '' FROM pg_description
        WHERE objoid = (%(quoted)s || '.dead_letters')::regclass
        """,
        {"schema": schema, "quoted": quoted},
    ).fetchall()
    return sorted(tuple(str(value).replace(schema, "") for value in row) for row in rows)


class TestMigrations:
    async def test_migrating_twice_does_nothing_the_second_time(self, connect):
        store = connect()
        assert await store.migrate() == NAMES
        assert await store.migrate() == []
        await store.open()

    async def test_processes_that_migrate_at_once_do_it_once(self, connect):
        results = await asyncio.gather(*(connect().migrate() for _ in range(6)))
        assert sorted(results) == [[]] * 5 + [NAMES]

    @pytest.mark.parametrize("schema", ["absent", "there but empty"])
    async def test_a_store_without_tables_names_the_command_that_makes_them(self, connect, admin, schema):
        if schema != "absent":
            admin.execute('CREATE SCHEMA "pgbridge"')
        with pytest.raises(StoreMisconfigured, match="run: pgbridge init") as caught:
            await connect().open()
        assert caught.value.disposition is Disposition.OPERATOR

    async def test_tables_that_vanish_are_told_in_the_same_way(self, store, admin):
        admin.execute("DROP SCHEMA pgbridge CASCADE")
        with pytest.raises(StoreMisconfigured, match="run: pgbridge init"):
            await store.claim(WHO)

    async def test_a_pause_kept_before_its_target_was_noted_holds_for_any(self, connect, admin):
        admin.execute("CREATE SCHEMA pgbridge")
        admin.execute(version_table("pgbridge"))
        for migration in migrations():
            if migration.name < "0006":
                admin.execute(migration.statement("pgbridge"))
                admin.execute(record_version("pgbridge", migration))
        admin.execute("INSERT INTO pgbridge.pauses (slot, trigger, reason, remedy) VALUES ('s', 't', 'HTTP 410', 'r')")
        store = connect()
        assert (await store.migrate())[0] == "0006_pauses_by_target"
        pause = (await store.pauses("s"))["t"]
        assert pause == KeptPause("HTTP 410", "r")
        assert pause.holds_for("any")

    async def test_a_schema_made_by_somebody_else_is_filled(self, connect, admin):
        admin.execute("CREATE SCHEMA pgbridge")
        assert await connect().migrate() == NAMES

    async def test_an_older_program_refuses_newer_tables_with_both_versions(self, connect, admin, store):
        admin.execute("INSERT INTO pgbridge.schema_version (version, name) VALUES (99, '0099_later')")
        for attempt in (connect().open, connect().migrate):
            with pytest.raises(StoreMisconfigured, match=rf"version 99.*up to {latest_version()}; run the newer"):
                await attempt()

    async def test_a_migration_that_fails_leaves_nothing_behind(self, connect, admin):
        # A type of this name stands in the way of the last table.
        admin.execute("CREATE SCHEMA pgbridge; CREATE TYPE pgbridge.dead_letters AS ENUM ()")
        with pytest.raises(StoreError):
            await connect().migrate()
        assert admin.execute("SELECT count(*) FROM pg_tables WHERE schemaname = 'pgbridge'").fetchone() == (0,)

    async def test_the_printed_sql_makes_the_same_tables(self, connect, admin):
        await connect("made").migrate()
        admin.execute(migration_sql("printed"))
        assert shape(admin, "printed") == shape(admin, "made")
        assert len(shape(admin, "made")) > 40
        assert await connect("printed").migrate() == []
        await connect("printed").open()

    async def test_a_role_with_the_printed_grants_can_do_everything_but_migrate(self, connect, admin):
        admin.execute("CREATE ROLE least LOGIN")
        try:
            admin.execute(migration_sql("pgbridge", role="least"))
            store = connect(user="least")
            assert await store.migrate() == []
            await store.open()
            await everything(store)
            admin.execute("DELETE FROM pgbridge.schema_version")
            with pytest.raises(StoreMisconfigured, match="grant what `pgbridge init --print-sql` shows"):
                await store.migrate()
        finally:
            admin.execute("DROP OWNED BY least; DROP ROLE least")

    @pytest.mark.parametrize("schema", ["q\"uo'te", "br{0}ace", "per%cent %s", "$function$", "Žluť €", "x" * 63])
    async def test_any_name_that_postgres_takes_will_do_for_the_schema(self, connect, admin, schema):
        store = connect(schema)
        await store.migrate()
        await store.open()
        await everything(store)
        admin.execute(sql.SQL("DROP SCHEMA {} CASCADE").format(sql.Identifier(schema)))
        admin.execute(migration_sql(schema))
        await store.open()

    @pytest.mark.parametrize("schema", ["", "pg_bridge", "é" * 32, "a\0b"])
    def test_other_names_are_refused_by_name(self, connect, schema):
        with pytest.raises(ConfigError, match=r"store\.schema"):
            connect(schema)

    async def test_an_older_server_takes_all_of_it(self, system_database):
        async def supply() -> str:
            return system_database

        store = PostgresStore(supply, "pgbridge")
        await store.migrate()
        await everything(store)
        await store.close()


async def everything(store: PostgresStore) -> None:
    """Every statement that the store knows."""
    await store.claim(WHO)
    await store.save(LSN(5), {"t": Position(LSN(5), 0)}, [LETTER, replace(LETTER, trigger="u")])
    await store.adopt(WHO)
    with pytest.raises(InvariantBroken):
        await store.save(LSN(4), {})
    assert await store.count_letters() == {"t": 1, "u": 1}
    where = LetterFilter("s", None, "t", "public.users", NOON, "http")
    (found,) = await store.letters(where)
    await store.fail_letter_again(found.id, error="", detail="", status=None, request_id=None, log_tail=None)
    async with store.replaying("s", "t") as claim:
        await claim.check()
    assert await store.discard_letters([found.id]) == 1
    await store.save(LSN(6), {"t": Position(LSN(6), 0)}, [LETTER], parked={"t": [PARKED]}, removed={"t": [b"none"]})
    assert await store.backlogs("s") == {"t": BacklogSize(1, 2)}
    assert len(await store.read_backlog("t", b"", events=10, body_bytes=10)) == 1
    await store.save(LSN(6), {}, removed={"t": [PARKED.event.id]})
    await store.tidy_backlog()
    assert await store.backlogs("s") == {}
    await store.forget("s")
    assert (await store.read("s")).epoch == 2


class TestSession:
    async def settings(self, store: PostgresStore, *names: str) -> list[str]:
        async def work(connection):
            return [(await (await connection.execute(f"SHOW {name}")).fetchone())[0] for name in names]

        return await store._progress.run(work)

    async def test_it_is_known_by_name(self, store, admin):
        rows = admin.execute(
            "SELECT DISTINCT application_name FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND datname = current_database()"
        )
        assert rows.fetchall() == [("pgbridge store",)]

    @pytest.mark.parametrize(
        ("configured", "used"), [("off", "on"), ("local", "on"), ("on", "on"), ("remote_apply", "remote_apply")]
    )
    async def test_commits_are_at_least_flushed(self, connect, configured, used):
        store = connect(options=f"-c synchronous_commit={configured}")
        assert await self.settings(store, "synchronous_commit") == [used]

    @pytest.mark.parametrize("name", ["idle_session_timeout", "transaction_timeout"])
    async def test_no_setting_ends_a_session_that_waits(self, connect, name):
        store = connect(options=f"-c {name}=3600s")
        assert await self.settings(store, name) == ["0"]

    async def test_settings_of_the_role_do_not_change_what_statements_mean(self, connect, admin):
        admin.execute(
            "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET default_transaction_isolation = serializable', current_database());"
            "EXECUTE format('ALTER DATABASE %I SET datestyle = German', current_database());"
            "EXECUTE format('ALTER DATABASE %I SET timezone = ''Asia/Kathmandu''', current_database());"
            "EXECUTE format('ALTER DATABASE %I SET bytea_output = escape', current_database());"
            "EXECUTE format('ALTER DATABASE %I SET client_encoding = latin2', current_database()); END $$"
        )
        store = connect()
        await store.migrate()
        assert await self.settings(store, "default_transaction_isolation", "timezone", "client_encoding") == [
            "read committed",
            "UTC",
            "UTF8",
        ]
        await everything(store)

    async def test_functions_of_the_same_name_elsewhere_are_not_called(self, connect, admin):
        admin.execute(
            "CREATE FUNCTION public.octet_length(bytea) RETURNS integer LANGUAGE plpgsql AS 'BEGIN RAISE ''trap''; END';"
            "CREATE TABLE public.slots (); CREATE TABLE public.checkpoints ()"
        )
        store = connect(options="-c search_path=public,pg_catalog")
        await store.migrate()
        await everything(store)

    async def test_saving_often_does_not_grow_the_tables(self, store, admin):
        """While nobody holds back vacuum, dead row versions are removed in passing: no index points at them."""
        await store.claim(WHO)
        for lsn in range(3000):
            await store.save(LSN(lsn), {"t": Position(LSN(lsn), 0), "u": Position(LSN(lsn), 1)})
        sizes = admin.execute("SELECT pg_relation_size('pgbridge.slots'), pg_relation_size('pgbridge.checkpoints')")
        assert max(sizes.fetchone()) <= 4 * 8192


class TestFaults:
    async def refused(self, store: PostgresStore) -> StoreError:
        with pytest.raises(StoreError) as caught:
            await store.claim(WHO)
        return caught.value

    async def test_a_server_that_is_not_there_is_one_sentence_without_the_password(self, connect):
        error = await self.refused(connect(host="127.0.0.1", port="1", password="hunter2"))
        assert error.disposition is Disposition.RETRY
        assert "127.0.0.1" in str(error)
        assert "check store.dsn" in str(error)
        assert "\n" not in str(error)
        assert "hunter2" not in str(error)

    async def test_a_dsn_that_can_not_be_read_is_not_repeated(self):
        async def supply() -> str:
            return "postgresql://u:hunter2@h:notaport/d?what=hunter2"

        with pytest.raises(ConfigError, match=r"store\.dsn") as caught:
            await PostgresStore(supply, "pgbridge").open()
        assert "hunter2" not in str(caught.value)

    async def test_a_connection_that_died_since_is_replaced_without_a_word(self, store, admin):
        await store.claim(WHO)
        await store.letters(LetterFilter())
        cut_off(admin)
        await store.save(LSN(5), {"t": Position(LSN(5), 0)}, [LETTER])
        assert len(await store.letters(LetterFilter())) == 1

    async def test_a_server_that_stops_is_told_and_found_again(self, make_postgres):
        server = make_postgres()

        async def supply() -> str:
            return server.dsn()

        store = PostgresStore(supply, "pgbridge")
        await store.migrate()
        await store.claim(WHO)
        await store.save(LSN(5), {"t": Position(LSN(5), 0)}, [LETTER])
        server.stop("immediate")
        for _ in range(2):
            with pytest.raises(StoreError):
                await store.save(LSN(6), {})
        server.start()
        assert (await store.read("s")).confirmed_lsn == 5
        await store.save(LSN(6), {})
        assert len(await store.letters(LetterFilter())) == 1
        await store.close()

    async def test_a_letter_that_can_not_be_kept_keeps_its_checkpoint_back(self, store, admin):
        """Promise 1: what passes a letter is saved with it or not at all."""
        await store.claim(WHO)
        fail_with(admin, "dead_letters", "53100")
        with pytest.raises(StoreError, match=r"no disk space.*SQLSTATE 53100") as caught:
            await store.save(LSN(5), {"t": Position(LSN(5), 0)}, [LETTER])
        assert "secret" not in str(caught.value)
        assert caught.value.disposition is Disposition.RETRY
        assert (await store.read("s")).checkpoints == {}
        admin.execute("DROP TRIGGER fail ON pgbridge.dead_letters")
        await store.save(LSN(5), {"t": Position(LSN(5), 0)}, [LETTER])

    @pytest.mark.parametrize("code", ["40001", "40P01"])
    async def test_a_transaction_that_loses_against_another_is_repeated(self, store, admin, code):
        await store.claim(WHO)
        fail_with(admin, "dead_letters", code, times=2)
        await store.save(LSN(5), {"t": Position(LSN(5), 0)}, [LETTER])
        assert len(await store.letters(LetterFilter())) == 1

    async def test_one_that_loses_again_and_again_is_told(self, store, admin):
        await store.claim(WHO)
        fail_with(admin, "checkpoints", "40001")
        with pytest.raises(StoreError, match="40001"):
            await store.save(LSN(5), {"t": Position(LSN(5), 0)})

    @pytest.mark.parametrize("code", ["23514", "22012", "XX000", "P0001"])
    async def test_no_value_out_of_a_statement_is_repeated(self, store, admin, code):
        await store.claim(WHO)
        fail_with(admin, "dead_letters", code)
        with pytest.raises(StoreError, match=code) as caught:
            await store.save(LSN(5), {}, [LETTER])
        assert "forced" not in str(caught.value)

    async def test_a_missing_right_names_the_grants(self, store, connect, admin):
        admin.execute("CREATE ROLE nobody LOGIN; GRANT USAGE ON SCHEMA pgbridge TO nobody")
        try:
            error = await self.refused(connect(user="nobody"))
        finally:
            admin.execute("DROP OWNED BY nobody; DROP ROLE nobody")
        assert isinstance(error, StoreMisconfigured)
        assert "permission denied for table slots" in str(error)
        assert "--print-sql" in str(error)

    async def test_a_store_that_is_read_only_asks_for_the_primary(self, store, connect):
        error = await self.refused(connect(options="-c default_transaction_read_only=on"))
        assert "target_session_attrs=read-write" in str(error)

    async def test_waiting_for_a_lock_has_an_end(self, store, admin, connect, monkeypatch):
        await store.claim(WHO)
        monkeypatch.setattr(session, "_LOCK_TIMEOUT", "20ms")
        waiting = connect()
        with admin.transaction():
            admin.execute("SELECT FROM pgbridge.slots FOR UPDATE")
            error = await self.refused(waiting)
        assert "lock" in str(error)
        assert error.disposition is Disposition.RETRY
        assert (await waiting.claim(WHO)).epoch == 2

    async def test_a_server_that_hangs_is_hung_up_on(self, store, admin, monkeypatch):
        """It neither answers nor closes, as a machine that swaps or a paused container."""
        await store.claim(WHO)
        monkeypatch.setattr(session, "_HANG_UP_AFTER_SECONDS", 0.2 - session.STATEMENT_TIMEOUT_SECONDS)
        (pid,) = admin.execute(
            "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'pgbridge store'"
        ).fetchone()
        os.kill(pid, signal.SIGSTOP)
        try:
            with pytest.raises(StoreError, match="does not answer"):
                await store.save(LSN(5), {})
        finally:
            os.kill(pid, signal.SIGCONT)
        monkeypatch.undo()
        await store.save(LSN(6), {})

    async def test_a_predecessor_that_hangs_in_a_save_does_not_keep_the_claim(self, store, connect, monkeypatch):
        """Given a process paused between two statements of a save, when another claims the slot, then it gets it."""
        await store.claim(WHO)
        paused = asyncio.Event()

        async def hang(*_):
            paused.set()
            await asyncio.Event().wait()

        monkeypatch.setattr(store._backlog, "park", hang)
        monkeypatch.setattr(postgres, "_HELD_UP_SECONDS", 0.05)
        saving = asyncio.create_task(store.save(LSN(7), {"t": Position(LSN(6), 0)}, parked={"t": [PARKED]}))
        await paused.wait()
        progress = await connect().claim(WHO)
        assert (progress.epoch, progress.confirmed_lsn) == (2, None), "nothing of that save was kept"
        saving.cancel()
        await asyncio.wait([saving])

    async def test_a_session_of_somebody_else_is_waited_for(self, store, connect, admin, database, monkeypatch):
        monkeypatch.setattr(postgres, "_HELD_UP_SECONDS", 0.05)
        looked = asyncio.Event()
        successor = connect()
        end = successor._end_what_holds_up

        async def end_and_tell(backend):
            await end(backend)
            looked.set()

        monkeypatch.setattr(successor, "_end_what_holds_up", end_and_tell)
        with admin.transaction():
            admin.execute("LOCK pgbridge.slots IN ACCESS EXCLUSIVE MODE")
            claiming = asyncio.create_task(successor.claim(WHO))
            await until(lambda: waiting_for_locks(database))
            looked.clear()
            await looked.wait()
            assert not claiming.done()
        assert (await claiming).epoch == 1

    async def test_a_call_that_is_cancelled_leaves_a_store_that_works(self, store, admin, database):
        await store.claim(WHO)
        with admin.transaction():
            admin.execute("SELECT FROM pgbridge.slots FOR UPDATE")
            saving = asyncio.create_task(store.save(LSN(5), {}, [LETTER]))
            await until(lambda: waiting_for_locks(database))
            saving.cancel()
            with pytest.raises(asyncio.CancelledError):
                await saving
        assert (await store.read("s")).confirmed_lsn is None
        await store.save(LSN(6), {}, [LETTER])

    async def test_listing_does_not_wait_for_saving_nor_saving_for_listing(self, store, admin, database):
        await store.claim(WHO)
        with admin.transaction():
            admin.execute("LOCK pgbridge.dead_letters IN ACCESS EXCLUSIVE MODE")
            listing = asyncio.create_task(store.letters(LetterFilter()))
            await until(lambda: waiting_for_locks(database))
            await store.save(LSN(5), {"t": Position(LSN(5), 0)})
            assert not listing.done()
        assert await listing == []


class TestReplayClaim:
    async def test_a_claim_ends_with_its_connection(self, connect, admin, store):
        """Given a replay whose connection is cut, when another process asks, then it gets the claim, and the first knows."""
        async with store.replaying("s", "t") as claim:
            await claim.check()
            cut_off(admin)
            async with connect().replaying("s", "t") as other:
                await other.check()
                with pytest.raises(StoreError, match="claim to replay was lost"):
                    await lost(claim)
        async with store.replaying("s", "t") as claim:
            await claim.check()

    async def test_a_lock_that_somebody_took_from_us_is_noticed(self, store):
        """As behind a pooler that lends connections by the transaction."""

        async def unlock(connection):
            await connection.execute("SELECT pg_advisory_unlock_all()")

        async with store.replaying("s", "t") as claim:
            await claim._session.run(unlock)
            with pytest.raises(StoreError, match="pooler"):
                await claim.check()

    async def test_schemas_do_not_wait_for_each_other(self, connect):
        async with connect("one").replaying("s", "t"), connect("two").replaying("s", "t") as claim:
            await claim.check()


async def lost(claim) -> None:
    """Ask twice: the first answer may be that of the broken connection."""
    for _ in range(2):
        try:
            await claim.check()
        except StoreError as error:
            seen = error
    raise seen


def cut_off(admin: psycopg.Connection) -> None:
    """End every session of the store, and wait for their end."""
    admin.execute(
        "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity "
        "WHERE datname = current_database() AND application_name = 'pgbridge store'"
    )


def fail_with(admin: psycopg.Connection, table: str, code: str, *, times: int = 10**6) -> None:
    """Make writing to a table fail, so often; a sequence counts because it survives the rollbacks."""
    admin.execute(
        "CREATE SEQUENCE pgbridge.failures; CREATE FUNCTION pgbridge.fail() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
        f"IF nextval('pgbridge.failures') <= {times} THEN RAISE 'forced: %', NEW USING errcode = '{code}'; END IF; "
        f"RETURN NEW; END $$; CREATE TRIGGER fail BEFORE INSERT ON pgbridge.{table} "
        "FOR EACH ROW EXECUTE FUNCTION pgbridge.fail()"
    )


def waiting_for_locks(dsn: str) -> bool:
    # A connection of its own each time: inside a transaction pg_stat_activity stays as it was first seen.
    with psycopg.connect(dsn, autocommit=True) as observer:
        row = observer.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
        ).fetchone()
    return row[0] > 0


async def until(condition: Callable[[], bool]) -> None:
    """Ask the server until it says so; the test's own timeout bounds it."""
    while not condition():
        await asyncio.sleep(0.005)
