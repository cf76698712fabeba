"""The replication connection against real servers, and against one that only refuses."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import os
import signal
import struct
import time
from collections.abc import AsyncIterator, Callable

import psycopg
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from psycopg import sql

from bridge.errors import (
    ConfigError,
    InvariantBroken,
    SlotInUse,
    SlotLost,
    SourceCredentialsRefused,
    SourceError,
    SourceMisconfigured,
    SourceUnavailable,
)
from bridge.lsn import LSN
from bridge.pgoutput.frames import XLOG_DATA_HEADER_BYTES, Keepalive, XLogData, decode_frame
from bridge.source import commands, libpq
from bridge.source.connection import ReplicationConnection
from bridge.source.session import PINNED, connected

PUBLICATION = "Events of the shop"


class Database:
    """A database with a table, a publication and a slot, and the superuser's session in it."""

    def __init__(self, dsn: str, admin: psycopg.Connection) -> None:
        self.dsn = dsn
        self.admin = admin
        self.slot = f"slot_{admin.info.dbname}"
        admin.execute("CREATE TABLE items (id bigint PRIMARY KEY, name text)")
        admin.execute(sql.SQL("CREATE PUBLICATION {} FOR TABLE items").format(sql.Identifier(PUBLICATION)))
        admin.execute(commands.create_slot_sql(self.slot, server_version=admin.info.server_version))

    def insert(self, first: int, last: int, name: str = "x") -> None:
        self.admin.execute(
            "INSERT INTO items SELECT i, %s FROM generate_series(%s::int, %s::int) i", (name, first, last)
        )

    def confirmed(self) -> LSN:
        (lsn,) = self.admin.execute(
            "SELECT confirmed_flush_lsn::text FROM pg_replication_slots WHERE slot_name = %s", (self.slot,)
        ).fetchone()
        return LSN.parse(lsn)

    def current(self) -> LSN:
        (lsn,) = self.admin.execute("SELECT pg_current_wal_insert_lsn()::text").fetchone()
        return LSN.parse(lsn)


@pytest.fixture
def shop(database: str):
    with psycopg.connect(database, autocommit=True) as admin:
        yield Database(database, admin)


@pytest.fixture(params=["embedded", "system"])
def any_shop(request: pytest.FixtureRequest):
    """The same on the newest major and on an older one."""
    dsn = request.getfixturevalue("database" if request.param == "embedded" else "system_database")
    with psycopg.connect(dsn, autocommit=True) as admin:
        yield Database(dsn, admin)


@pytest.fixture(params=["compiled", "python"])
def both_ways(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch):
    """Messages are taken from libpq by the extension, and by psycopg."""
    if request.param == "python":
        monkeypatch.setattr(libpq, "_copy_data", None)
    elif libpq._copy_data is None:
        pytest.skip("the extension was not built here")


@contextlib.asynccontextmanager
async def opened(dsn: str, **arguments: object) -> AsyncIterator[ReplicationConnection]:
    connection = await ReplicationConnection.open(dsn, **arguments)
    try:
        yield connection
    finally:
        await connection.close()


@contextlib.asynccontextmanager
async def streaming(shop: Database, **arguments: object) -> AsyncIterator[ReplicationConnection]:
    async with opened(shop.dsn, **arguments) as connection:
        await connection.start(shop.slot, PUBLICATION, LSN(0))
        yield connection


class Inserted:
    """Collects the first column of each inserted row, as it comes."""

    def __init__(self) -> None:
        self.ids: list[int] = []

    def add(self, frame: memoryview) -> None:
        message = bytes(frame[XLOG_DATA_HEADER_BYTES:]) if frame[0] == ord("w") else b""
        if message[:1] == b"I":
            # 'I' oid 'N' columns, then 't' length text
            (length,) = struct.unpack_from(">i", message, 9)
            self.ids.append(int(message[13 : 13 + length]))


async def read_rows(connection: ReplicationConnection, count: int, **limits: int) -> list[int]:
    rows = Inserted()
    while len(rows.ids) < count:
        for frame in await connection.frames(**limits):
            rows.add(frame)
    return rows.ids


async def read_to_the_end(connection: ReplicationConnection, each: Callable[[memoryview], None]) -> None:
    """Returns never: the stream's end is an error."""
    while True:
        for frame in await connection.frames(max_frames=100):
            each(frame)


async def read_tags(connection: ReplicationConnection, last: str) -> str:
    """The tags of the pgoutput messages up to and with the first of kind `last`."""
    tags = ""
    while last not in tags:
        for frame in await connection.frames():
            match decode_frame(frame):
                case XLogData(data=data):
                    tags += chr(data[0])
                case Keepalive():
                    tags += "k"
    return tags


class TestOpening:
    async def test_identity_is_what_the_server_says_of_itself(self, any_shop: Database):
        async with opened(any_shop.dsn) as connection:
            identity = connection.identity
        (system_identifier,) = any_shop.admin.execute(
            "SELECT system_identifier::text FROM pg_control_system()"
        ).fetchone()
        (timeline,) = any_shop.admin.execute("SELECT timeline_id FROM pg_control_checkpoint()").fetchone()
        assert identity.system_identifier == system_identifier
        assert identity.timeline == timeline
        assert identity.database == any_shop.admin.info.dbname
        assert identity.server_version == any_shop.admin.info.server_version
        assert LSN(0) < identity.wal_flush_lsn <= any_shop.current()

    async def test_wal_sender_timeout_is_told_in_seconds(self, shop: Database):
        async with opened(shop.dsn) as connection:
            assert connection.wal_sender_timeout_seconds == 60
        async with opened(f"{shop.dsn}?options=-c%20wal_sender_timeout%3D1500") as connection:
            assert connection.wal_sender_timeout_seconds == 1.5
        async with opened(f"{shop.dsn}?options=-c%20wal_sender_timeout%3D0") as connection:
            assert connection.wal_sender_timeout_seconds == 0

    async def test_application_name_of_the_dsn_wins(self, shop: Database):
        async with opened(shop.dsn, application_name="ours") as connection:
            assert await connection.query("SHOW application_name") == [("ours",)]
        async with opened(f"{shop.dsn}?application_name=theirs", application_name="ours") as connection:
            assert await connection.query("SHOW application_name") == [("theirs",)]

    async def test_settings_of_role_and_database_change_no_value(self, any_shop: Database):
        admin = any_shop.admin
        admin.execute("SET datestyle = 'ISO, MDY'")
        admin.execute(
            "CREATE TABLE odd (id int PRIMARY KEY, d date, ts timestamptz, i interval, f float8, b bytea, m money, r regclass)"
        )
        admin.execute(sql.SQL("ALTER PUBLICATION {} ADD TABLE odd").format(sql.Identifier(PUBLICATION)))
        role = f"hostile_{admin.info.dbname}"
        admin.execute(f"CREATE ROLE {role} LOGIN SUPERUSER")
        hostile = {
            "datestyle": "'German, DMY'",
            "intervalstyle": "'iso_8601'",
            "timezone": "'Asia/Kathmandu'",
            "extra_float_digits": "-15",
            "bytea_output": "'escape'",
            "lc_monetary": "'C.UTF-8'",
            "client_encoding": "'LATIN1'",
            "search_path": "'public'",
            "quote_all_identifiers": "on",
            "statement_timeout": "1",
            "lock_timeout": "1",
            "idle_in_transaction_session_timeout": "1",
            "idle_session_timeout": "1",
            "client_min_messages": "error",
            "default_transaction_read_only": "on",
            "default_transaction_isolation": "serializable",
        }
        if admin.info.server_version >= 170000:
            hostile["transaction_timeout"] = "1"
        for name, value in hostile.items():
            admin.execute(f"ALTER ROLE {role} SET {name} = {value}")
        dsn = f"{any_shop.dsn}?user={role}"
        try:
            async with opened(dsn) as connection:
                for name, value in PINNED.items():
                    # current_setting shows the empty search_path as the empty name that it is
                    ((shown,),) = await connection.query(f"SELECT current_setting('{name}')")
                    assert shown.replace('""', "") == value
                await connection.start(any_shop.slot, PUBLICATION, LSN(0))
                admin.execute(
                    "INSERT INTO odd VALUES (1, '2026-02-01', '2026-02-01 10:00:00.5+02', '1 day 2 hours', 0.1::float8 + 0.2,"
                    " '\\x00ff', 12.5, 'items')"
                )
                message = b""
                while not message.startswith(b"I"):
                    frames = await connection.frames()
                    messages = [bytes(frame[XLOG_DATA_HEADER_BYTES:]) for frame in frames if frame[0] == ord("w")]
                    message = next((m for m in messages if m.startswith(b"I")), b"")
        finally:
            admin.execute(f"DROP ROLE {role}")
        values, at = [], 8
        while at < len(message):
            (length,) = struct.unpack_from(">i", message, at + 1)
            values.append(message[at + 5 : at + 5 + length].decode())
            at += 5 + length
        assert values == [
            "1",
            "2026-02-01",
            "2026-02-01 08:00:00.5+00",
            "1 day 02:00:00",
            "0.30000000000000004",
            "\\x00ff",
            "$12.50",
            "public.items",
        ]

    async def test_settings_of_our_own_environment_change_nothing(
        self, shop: Database, monkeypatch: pytest.MonkeyPatch
    ):
        monkeypatch.setenv("PGTZ", "Asia/Kathmandu")
        monkeypatch.setenv("PGDATESTYLE", "German")
        monkeypatch.setenv("PGOPTIONS", "-c extra_float_digits=0 -c wal_sender_timeout=7000")
        monkeypatch.setenv("PGCLIENTENCODING", "LATIN1")
        async with opened(shop.dsn) as connection:
            rows = await connection.query(
                "SELECT current_setting('timezone'), current_setting('datestyle'), current_setting('extra_float_digits'),"
                " current_setting('client_encoding')"
            )
            assert rows == [("UTC", "ISO, MDY", "3", "UTF8")]
            assert connection.wal_sender_timeout_seconds == 7

    async def test_unix_socket_works(self, postgres, shop: Database):
        dsn = f"host={postgres.socket_dir} port={postgres.port} user=postgres dbname={shop.admin.info.dbname}"
        async with opened(dsn) as connection:
            await connection.start(shop.slot, PUBLICATION, LSN(0))
            shop.insert(1, 3)
            assert await read_rows(connection, 3) == [1, 2, 3]
            assert connection.pause_seconds == 0, "what it holds is small, and the walsender would wait for us"
        async with streaming(shop) as connection:
            assert connection.pause_seconds > 0

    async def test_sql_ascii_database_is_not_asked_for_utf8(self, make_postgres: Callable):
        server = make_postgres(encoding="SQL_ASCII")
        with psycopg.connect(server.dsn(), autocommit=True, client_encoding="SQL_ASCII") as admin:
            shop = Database(server.dsn(), admin)
            async with streaming(shop) as connection:
                assert connection.server_encoding == "SQL_ASCII"
                admin.execute(b"INSERT INTO items VALUES (1, E'caf\\351')")
                data = b""
                while b"caf\xe9" not in data:
                    data = b"".join(bytes(frame) for frame in await connection.frames())


@pytest.mark.usefixtures("both_ways")
class TestStream:
    async def test_frames_come_in_the_order_of_the_server(self, any_shop: Database):
        async with streaming(any_shop) as connection:
            any_shop.insert(1, 1)
            tags = await read_tags(connection, "C")
            assert tags.replace("k", "") == "BRIC"

    async def test_burst_arrives_whole_and_in_order(self, any_shop: Database):
        any_shop.insert(1, 20_000)
        async with streaming(any_shop) as connection:
            assert await read_rows(connection, 20_000) == list(range(1, 20_001))

    async def test_one_call_brings_many_frames(self, shop: Database):
        shop.insert(1, 20_000)
        async with streaming(shop) as connection:
            calls, rows = 0, Inserted()
            while len(rows.ids) < 20_000:
                calls += 1
                for frame in await connection.frames():
                    rows.add(frame)
        assert calls < 10_000

    async def test_limits_are_kept_and_lose_nothing(self, shop: Database):
        shop.insert(1, 2_000, name="y" * 100)
        async with streaming(shop) as connection:
            rows = Inserted()
            while len(rows.ids) < 1_000:
                frames = await connection.frames(max_frames=7)
                assert 1 <= len(frames) <= 7
                for frame in frames:
                    rows.add(frame)
            while len(rows.ids) < 2_000:
                frames = await connection.frames(max_bytes=500)
                assert sum(len(frame) for frame in frames[:-1]) < 500
                for frame in frames:
                    rows.add(frame)
        assert rows.ids == list(range(1, 2_001))

    async def test_row_of_many_megabytes_is_one_frame(self, shop: Database):
        async with streaming(shop) as connection:
            shop.admin.execute("ALTER TABLE items ALTER name SET STORAGE EXTERNAL")
            shop.insert(1, 1, name="z" * 20_000_000)
            shop.insert(2, 3)
            assert await read_rows(connection, 3) == [1, 2, 3]

    async def test_cancelled_reading_loses_nothing(self, shop: Database):
        rows = Inserted()
        async with streaming(shop, pause_seconds=0.0001) as connection:
            writer = asyncio.create_task(asyncio.to_thread(lambda: [shop.insert(i, i) for i in range(1, 1_001)]))
            turns = 0
            while len(rows.ids) < 1_000:
                task = asyncio.create_task(connection.frames(max_frames=5))
                # A different number of turns each time, so that the cancellation meets every await.
                for _ in range(turns % 7):
                    await asyncio.sleep(0)
                if turns % 3:
                    task.cancel()
                turns += 1
                with contextlib.suppress(asyncio.CancelledError):
                    for frame in await task:
                        rows.add(frame)
            await writer
        assert rows.ids == list(range(1, 1_001))

    async def test_reading_gives_other_tasks_a_turn(self, shop: Database):
        shop.insert(1, 5_000)
        turns = 0

        async def count() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        async with streaming(shop, pause_seconds=0) as connection:
            other = asyncio.create_task(count())
            rows, calls = Inserted(), 0
            while len(rows.ids) < 5_000:
                calls += 1
                for frame in await connection.frames(max_frames=10):
                    rows.add(frame)
            other.cancel()
        assert turns >= calls - 1

    async def test_loop_sleeps_while_nobody_reads(self, shop: Database):
        async with streaming(shop) as connection:
            shop.insert(1, 1)
            await read_rows(connection, 1)
            reading = asyncio.create_task(connection.frames())
            while not connection._wire.waiting:
                if reading.done():  # the commit, or a keepalive after it
                    reading = asyncio.create_task(connection.frames())
                await asyncio.sleep(0)
            shop.insert(2, 50_000)
            await reading
            # Bytes are waiting in the socket now: a watcher that stayed would be called at each turn of the loop.
            while connection._wire._reading:
                await asyncio.sleep(0.001)
            rows = Inserted()
            for frame in reading.result():
                rows.add(frame)
            assert rows.ids + await read_rows(connection, 49_999 - len(rows.ids)) == list(range(2, 50_001))

    async def test_two_readers_are_refused(self, shop: Database):
        async with streaming(shop) as connection:
            shop.insert(1, 1)
            await read_rows(connection, 1)
            first = asyncio.create_task(read_rows(connection, 1))
            while not connection._wire.waiting:
                await asyncio.sleep(0)
            with pytest.raises(InvariantBroken, match="two tasks"):
                await read_rows(connection, 1)
            shop.insert(2, 2)
            assert await first == [2]


@pytest.fixture
def encrypted(system_postgres, make_postgres: Callable):
    """A server with a certificate for localhost; the package's own has no TLS, so it is the machine's."""
    server = make_postgres(binaries=system_postgres.bin)
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = dt.datetime.now(dt.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    owner = server.data_dir.stat()
    for file, content in (
        ("server.crt", certificate.public_bytes(pem)),
        (
            "server.key",
            key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()),
        ),
    ):
        path = server.data_dir / file
        path.write_bytes(content)
        path.chmod(0o600)
        os.chown(path, owner.st_uid, owner.st_gid)
    with psycopg.connect(server.dsn(), autocommit=True) as admin:
        admin.execute("ALTER SYSTEM SET ssl = on")
        admin.execute("SELECT pg_reload_conf()")
        while admin.execute("SHOW ssl").fetchone() != ("on",):
            pass
    return server


@pytest.mark.usefixtures("both_ways")
class TestTLS:
    async def test_rows_of_every_size_arrive_over_tls(self, encrypted):
        dsn = encrypted.dsn().replace("127.0.0.1", "localhost")
        dsn += f"?sslmode=verify-full&sslrootcert={encrypted.data_dir / 'server.crt'}"
        with psycopg.connect(encrypted.dsn(), autocommit=True) as admin:
            shop = Database(dsn, admin)
            async with streaming(shop) as connection:
                assert await connection_uses_tls(admin, connection)
                shop.insert(1, 5_000)
                # Around the 16 KB of a TLS record, and beyond libpq's buffer.
                for number, size in enumerate([16_000, 16_350, 16_384, 32_768, 1_048_000, 1_100_000, 3_000_000], 5_001):
                    shop.insert(number, number, name="z" * size)
                    shop.insert(number + 1_000, number + 1_000)
                ids = await read_rows(connection, 5_014)
        assert ids[:5_000] == list(range(1, 5_001))
        assert ids[5_000:] == [
            number for pair in zip(range(5_001, 5_008), range(6_001, 6_008), strict=True) for number in pair
        ]

    async def test_certificate_of_a_stranger_is_refused(self, encrypted):
        dsn = encrypted.dsn().replace("127.0.0.1", "localhost")
        with pytest.raises(SourceUnavailable, match="certificate"):
            await ReplicationConnection.open(f"{dsn}?sslmode=verify-full")


async def connection_uses_tls(admin: psycopg.Connection, connection: ReplicationConnection) -> bool:
    await asyncio.sleep(0)
    return admin.execute("SELECT ssl FROM pg_stat_ssl WHERE pid = %s", (connection.backend_pid,)).fetchone() == (True,)


class TestStatus:
    async def test_flushed_position_moves_the_slot(self, any_shop: Database):
        async with streaming(any_shop) as connection:
            any_shop.insert(1, 1)
            await read_rows(connection, 1)
            target = any_shop.current()
            connection.send_status(target, target, target, now=time.time(), reply=True)
            # The reply is the server's word that it has read the status update.
            await read_tags(connection, "k")
            while any_shop.confirmed() < target:
                await connection.frames()
            assert any_shop.confirmed() == target

    async def test_written_position_alone_does_not_move_the_slot(self, shop: Database):
        before = shop.confirmed()
        async with streaming(shop) as connection:
            shop.insert(1, 1)
            await read_rows(connection, 1)
            connection.send_status(shop.current(), 0, 0, now=time.time(), reply=True)
            await read_tags(connection, "k")
            assert shop.confirmed() == before

    async def test_status_goes_out_while_nobody_reads(self, shop: Database):
        async with streaming(shop) as connection:
            target = shop.current()
            connection.send_status(target, target, target, now=time.time())
            while shop.confirmed() < target:
                await asyncio.sleep(0.001)

    async def test_confirming_backwards_is_refused_with_both_numbers(self, shop: Database):
        async with streaming(shop) as connection:
            connection.send_status(0x30, 0x20, 0x20, now=time.time())
            with pytest.raises(InvariantBroken, match=r"0/20 to 0/10"):
                connection.send_status(0x30, 0x10, 0x10, now=time.time())

    async def test_confirming_more_than_was_received_is_refused(self, shop: Database):
        async with streaming(shop) as connection:
            with pytest.raises(InvariantBroken, match=r"0/20 would be confirmed"):
                connection.send_status(0x10, 0x20, 0x20, now=time.time())

    async def test_status_never_waits_for_a_server_that_does_not_read(self, shop: Database):
        """Promise 6: what the socket does not take leaves later."""
        async with streaming(shop) as connection:
            await read_tags(connection, "k")
            target = shop.current()
            os.kill(connection.backend_pid, signal.SIGSTOP)
            try:
                # Enough for both socket buffers.
                while not connection._wire._writing:
                    for _ in range(1000):
                        connection.send_status(target, 0, 0, now=time.time())
                connection.send_status(target, target, target, now=time.time())
            finally:
                os.kill(connection.backend_pid, signal.SIGCONT)
            while shop.confirmed() < target:
                await connection.frames()


class TestEnd:
    async def test_slot_in_use_names_the_process_that_has_it(self, any_shop: Database):
        async with streaming(any_shop) as first, opened(any_shop.dsn) as second:
            with pytest.raises(SlotInUse, match=str(first.backend_pid)):
                await second.start(any_shop.slot, PUBLICATION, LSN(0))
            await first.close()
            # The refused connection is good for another try.
            while True:
                try:
                    await second.start(any_shop.slot, PUBLICATION, LSN(0))
                    break
                except SlotInUse:
                    await asyncio.sleep(0.01)
            any_shop.insert(1, 1)
            assert await read_rows(second, 1) == [1]

    async def test_missing_slot_is_a_lost_slot(self, any_shop: Database):
        async with opened(any_shop.dsn) as connection:
            with pytest.raises(SlotLost, match=r'"nothing_here".*init --accept-gap'):
                await connection.start("nothing_here", PUBLICATION, LSN(0))

    async def test_slot_of_another_kind_is_explained(self, any_shop: Database):
        any_shop.admin.execute("SELECT pg_create_physical_replication_slot(%s)", (f"p_{any_shop.slot}",))
        any_shop.admin.execute(
            "SELECT pg_create_logical_replication_slot(%s, 'test_decoding')", (f"t_{any_shop.slot}",)
        )
        try:
            async with opened(any_shop.dsn) as connection:
                with pytest.raises(SourceMisconfigured, match="physical"):
                    await connection.start(f"p_{any_shop.slot}", PUBLICATION, LSN(0))
            async with opened(any_shop.dsn) as connection:
                with pytest.raises(SourceMisconfigured):
                    await connection.start(f"t_{any_shop.slot}", PUBLICATION, LSN(0))
        finally:
            any_shop.admin.execute("SELECT pg_drop_replication_slot(%s)", (f"p_{any_shop.slot}",))

    async def test_slot_of_another_database_is_explained(self, postgres, shop: Database):
        async with opened(postgres.dsn()) as connection:
            with pytest.raises(SourceMisconfigured, match=f'belongs to database "{shop.admin.info.dbname}"'):
                await connection.start(shop.slot, PUBLICATION, LSN(0))

    async def test_invalidated_slot_is_lost(self, make_postgres: Callable):
        server = make_postgres(settings={"max_slot_wal_keep_size": "1MB", "max_wal_size": "32MB"})
        with psycopg.connect(server.dsn(), autocommit=True) as admin:
            shop = Database(server.dsn(), admin)
            while True:
                admin.execute("SELECT pg_logical_emit_message(false, 'fill', repeat('x', 1000))")
                admin.execute("SELECT pg_switch_wal()")
                admin.execute("CHECKPOINT")
                (status,) = admin.execute("SELECT wal_status FROM pg_replication_slots").fetchone()
                if status == "lost":
                    break
            async with opened(shop.dsn) as connection:
                with pytest.raises(SlotLost, match="init --accept-gap"):
                    await connection.start(shop.slot, PUBLICATION, LSN(0))

    async def test_terminated_walsender_is_worth_another_try(self, any_shop: Database):
        async with streaming(any_shop) as connection:
            any_shop.insert(1, 5)
            assert await read_rows(connection, 5) == [1, 2, 3, 4, 5]
            any_shop.admin.execute("SELECT pg_terminate_backend(%s)", (connection.backend_pid,))
            with pytest.raises(SourceUnavailable, match="57P01"):
                await read_rows(connection, 1)
            with pytest.raises(SourceUnavailable, match="57P01"):
                await connection.frames()
            # A status update on the dead link is no error of its own.
            connection.send_status(1, 1, 1, now=time.time())

    @pytest.mark.usefixtures("both_ways")
    async def test_rows_before_the_end_are_not_lost_with_it(self, shop: Database):
        shop.insert(1, 500)
        target = shop.current()
        rows = Inserted()
        async with streaming(shop) as connection:
            (frame,) = await connection.frames(max_frames=1)
            rows.add(frame)
            sent = "SELECT sent_lsn >= %s::pg_lsn FROM pg_stat_replication WHERE pid = %s"
            while shop.admin.execute(sent, (str(target), connection.backend_pid)).fetchone() != (True,):
                await asyncio.sleep(0.001)
            shop.admin.execute("SELECT pg_terminate_backend(%s, 10000)", (connection.backend_pid,))
            with pytest.raises(SourceUnavailable):
                await read_to_the_end(connection, rows.add)
        assert rows.ids == list(range(1, 501))

    @pytest.mark.parametrize("mode", ["fast", "immediate", "kill"])
    async def test_server_that_goes_away_is_worth_another_try(self, make_postgres: Callable, mode: str):
        server = make_postgres()
        with psycopg.connect(server.dsn(), autocommit=True) as admin:
            shop = Database(server.dsn(), admin)
            async with streaming(shop) as connection:
                shop.insert(1, 1)
                await read_rows(connection, 1)
                ending = asyncio.create_task(
                    asyncio.to_thread(server.kill if mode == "kill" else lambda: server.stop(mode))
                )

                def confirm(frame: memoryview) -> None:
                    match decode_frame(frame):
                        # A fast shutdown waits until we have confirmed exactly all.
                        case Keepalive(wal_end=end):
                            connection.send_status(end, end, end, now=time.time())

                with pytest.raises(SourceUnavailable):
                    await read_to_the_end(connection, confirm)
                await ending

    @pytest.mark.usefixtures("both_ways")
    async def test_missing_publication_stops_the_stream_for_a_person(self, any_shop: Database):
        """Majors to 17 refuse; 18 warns and leaves the changes out."""
        async with opened(any_shop.dsn) as connection:
            await connection.start(any_shop.slot, "not there", LSN(0))
            any_shop.insert(1, 1)
            with pytest.raises(SourceMisconfigured, match=r'"not there".*42704'):
                await read_rows(connection, 1)

    @pytest.mark.usefixtures("both_ways")
    async def test_publication_that_is_dropped_under_the_stream_ends_it_before_a_change_is_passed_over(
        self, any_shop: Database
    ):
        async with streaming(any_shop) as connection:
            any_shop.insert(1, 1)
            assert await read_rows(connection, 1) == [1]
            any_shop.admin.execute(sql.SQL("DROP PUBLICATION {}").format(sql.Identifier(PUBLICATION)))
            any_shop.insert(2, 2)
            behind_the_change = any_shop.current()
            told = 0

            def look(frame: memoryview) -> None:
                nonlocal told
                decoded = decode_frame(frame)
                if isinstance(decoded, Keepalive):
                    told = max(told, decoded.wal_end)

            with pytest.raises(SourceMisconfigured, match="42704"):
                await read_to_the_end(connection, look)
            assert told < behind_the_change, "that would be confirmed, and the change be lost"

    async def test_stop_leaves_a_connection_that_takes_commands(self, any_shop: Database):
        async with streaming(any_shop) as connection:
            any_shop.insert(1, 2_000)
            await read_rows(connection, 1)
            await connection.stop()
            assert await connection.query("SELECT 1") == [("1",)]
            with pytest.raises(InvariantBroken, match="one stream"):
                await connection.start(any_shop.slot, PUBLICATION, LSN(0))
        async with streaming(any_shop) as connection:
            assert await read_rows(connection, 2_000) == list(range(1, 2_001))

    async def test_stop_gives_up_on_a_server_that_does_not_answer(self, shop: Database):
        async with streaming(shop) as connection:
            os.kill(connection.backend_pid, signal.SIGSTOP)
            try:
                await connection.stop(timeout_seconds=0.05)
            finally:
                os.kill(connection.backend_pid, signal.SIGCONT)

    @pytest.mark.usefixtures("both_ways")
    async def test_closing_ends_a_wait_for_frames(self, shop: Database):
        connection = await ReplicationConnection.open(shop.dsn)
        await connection.start(shop.slot, PUBLICATION, LSN(0))
        reading = asyncio.create_task(read_rows(connection, 1))
        while not connection._wire.waiting:
            await asyncio.sleep(0.001)
        await connection.close()
        with pytest.raises(SourceUnavailable, match="closed"):
            await reading
        await connection.close()

    async def test_silent_server_is_given_up(self, shop: Database):
        async with streaming(shop, silence_limit_seconds=0.2) as connection:
            await read_tags(connection, "k")
            os.kill(connection.backend_pid, signal.SIGSTOP)
            try:
                with pytest.raises(SourceUnavailable, match="silent"):
                    await read_to_the_end(connection, lambda _: None)
                assert connection.idle_seconds >= 0.2
            finally:
                os.kill(connection.backend_pid, signal.SIGCONT)

    async def test_idle_server_is_asked_before_it_is_given_up(self, shop: Database):
        """With wal_sender_timeout off it sends nothing of its own accord."""
        dsn = f"{shop.dsn}?options=-c%20wal_sender_timeout%3D0"
        async with opened(dsn, silence_limit_seconds=0.2) as connection:
            await connection.start(shop.slot, PUBLICATION, LSN(0))
            for _ in range(6):
                await read_tags(connection, "k")


class TestRefusals:
    async def test_wrong_password(self, make_postgres: Callable):
        server = make_postgres(auth="scram-sha-256")
        dsn = f"postgresql://postgres:hunter2@127.0.0.1:{server.port}/postgres"
        with pytest.raises(SourceCredentialsRefused, match="28P01") as caught:
            await ReplicationConnection.open(dsn)
        assert "hunter2" not in str(caught.value)
        assert 'user "postgres"' in str(caught.value)
        with pytest.raises(SourceCredentialsRefused):
            async with connected(dsn):
                pass
        with pytest.raises(SourceCredentialsRefused, match="password"):
            await ReplicationConnection.open(
                f"postgresql://postgres@127.0.0.1:{server.port}/postgres?passfile=/dev/null"
            )
        async with opened(server.dsn()) as connection:
            assert connection.identity.database == "postgres"

    async def test_no_entry_in_pg_hba(self, make_postgres: Callable):
        server = make_postgres()
        hba = server.data_dir / "pg_hba.conf"
        hba.write_text("host all postgres 127.0.0.1/32 trust\n")
        with psycopg.connect(server.dsn(), autocommit=True) as admin:
            admin.execute("CREATE ROLE stranger LOGIN REPLICATION")
            admin.execute("SELECT pg_reload_conf()")
            refusal = ""
            while not refusal:  # the postmaster reads the file when it gets to it
                try:
                    await (await ReplicationConnection.open(server.dsn(user="stranger"))).close()
                except SourceCredentialsRefused as error:
                    refusal = str(error)
        assert "28000" in refusal
        assert "pg_hba" in refusal

    async def test_no_such_database(self, any_shop: Database):
        with pytest.raises(SourceMisconfigured, match="3D000"):
            await ReplicationConnection.open(f"{any_shop.dsn}?dbname=no_such_database")

    async def test_role_without_the_right_to_replicate(self, any_shop: Database):
        role = f"plain_{any_shop.admin.info.dbname}"
        any_shop.admin.execute(f"CREATE ROLE {role} LOGIN")
        try:
            with pytest.raises(SourceMisconfigured, match="REPLICATION"):
                await ReplicationConnection.open(f"{any_shop.dsn}?user={role}")
        finally:
            any_shop.admin.execute(f"DROP ROLE {role}")

    async def test_no_connection_left(self, any_shop: Database):
        role = f"limited_{any_shop.admin.info.dbname}"
        any_shop.admin.execute(f"CREATE ROLE {role} LOGIN REPLICATION CONNECTION LIMIT 0")
        try:
            with pytest.raises(SourceUnavailable, match="53300"):
                # Walsenders do not count against a role's limit.
                async with connected(f"{any_shop.dsn}?user={role}"):
                    pass
        finally:
            any_shop.admin.execute(f"DROP ROLE {role}")

    async def test_no_walsender_left(self, make_postgres: Callable):
        server = make_postgres(settings={"max_wal_senders": "1"})
        async with opened(server.dsn()):
            with pytest.raises(SourceUnavailable, match="max_wal_senders"):
                await ReplicationConnection.open(server.dsn())

    async def test_nobody_listens(self):
        with pytest.raises(SourceUnavailable, match="refused"):
            await ReplicationConnection.open("postgresql://u:hunter2@127.0.0.1:1/d")

    async def test_host_without_an_address(self):
        with pytest.raises(SourceUnavailable, match="no address") as caught:
            await ReplicationConnection.open("postgresql://u:hunter2@no-such-host.invalid/d")
        assert "hunter2" not in str(caught.value)

    async def test_password_with_an_at_sign_is_not_shown_as_a_host(self):
        with pytest.raises(SourceError) as caught:
            await ReplicationConnection.open("postgresql://u:hun@ter2@localhost:1/d")
        assert "ter2" not in str(caught.value)

    async def test_dsn_that_is_none(self):
        with pytest.raises(ConfigError) as caught:
            await ReplicationConnection.open("password=hunter2 hunter2")
        assert "hunter2" not in str(caught.value)
        assert caught.value.__cause__ is None
        assert caught.value.__suppress_context__

    async def test_server_that_never_answers(self):
        closed = asyncio.Event()

        async def hold(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read()
            writer.close()
            closed.set()

        server = await asyncio.start_server(hold, "127.0.0.1", 0)
        async with server:
            port = server.sockets[0].getsockname()[1]
            with pytest.raises(SourceUnavailable, match=r"no answer within 0\.05 seconds"):
                await ReplicationConnection.open(f"postgresql://u@127.0.0.1:{port}/d", connect_timeout_seconds=0.05)
            await closed.wait()
            await asyncio.sleep(0)  # the transport closes its socket at the loop's next turn

    @pytest.mark.parametrize(
        ("sqlstate", "kind"),
        [
            ("57P03", SourceUnavailable),
            ("53300", SourceUnavailable),
            ("XX000", SourceUnavailable),
            ("08P01", SourceMisconfigured),
            ("28000", SourceCredentialsRefused),
            ("28P01", SourceCredentialsRefused),
            ("3D000", SourceMisconfigured),
            ("42501", SourceMisconfigured),
            ("55000", SourceMisconfigured),
        ],
    )
    async def test_code_decides_whatever_the_language(self, sqlstate: str, kind: type[SourceError]):
        async with refusing_server(sqlstate, "致命错误", "密码不对") as port:
            with pytest.raises(kind, match=sqlstate) as caught:
                await ReplicationConnection.open(f"postgresql://u:hunter2@127.0.0.1:{port}/d")
        assert type(caught.value) is kind
        assert "hunter2" not in str(caught.value)

    async def test_companion_publication_is_streamed_too(self, shop: Database):
        shop.admin.execute("CREATE TABLE log (id bigint)")
        companion = commands.companion_name(PUBLICATION)
        shop.admin.execute(
            sql.SQL("CREATE PUBLICATION {} FOR TABLE log WITH (publish = 'insert')").format(sql.Identifier(companion))
        )
        async with streaming(shop) as connection:
            shop.admin.execute("INSERT INTO log VALUES (4711)")
            shop.admin.execute("UPDATE log SET id = 1")
            shop.insert(1, 1)
            assert await read_rows(connection, 2) == [4711, 1]

    async def test_second_host_is_tried(self, shop: Database):
        parameters = shop.admin.info.get_parameters()
        dsn = f"postgresql://postgres@127.0.0.1:1,127.0.0.1:{parameters['port']}/{parameters['dbname']}"
        async with opened(dsn) as connection:
            assert connection.identity.database == parameters["dbname"]


@contextlib.asynccontextmanager
async def refusing_server(sqlstate: str, severity: str, message: str) -> AsyncIterator[int]:
    """Answers each startup packet with an ErrorResponse (manual, "Message Formats")."""

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                (length,) = struct.unpack(">i", await reader.readexactly(4))
                (code,) = struct.unpack(">i", (await reader.readexactly(length - 4))[:4])
                if code >> 16 != 1234:
                    break
                writer.write(b"N")  # neither TLS nor GSSAPI
            fields = f"S{severity}\0VFATAL\0C{sqlstate}\0M{message}\0\0".encode()
            writer.write(b"E" + struct.pack(">i", 4 + len(fields)) + fields)
            await writer.drain()
        except asyncio.IncompleteReadError:
            pass
        finally:
            writer.close()
            closed.set()

    closed = asyncio.Event()
    server = await asyncio.start_server(refuse, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]
        await closed.wait()
        await asyncio.sleep(0)  # the transport closes its socket at the loop's next turn
