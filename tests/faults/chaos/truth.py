"""
What was committed, from a logical slot that nobody but us reads, decoded by the manual alone.

Manual: "Logical Replication Message Formats". Nothing of bridge/ is used, so that no mistake is made twice.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import psycopg

PAGE_CHANGES = 20_000


@dataclass(frozen=True, slots=True)
class Change:
    """One committed change, with the id that its event must carry."""

    id: str
    commit_lsn: int
    end_lsn: int
    table: str
    action: str
    keys: tuple[str, ...]
    """Of the row, and of the row before where the key changed; none without a replica identity."""
    values: dict[str, str | None]
    """As text, of the new row; of the old one for a delete. Without columns that were not sent."""

    @property
    def ordinal(self) -> int:
        """In its transaction."""
        return int(self.id.partition("-")[2])


@dataclass(frozen=True, slots=True)
class _Relation:
    table: str
    columns: list[tuple[str, bool]]


class Truth:
    """
    Args:
        dsn: straight to the server.
        slot: made by `create`; holds back WAL until it is dropped with its database.
    """

    def __init__(self, dsn: str, slot: str) -> None:
        self._dsn = dsn
        self._slot = slot
        self._relations: dict[int, _Relation] = {}
        self.changes: list[Change] = []
        self.adjacent_commits: set[int] = set()
        """The commit records that start exactly where the one before ends."""
        self._last_end = 0

    def create(self) -> None:
        with psycopg.connect(self._dsn, autocommit=True) as connection:
            connection.execute("SELECT pg_create_logical_replication_slot(%s, 'pgoutput')", (self._slot,))

    def read(self) -> None:
        """Add to `changes` everything that has been committed since the last call."""
        with psycopg.connect(self._dsn, autocommit=True) as connection:
            (end,) = connection.execute("SELECT pg_current_wal_insert_lsn()::text").fetchone()
            # Every publication of the database is the bridge's, and it streams them all.
            names = "SELECT string_agg(quote_ident(pubname), ',') FROM pg_publication"
            (publications,) = connection.execute(names).fetchone()
            while True:
                rows = connection.execute(
                    "SELECT data FROM pg_logical_slot_get_binary_changes(%s, %s, %s, 'proto_version', '1',"
                    " 'publication_names', %s, 'messages', 'true')",
                    (self._slot, end, PAGE_CHANGES, publications),
                    binary=True,
                ).fetchall()
                if not rows:
                    return
                self.changes += self._decode(data for (data,) in rows)

    def _decode(self, messages: Iterable[bytes]) -> Iterator[Change]:
        found: list[tuple[int, str, str, tuple[str, ...], dict[str, str | None]]] = []
        commit_lsn = ordinal = 0
        for data in messages:
            kind = data[:1]
            if kind == b"B":
                (commit_lsn,) = struct.unpack_from(">Q", data, 1)
                ordinal, found = 0, []
            elif kind == b"C":
                lsn, end_lsn = struct.unpack_from(">QQ", data, 2)
                assert lsn == commit_lsn, "Commit and Begin name two positions"
                if self._last_end == commit_lsn:
                    self.adjacent_commits.add(commit_lsn)
                self._last_end = end_lsn
                for number, table, action, keys, values in found:
                    yield Change(f"{commit_lsn:016X}-{number:010d}", commit_lsn, end_lsn, table, action, keys, values)
            elif kind == b"R":
                self._relation(data)
            elif kind in b"IUD":
                found.append((ordinal, *self._row(data)))
                ordinal += 1
            elif kind == b"T":
                count, _ = struct.unpack_from(">IB", data, 1)
                for oid in struct.unpack_from(f">{count}I", data, 6):
                    found.append((ordinal, self._relations[oid].table, "truncate", (), {}))
                    ordinal += 1
            elif kind == b"M":
                ordinal += data[1] & 1
            else:
                assert kind in b"YO", f"message {kind!r} is not expected here"

    def _relation(self, data: bytes) -> None:
        (oid,) = struct.unpack_from(">I", data, 1)
        namespace, name, rest = data[5:].split(b"\0", 2)
        _identity, count = struct.unpack_from(">BH", rest)
        columns, at = [], 3
        for _ in range(count):
            flags = rest[at]
            end = rest.index(b"\0", at + 1)
            columns.append((rest[at + 1 : end].decode(), bool(flags & 1)))
            at = end + 9
        self._relations[oid] = _Relation(f"{namespace.decode()}.{name.decode()}", columns)

    def _row(self, data: bytes) -> tuple[str, str, tuple[str, ...], dict[str, str | None]]:
        (oid,) = struct.unpack_from(">I", data, 1)
        relation = self._relations[oid]
        at, tuples = 5, {}
        while at < len(data):
            tag = data[at : at + 1]
            tuples[tag], at = _tuple(data, at + 1)
        names = [name for name, _ in relation.columns]
        key_columns = [name for name, in_key in relation.columns if in_key]
        rows = {tag: dict(zip(names, values, strict=True)) for tag, values in tuples.items()}
        row = rows.get(b"N") or rows.get(b"K") or rows[b"O"]
        keys = {_key(relation.table, each, key_columns) for each in rows.values()} if key_columns else set()
        action = {b"I": "insert", b"U": "update", b"D": "delete"}[data[:1]]
        values = {name: None if value is None else value.decode() for name, value in row.items() if value != b"\0u"}
        if action == "delete" and b"K" in rows:
            values = {name: values[name] for name in key_columns}
        return relation.table, action, tuple(sorted(keys)), values


def _key(table: str, row: dict[str, bytes | None], columns: list[str]) -> str:
    return " ".join([table, *(row[name].decode() for name in columns)])


def _tuple(data: bytes, at: int) -> tuple[list[bytes | None], int]:
    (count,) = struct.unpack_from(">H", data, at)
    at += 2
    values: list[bytes | None] = []
    for _ in range(count):
        kind = data[at : at + 1]
        at += 1
        if kind == b"t":
            (length,) = struct.unpack_from(">I", data, at)
            values.append(bytes(data[at + 4 : at + 4 + length]))
            at += 4 + length
        else:
            values.append(None if kind == b"n" else b"\0u")
    return values, at
