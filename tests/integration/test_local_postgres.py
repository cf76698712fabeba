"""The embedded server: what its users rely on, how it ends, and what it says when it can't start."""

from __future__ import annotations

import os
import select
import shutil
import socket
import subprocess
import sys
import threading
from pathlib import Path

import psycopg
import pytest

from bridge.errors import TargetError
from bridge.local import lifeline, postgres_binaries
from bridge.local.postgres import EmbeddedPostgres
from bridge.local.postgres_binaries import Account, find_binaries, reachable, reachable_binaries


def value(dsn: str, statement: str) -> object:
    with psycopg.connect(dsn) as connection:
        return connection.execute(statement).fetchone()[0]


def test_the_shared_server_decodes_logically(database):
    with psycopg.connect(database, autocommit=True) as connection:
        assert connection.execute("SHOW wal_level").fetchone() == ("logical",)
        connection.execute("CREATE TABLE t (id int PRIMARY KEY)")
        connection.execute("CREATE PUBLICATION p FOR TABLE t")
        connection.execute("SELECT pg_create_logical_replication_slot('local_check', 'pgoutput')")
        connection.execute("INSERT INTO t VALUES (1)")
        changes = connection.execute(
            "SELECT data FROM pg_logical_slot_get_binary_changes('local_check', NULL, NULL, 'proto_version', '1', 'publication_names', 'p')"
        ).fetchall()
        assert [bytes(data[:1]) for (data,) in changes] == [b"B", b"R", b"I", b"C"]


def test_a_database_starts_without_the_slots_of_the_test_before(database):
    assert value(database, "SELECT count(*) FROM pg_replication_slots WHERE database = current_database()") == 0


def test_a_database_goes_with_its_slots_prepared_transactions_and_sessions(postgres, fresh):
    with fresh(postgres) as dsn:
        with psycopg.connect(dsn, autocommit=True) as connection:
            name = connection.info.dbname
            connection.execute("CREATE TABLE t (id int)")
            connection.execute("SELECT pg_create_logical_replication_slot('left_behind', 'pgoutput')")
            connection.execute("BEGIN")
            connection.execute("INSERT INTO t VALUES (1)")
            connection.execute("PREPARE TRANSACTION 'left behind'")
        left_open = psycopg.connect(dsn)
        left_open.execute("SELECT 1")
    left_open.close()
    for left in ("pg_replication_slots WHERE slot_name = 'left_behind'", f"pg_database WHERE datname = '{name}'"):
        assert value(postgres.dsn(), f"SELECT count(*) FROM {left}") == 0


def test_a_password_is_asked_for_on_tcp_and_socket_and_shown_nowhere(make_postgres, postgres):
    server = make_postgres(auth="scram-sha-256")
    assert value(server.dsn(), "SELECT current_user") == "postgres"
    on_socket = {"host": str(server.socket_dir), "port": server.port, "user": "postgres"}
    with psycopg.connect(**on_socket, password=server.password) as connection:
        assert connection.info.host == str(server.socket_dir)
    for wrong in (server.dsn().replace(server.password, "wrong"), server.dsn(user="somebody")):
        with pytest.raises(psycopg.OperationalError, match="password"):
            psycopg.connect(wrong)
    with pytest.raises(psycopg.OperationalError, match="password"):
        psycopg.connect(**on_socket)
    assert server.password not in repr(server)
    assert server.password not in server.log_tail()
    assert not (server.socket_dir / "password").exists()
    identifier = "SELECT system_identifier FROM pg_control_system()"
    assert value(server.dsn(), identifier) != value(postgres.dsn(), identifier), "two servers run beside each other"


def test_encoding_settings_and_port_are_the_callers_and_alter_system_goes_before_them(make_postgres):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = make_postgres(encoding="LATIN1", settings={"application_name": "it's a \\ name"}, port=port)
    assert server.port == port
    assert value(server.dsn(), "SHOW server_encoding") == "LATIN1"
    assert value(server.dsn(), "SELECT reset_val FROM pg_settings WHERE name = 'application_name'") == "it's a \\ name"
    assert value(server.dsn(), "SHOW wal_level") == "logical"
    with psycopg.connect(server.dsn(), autocommit=True) as connection:
        connection.execute("ALTER SYSTEM SET wal_level = replica")
    server.restart()
    assert server.port == port
    assert value(server.dsn(), "SHOW wal_level") == "replica"


def test_what_was_committed_is_there_after_any_end(make_postgres):
    server = make_postgres()
    with psycopg.connect(server.dsn(), autocommit=True) as connection:
        connection.execute("CREATE TABLE t (how text)")
    for how in ("fast", "immediate", "kill"):
        with psycopg.connect(server.dsn(), autocommit=True) as connection:
            connection.execute("INSERT INTO t VALUES (%s)", (how,))
        pid = server.pid
        if how == "kill":
            server.kill()
        else:
            server.stop(how)
        assert not server.running
        assert not lifeline.alive(pid)
        server.start()
    assert value(server.dsn(), "SELECT array_agg(how) FROM t") == ["fast", "immediate", "kill"]


def test_a_named_folder_is_kept_and_used_again(tmp_path_factory):
    folder = Path("/tmp") / f"pgbridge-test-{os.getpid()}"  # pytest's own folders are closed to other users
    try:
        with EmbeddedPostgres(folder) as server:
            with psycopg.connect(server.dsn(), autocommit=True) as connection:
                connection.execute("CREATE TABLE t (id int)")
            scratch = server.socket_dir
        assert not scratch.exists()
        with EmbeddedPostgres(folder) as server:
            assert value(server.dsn(), "SELECT count(*) FROM t") == 0
            assert server.data_dir == folder
    finally:
        shutil.rmtree(folder)


async def test_it_is_an_async_context_manager_too():
    async with EmbeddedPostgres() as server:
        async with await psycopg.AsyncConnection.connect(server.dsn()) as connection:
            await connection.execute("SELECT 1")
        pid, folder = server.pid, server.socket_dir
    assert not lifeline.alive(pid)
    assert not folder.exists()


def test_a_setting_that_does_not_exist_shows_the_log_and_leaves_nothing(tmp_path, monkeypatch):
    server = EmbeddedPostgres(settings={"no_such_setting": "1"})
    folders = []
    monkeypatch.setattr(lifeline, "remove_afterwards", folders.append)
    with pytest.raises(TargetError, match="no_such_setting"):
        server.start()
    assert folders
    assert not any(folder.exists() for folder in folders)


def test_a_port_that_is_taken_is_said_in_one_sentence():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(TargetError) as refused:
            EmbeddedPostgres(port=port).start()
        assert str(refused.value) == f"port {port} of 127.0.0.1 is taken; end what listens there, or name another port"


def test_a_folder_without_a_server_is_refused(tmp_path):
    with pytest.raises(TargetError, match="holds no PostgreSQL server"):
        EmbeddedPostgres(binaries=tmp_path)


def test_the_missing_wheel_is_named_with_its_extra(monkeypatch):
    monkeypatch.setattr(postgres_binaries.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(TargetError, match=r"pip install 'pgbridge\[local\]'"):
        find_binaries(None)


def test_the_server_runs_as_an_ordinary_user(postgres):
    status = Path(f"/proc/{postgres.pid}/status").read_text()
    uid = next(line.split()[1] for line in status.splitlines() if line.startswith("Uid:"))
    assert uid != "0"
    assert (os.geteuid() == 0) == (int(uid) != os.geteuid())


def test_programs_out_of_reach_are_copied_once(tmp_path, monkeypatch):
    wheel = find_binaries(None).parent.parent
    site = tmp_path / "site-packages"
    (site / wheel.name / "pginstall").mkdir(parents=True)
    for folder in ("bin", "lib", "share"):
        (site / wheel.name / "pginstall" / folder).symlink_to(wheel / "pginstall" / folder)
    site.chmod(0o700)
    cache = tmp_path / "cache"
    cache.mkdir()
    monkeypatch.setattr(postgres_binaries.tempfile, "gettempdir", lambda: str(cache))
    # No account can pass pytest's own folder; here it is the one below it that decides.
    monkeypatch.setattr(postgres_binaries, "reachable", lambda path, account: path.is_relative_to(cache))
    programs = site / wheel.name / "pginstall" / "bin"
    account = Account("nobody", 65534, 65534)
    copy = reachable_binaries(programs, account)
    assert copy.is_relative_to(cache)
    before = copy.stat().st_mtime_ns, (copy / "postgres").stat().st_ino
    assert reachable_binaries(programs, account) == copy
    assert (copy.stat().st_mtime_ns, (copy / "postgres").stat().st_ino) == before
    assert [path.name for path in cache.iterdir()] == [copy.parent.parent.parent.name]
    version = subprocess.run([copy / "psql", "--version"], check=True, capture_output=True, text=True)
    assert version.stdout.startswith("psql (PostgreSQL)")


def test_a_copy_that_others_may_change_is_refused(tmp_path, monkeypatch):
    site = tmp_path / "package" / "pginstall" / "bin"
    site.mkdir(parents=True)
    for name in ("postgres", "initdb"):
        (site / name).write_text("")
    cache = tmp_path / "cache"
    cache.mkdir()
    monkeypatch.setattr(postgres_binaries.tempfile, "gettempdir", lambda: str(cache))
    monkeypatch.setattr(postgres_binaries, "reachable", lambda path, account: path.is_relative_to(cache))
    account = Account("nobody", 65534, 65534)
    reachable_binaries(site, account)
    (copy,) = cache.iterdir()
    copy.chmod(0o777)
    with pytest.raises(TargetError, match="not ours alone"):
        reachable_binaries(site, account)


def test_a_folder_is_in_reach_if_all_above_it_may_be_entered(tmp_path):
    account = Account("nobody", 65534, 65534)
    assert reachable(Path("/"), account)
    assert reachable(tmp_path, None)
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    assert not reachable(closed, account)
    assert not reachable(tmp_path / "nowhere", account)


KILLED = """
import os, signal, sys
from bridge.local.postgres import EmbeddedPostgres
server = EmbeddedPostgres().start()
print(server.pid, server.socket_dir, flush=True)
{end}
"""


@pytest.mark.parametrize("end", ["os.kill(os.getpid(), signal.SIGKILL)", "sys.exit(1)"])
def test_the_server_ends_with_the_process_that_started_it(end):
    # Its standard error is the watcher's as little as the server's: the pipe ends when the process does.
    starter = subprocess.Popen(
        [sys.executable, "-c", KILLED.format(end=end)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    with starter.stdout as stdout:
        pid, folder = stdout.read().split()
    starter.wait()
    wait_for_the_end(int(pid))
    while Path(folder).exists():  # it goes last
        threading.Event().wait(0.02)


def wait_for_the_end(pid: int) -> None:
    """Until the kernel says so; the limit is the test's own."""
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    select.select([handle], [], [])
    os.close(handle)


@pytest.mark.system_postgres
def test_the_machines_own_server_runs_the_same_way(system_database):
    assert value(system_database, "SHOW wal_level") == "logical"
