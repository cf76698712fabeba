"""Shared fixtures: real PostgreSQL servers and databases, AWS's APIs behind the real SDK, and an event."""

from __future__ import annotations

import itertools
import logging
import os
import re
import signal
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

from bridge.local.postgres import EmbeddedPostgres

SETTINGS = {
    "max_wal_senders": "20",
    "max_replication_slots": "40",
    "max_prepared_transactions": "10",
    "max_connections": "100",
}

_numbers = itertools.count(1)


def pytest_configure() -> None:
    """A shell lets what it starts in the background ignore SIGINT, and commands that tests interrupt would inherit it."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if {"system_postgres", "system_database"} & set(getattr(item, "fixturenames", ())):
            item.add_marker("system_postgres")


@pytest.fixture(scope="session")
def postgres() -> Iterator[EmbeddedPostgres]:
    """A running server of the newest major that we carry, with logical decoding on; shared by the session's tests."""
    with EmbeddedPostgres(settings=SETTINGS) as server:
        yield server


@pytest.fixture
def database(postgres: EmbeddedPostgres) -> Iterator[str]:
    """The superuser's DSN of a fresh database; it goes with all of its slots and prepared transactions."""
    with fresh_database(postgres) as dsn:
        yield dsn


@pytest.fixture(scope="session")
def system_postgres() -> Iterator[EmbeddedPostgres]:
    """A server of the machine's own PostgreSQL, an older major as a rule."""
    binaries = newest_system_binaries()
    if binaries is None:
        pytest.skip("this machine has no PostgreSQL under /usr/lib/postgresql")
    with EmbeddedPostgres(settings=SETTINGS, binaries=binaries) as server:
        yield server


@pytest.fixture
def system_database(system_postgres: EmbeddedPostgres) -> Iterator[str]:
    """Like `database`, on the machine's own PostgreSQL."""
    with fresh_database(system_postgres) as dsn:
        yield dsn


@pytest.fixture
def make_postgres() -> Iterator[Callable[..., EmbeddedPostgres]]:
    """Starts servers for tests that need one to themselves: `make_postgres(settings={…}, auth=…)`."""
    with ExitStack() as servers:

        def make(**arguments: object) -> EmbeddedPostgres:
            arguments["settings"] = {**SETTINGS, **arguments.get("settings", {})}
            return servers.enter_context(EmbeddedPostgres(**arguments))

        yield make


@pytest.fixture
def fresh() -> Callable[[EmbeddedPostgres], AbstractContextManager[str]]:
    """A database like `database`, on whatever server the test hands over; a context manager that gives the DSN."""
    return fresh_database


@contextmanager
def fresh_database(server: EmbeddedPostgres) -> Iterator[str]:
    name = f"test_{os.getpid()}_{next(_numbers)}"
    with psycopg.connect(server.dsn(), autocommit=True) as admin:
        admin.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    try:
        yield server.dsn(name)
    finally:
        if server.running:  # a test may have stopped a server of its own
            drop_database(server, name)


def drop_database(server: EmbeddedPostgres, name: str) -> None:
    with psycopg.connect(server.dsn(name), autocommit=True) as connection:
        prepared = connection.execute("SELECT gid FROM pg_prepared_xacts WHERE database = %s", (name,)).fetchall()
        for (gid,) in prepared:
            connection.execute(sql.SQL("ROLLBACK PREPARED {}").format(sql.Literal(gid)))
    with psycopg.connect(server.dsn(), autocommit=True) as admin:
        # No walsender comes back once it was terminated.
        admin.execute(sql.SQL("ALTER DATABASE {} ALLOW_CONNECTIONS false").format(sql.Identifier(name)))
        admin.execute(
            "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE datname = %s AND pid <> pg_backend_pid()",
            (name,),
        )
        admin.execute(
            "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE database = %s AND NOT temporary",
            (name,),
        )
        admin.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


def newest_system_binaries() -> Path | None:
    folders = [path for path in Path("/usr/lib/postgresql").glob("*/bin") if (path / "initdb").exists()]
    return max(folders, key=lambda path: int(re.sub(r"\D", "", path.parent.name) or 0), default=None)


@pytest.fixture(scope="module")
def aws() -> Iterator[pytest.MonkeyPatch]:
    """Moto's server, empty, with the SDK pointed at it by its own environment variables."""
    from moto.server import ThreadedMotoServer  # noqa: PLC0415 - takes a second, and few tests need it

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        patch.setenv("AWS_ACCESS_KEY_ID", "test")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "test")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        yield patch
    server.stop()


@pytest.fixture
def signup():
    """`signup(0, 7, name="John Doe")`: the event of an insert into users."""

    def make(ordinal, user_id, *, action="insert", **columns):
        event_id = f"0000000001A2B3C0-{ordinal:010d}"
        return {
            "id": event_id,
            "action": action,
            "record": {"id": user_id, **columns},
            "changes": None,
            "metadata": {
                "source": "pgbridge",
                "database": "shop",
                "table_schema": "public",
                "table_name": "users",
                "commit_lsn": 27440064,
                "commit_idx": ordinal,
                "commit_timestamp": "2026-11-22T05:37:00.123456Z",
                "transaction_id": 743,
                "keys": {"id": user_id},
                "old_keys": None,
                "unavailable": [],
                "trigger": "signup",
                "idempotency_key": f"7390000000000000001-signup-{event_id}",
            },
        }

    return make
