"""status, tail and event against a real server."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import psycopg
import pytest

from bridge.cli.status import ProcessUnreachable, _from_process
from bridge.observe.status import ServiceState, ServiceStatus, SlotStatus, TriggerStatus
from bridge.triggers.filter import compile_patterns

TABLES = """
CREATE TYPE mood AS ENUM ('sad', 'ok');
CREATE DOMAIN email AS text CHECK (value ~ '^[^@]+@[^@]+$');
CREATE DOMAIN big AS int CHECK (value > 500);
CREATE TABLE users (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, name text NOT NULL, email email, balance numeric(12,2),
    tags text[], mood mood, big big, at timestamptz, doc jsonb, raw bytea, span int4range, small numeric(3,2),
    twice int GENERATED ALWAYS AS (1) STORED, password_hash text);
CREATE TABLE orders (id int PRIMARY KEY, status text);
ALTER TABLE orders REPLICA IDENTITY FULL;
CREATE TABLE log (line text);
CREATE SCHEMA "We.ird";
CREATE TABLE "We.ird"."T""x" ("Q'x" text PRIMARY KEY);
CREATE PUBLICATION pgbridge FOR ALL TABLES;
"""


@pytest.fixture
def connection(database):
    with psycopg.connect(database, autocommit=True) as opened:
        opened.execute(TABLES)
        yield opened


@pytest.fixture
def config(tmp_path, database, connection, unused_tcp_port) -> Path:
    path = tmp_path / "pgbridge.yaml"
    path.write_text(
        f"""
source: {{dsn: {json.dumps(database)}}}
admin: {{listen: '127.0.0.1:{unused_tcp_port}'}}
triggers:
  welcome:
    tables: [public.users]
    operations: [insert]
    columns: {{exclude: [password_hash]}}
    filter_criteria: [{{record: {{balance: [{{numeric: [">", 10]}}]}}}}]
    target: {{lambda: {{function_name: welcome}}}}
"""
    )
    return path


def run(*arguments: str, config: Path) -> subprocess.CompletedProcess[str]:
    code = "from bridge.cli import main; main()"
    return subprocess.run(
        [sys.executable, "-c", code, *arguments, "--config", str(config)],
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip


def slots(connection, *, active: bool | None = None) -> int:
    # While it is being made a slot is active too, and what is committed then is not in its stream.
    condition = "true" if active is None else "active AND confirmed_flush_lsn IS NOT NULL"
    return connection.execute(f"SELECT count(*) FROM pg_replication_slots WHERE {condition}").fetchone()[0]


def until(what: str, condition) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain until {what}"
        time.sleep(0.02)


@contextmanager
def tailing(connection, config: Path, *arguments: str):
    """A `pgbridge tail` that reads already."""
    before = slots(connection)
    process = subprocess.Popen(
        [sys.executable, "-c", "from bridge.cli import main; main()", "tail", *arguments, "--config", str(config)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        until("the slot is read", lambda: process.poll() is not None or slots(connection, active=True) > before)
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


class TestTail:
    def test_changes_are_printed_as_they_are_committed_and_no_slot_stays(self, connection, config):
        with tailing(connection, config, "--limit", "5") as process:
            connection.execute("INSERT INTO orders VALUES (1, 'new')")
            connection.execute("UPDATE orders SET status = 'paid'")
            connection.execute("DELETE FROM orders")
            connection.execute("TRUNCATE orders")
            connection.execute("SELECT pg_logical_emit_message(true, 'app', 'hello')")
            output, errors = process.communicate(timeout=60)
        assert (process.returncode, errors) == (0, "")
        lines = [line[14:] for line in output.splitlines()]
        assert lines == [
            "insert    public.orders  id=1", 'status: "new"',
            "update    public.orders  id=1", 'status: "new" → "paid"',
            "delete    public.orders  id=1", 'status: "paid"',
            "truncate  public.orders",
            "message   app", 'prefix: "app"', 'content: "hello"', 'encoding: "text"',
        ]  # fmt: skip
        until("the temporary slot is gone", lambda: slots(connection) == 0)

    def test_tables_and_operations_choose(self, connection, config):
        with tailing(
            connection, config, "--table", "public.ord*", "--operations", "delete", "--json", "--limit", "1"
        ) as process:
            connection.execute("INSERT INTO log VALUES ('x')")
            connection.execute("INSERT INTO orders VALUES (1, 'new')")
            connection.execute("DELETE FROM orders")
            output, _ = process.communicate(timeout=60)
        (event,) = map(json.loads, output.splitlines())
        assert (event["action"], event["metadata"]["table_name"], event["record"]) == (
            "delete",
            "orders",
            {"id": 1, "status": "new"},
        )
        assert event["metadata"]["trigger"] is None

    def test_a_trigger_shows_what_it_would_get(self, connection, config):
        with tailing(connection, config, "--trigger", "welcome", "--json", "--limit", "1") as process:
            connection.execute(
                "INSERT INTO users (name, balance, password_hash) VALUES ('poor', 1, 'x'), ('rich', 100, 'x')"
            )
            output, _ = process.communicate(timeout=60)
        (event,) = map(json.loads, output.splitlines())
        assert event["record"]["name"] == "rich"
        assert "password_hash" not in event["record"]
        assert event["metadata"]["trigger"] == "welcome"
        assert event["metadata"]["commit_idx"] == 1

    def test_an_interrupt_ends_it_quietly_and_leaves_no_slot(self, connection, config):
        with tailing(connection, config) as process:
            process.send_signal(signal.SIGINT)
            output, errors = process.communicate(timeout=60)
        assert (process.returncode, output, errors) == (130, "", "")
        until("the temporary slot is gone", lambda: slots(connection) == 0)

    def test_a_missing_publication_is_said_before_anything_is_made(self, connection, config):
        connection.execute("DROP PUBLICATION pgbridge")
        result = run("tail", config=config)
        assert (result.returncode, result.stdout) == (4, "")
        assert result.stderr == 'pgbridge: publication "pgbridge" does not exist; create it with: pgbridge init\n'
        assert slots(connection) == 0

    def test_a_limit_in_the_middle_of_a_transaction_is_kept(self, connection, config):
        with tailing(connection, config, "--limit", "3", "--json") as process:
            connection.execute("INSERT INTO orders SELECT n, 'x' FROM generate_series(1, 500) AS n")
            output, _ = process.communicate(timeout=60)
        assert [json.loads(line)["record"]["id"] for line in output.splitlines()] == [1, 2, 3]

    def test_what_is_made_meanwhile_is_shown_as_a_restart_would_show_it(self, connection, config):
        """Types and keys that were not there when it began, of tables that it is asked for."""
        connection.execute("DROP PUBLICATION pgbridge; CREATE PUBLICATION pgbridge FOR ALL TABLES")
        with tailing(connection, config, "--table", "public.t*", "--json", "--limit", "3") as process:
            connection.execute(
                "CREATE DOMAIN positive AS int4; CREATE TYPE feeling AS ENUM ('ok');"
                "CREATE TABLE t1 (id int PRIMARY KEY, ps positive[], fs feeling[]);"
                "CREATE TABLE t2 (a int, b int, PRIMARY KEY (b, a)); ALTER TABLE t2 REPLICA IDENTITY FULL;"
                "BEGIN; INSERT INTO orders VALUES (1, 'new'); INSERT INTO t1 VALUES (1, '{1,2}', '{ok,NULL}');"
                "INSERT INTO t2 VALUES (1, 2); INSERT INTO t1 VALUES (2, '{}', '{}'); COMMIT"
            )
            output, errors = process.communicate(timeout=60)
        assert (process.returncode, errors) == (0, "")
        first, keyed, second = map(json.loads, output.splitlines())
        assert first["record"] == {"id": 1, "ps": [1, 2], "fs": ["ok", None]}
        assert keyed["metadata"]["keys"] == {"a": 1, "b": 2}
        assert second["record"] == {"id": 2, "ps": [], "fs": []}


class TestEvent:
    def test_it_has_a_value_of_each_type_and_the_triggers_shape(self, config):
        result = run("event", "public.users", "--json", config=config)
        assert (result.returncode, result.stderr) == (0, "")
        event = json.loads(result.stdout)
        assert event["record"] == {
            "id": 7, "name": "Jane Doe", "email": "jane.doe@example.com", "balance": "12.50", "tags": ["sample"],
            "mood": "sad", "big": 1000, "at": "2026-11-22T05:37:00.123456Z", "doc": {"key": "value"},
            "raw": "aGVsbG8=", "span": "[1,10)", "small": "1.00",
        }  # fmt: skip
        assert event["metadata"]["keys"] == {"id": 7}
        assert event["metadata"]["trigger"] == "welcome"
        assert event["id"] == "0000000001A2B3C0-0000000003"

    def test_it_passes_for_a_real_one(self, connection, config):
        """The same bytes as the stream sends for the same row, but for what differs by transaction."""
        sample = json.loads(run("event", "public.orders", "--operation", "update", "--json", config=config).stdout)
        connection.execute("INSERT INTO orders VALUES (7, 'new')")
        with tailing(connection, config, "--json", "--limit", "1") as process:
            connection.execute("UPDATE orders SET status = 'active'")
            real = json.loads(process.communicate(timeout=60)[0])
        assert list(sample) == list(real)
        assert list(sample["metadata"]) == list(real["metadata"])
        assert (sample["record"], sample["changes"]) == (real["record"], real["changes"])

    def test_it_is_indented_for_people_and_wrapped_for_functions(self, config):
        assert run("event", "public.orders", config=config).stdout.startswith('{\n  "id"')
        batch = json.loads(run("event", "public.orders", "--batch", "--json", config=config).stdout)
        assert [event["metadata"]["table_name"] for event in batch["Records"]] == ["orders"]

    def test_filter_takes_it(self, config, tmp_path):
        event = run("event", "public.users", "--json", config=config).stdout
        assert compile_patterns([{"record": {"name": [{"prefix": "Jane"}]}}]).matches_json(event.encode())

    @pytest.mark.parametrize("operation", ["update", "delete"])
    def test_a_change_that_the_server_would_refuse_is_refused(self, config, operation):
        result = run("event", "public.log", "--operation", operation, config=config)
        assert result.returncode == 4
        assert "REPLICA IDENTITY FULL" in result.stderr

    def test_a_delete_has_the_key_alone_and_says_what_was_not_sent(self, config):
        event = json.loads(run("event", "public.users", "--operation", "delete", "--json", config=config).stdout)
        assert event["record"] == {"id": 7}
        assert "name" in event["metadata"]["unavailable"]

    def test_odd_names_are_written_as_in_the_configuration(self, config):
        event = json.loads(run("event", '"We.ird"."T""x"', "--json", config=config).stdout)
        assert (event["metadata"]["table_schema"], event["metadata"]["table_name"]) == ("We.ird", 'T"x')
        assert event["record"] == {"Q'x": "sample"}

    @pytest.mark.parametrize(
        ("table", "code", "says"),
        [
            ("public.user", 4, "there is no table public.user in this database; did you mean public.users?"),
            ("public.*", 2, "names no single table"),
            ("users", 2, "write schema.table, such as public.users"),
            ("public.'; DROP TABLE users; --", 2, "white space"),
            ("public.x';DROP", 4, "there is no table public.x';DROP"),
        ],
    )
    def test_a_table_that_is_none_is_said(self, config, table, code, says):
        result = run("event", table, config=config)
        assert (result.returncode, result.stdout) == (code, "")
        assert says in result.stderr


class TestStatus:
    def test_without_a_process_the_database_is_read_and_said(self, connection, config):
        connection.execute("SELECT pg_create_logical_replication_slot('pgbridge', 'pgoutput')")
        result = run("status", "--json", config=config)
        document = json.loads(result.stdout)
        assert result.returncode == 0
        assert (document["from"], document["state"]) == ("database", "not_running")
        assert "no process answers at http://127.0.0.1:" in document["said"]
        assert document["slot"]["wal_status"] == "reserved"
        assert document["slot"]["retained_bytes"] >= 0
        assert document["triggers"][0]["dead_letters"] is None
        assert document["triggers"][0]["waiting"] is None

    def test_a_missing_slot_is_said_with_its_remedy(self, config):
        result = run("status", config=config)
        assert result.returncode == 0
        assert 'not running: slot "pgbridge" does not exist; create it with: pgbridge init' in result.stdout

    def test_a_process_that_was_asked_by_url_and_does_not_answer_is_an_error(self, config, unused_tcp_port):
        result = run("status", "--url", f"http://127.0.0.1:{unused_tcp_port}", config=config)
        assert (result.returncode, result.stdout) == (3, "")
        assert "no process answers" in result.stderr

    def test_an_unreachable_database_is_an_error(self, config, monkeypatch, unused_tcp_port):
        monkeypatch.setenv("PGBRIDGE_SOURCE_DSN", f"postgresql://u:hunter2@127.0.0.1:{unused_tcp_port}/d")
        result = run("status", config=config)
        assert (result.returncode, result.stdout) == (3, "")
        assert "hunter2" not in result.stderr
        assert len(result.stderr.splitlines()) == 1


STATUS = ServiceStatus(
    ServiceState.STREAMING, slot=SlotStatus("pgbridge"), triggers=(TriggerStatus("welcome", "lambda:welcome"),)
)


@pytest.fixture
def answering():
    """An HTTP server on loopback; `answer(code, body)` says what it answers, `asked` holds the requests' headers."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            server.asked.append(dict(self.headers))
            self.send_response(server.code)
            if server.code == 302:
                self.send_header("Location", "http://127.0.0.1:1/")
            self.send_header("Content-Length", str(len(server.body)))
            self.end_headers()
            self.wfile.write(server.body)

        def log_message(self, *_arguments) -> None:
            """Tests log nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.asked, server.code, server.body = [], 200, json.dumps(STATUS.to_json()).encode()
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


class TestStatusOfAProcess:
    def test_it_is_read_with_the_token(self, answering):
        url = f"http://127.0.0.1:{answering.server_port}"
        assert _from_process(url, "t0ken", "pgbridge") == STATUS
        assert answering.asked[0]["Authorization"] == "Bearer t0ken"

    @pytest.mark.parametrize(
        ("code", "body", "slot", "says"),
        [
            (200, None, "other", 'reads slot "pgbridge", not "other"'),
            (401, b"{}", "pgbridge", "HTTP 401; check admin.token"),
            (302, b"", "pgbridge", "HTTP 302"),
            (200, b"<html>", "pgbridge", "is no pgbridge"),
            (200, b'{"state": "streaming", "slot": 7}', "pgbridge", "is no pgbridge"),
            (200, b"[]", "pgbridge", "is no pgbridge"),
        ],
    )
    def test_what_is_not_the_process_of_this_slot_is_not_believed(self, answering, code, body, slot, says):
        answering.code = code
        answering.body = answering.body if body is None else body
        with pytest.raises(ProcessUnreachable) as caught:
            _from_process(f"http://127.0.0.1:{answering.server_port}", None, slot)
        assert says in str(caught.value)
        assert len(answering.asked) == 1

    @pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://x", "127.0.0.1:8765"])
    def test_only_http_is_asked(self, url):
        with pytest.raises(ProcessUnreachable, match="is no URL"):
            _from_process(url, None, "pgbridge")

    def test_a_running_process_is_asked_before_the_database(self, answering, config):
        text = re.sub(r"127\.0\.0\.1:\d+'", f"127.0.0.1:{answering.server_port}'", config.read_text(), count=1)
        config.write_text(text)
        document = json.loads(run("status", "--json", config=config).stdout)
        assert (document["from"], document["state"], document["triggers"][0]["waiting"]) == ("process", "streaming", 0)
