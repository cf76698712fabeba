"""
A relation and a shape made into a plan: which columns go where, how each is encoded, and what orders the events.

The plan writes an event in two ways that give the same bytes: here the plain way, from decoded messages, which is the
definition; in `compiled.py` the fast way, from the frame's bytes, generated from the same plan. The plain way also
takes the rows that the fast one leaves to it (rare message kinds, text that is not UTF-8), and those of a backfill.

An event's body, in this order (the trigger's own tail follows, see `triggers/envelope.py`):

    {"id":…,"action":…,"record":{…},"changes":{…}|null,"metadata":{"source":"pgbridge","database":…,"table_schema":…,
     "table_name":…,"schema_version":…,"commit_lsn":…,"commit_idx":…,"commit_timestamp":…,"transaction_id":…,
     "keys":{…},"old_keys":{…}|null,"unavailable":[…],

- `record` is the new row, or for a delete the old one as far as it was sent. Columns that were not sent are absent
  and listed in `unavailable`.
  For a truncate it is null, and `"truncate":{"cascade":…,"restart_identity":…}` follows `unavailable`.
- `changes` holds the old values of the changed columns where the old row was sent (FULL), else null.
- `keys` are the columns of the replica identity; where that names no key (FULL, NOTHING) those of the primary key, if
  it is known, else none. `old_keys` holds all of them as they were, when one has changed.
- Static members stand first in `record`, where there is one.
- A column that the shape excludes stands nowhere, not even in `keys`. One that is merely not included is left out of
  `record`, `changes` and `unavailable`; `keys` still name the row.
- Text that is not UTF-8 (an SQL_ASCII database) is written as its Latin-1 reading, one character U+0000 to U+00FF a
  byte, so that nothing is lost and every JSON parser accepts it; a member `"latin1":[column, …]` then follows
  `unavailable`, and each value of a column in that list is written so, in that event. Other events have no such
  member.

Ordering key: the table's qualified name, then for each ordering column NUL and `v` and its raw text, or NUL and `n`
for null. No text of PostgreSQL's holds a NUL, so no two keys are the same by chance. Where a change's ordering
columns were not sent, it is a barrier instead: alone it is in order with everything.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import orjson

from bridge.change import UNCHANGED, Event, Transaction, Unchanged
from bridge.errors import UnexpectedMessage
from bridge.pgoutput.frames import clock_text
from bridge.pgoutput.messages import (
    CASCADE,
    RESTART_IDENTITY,
    Column,
    Delete,
    Insert,
    RelationMessage,
    TupleData,
    TypeMessage,
    Update,
)
from bridge.pgoutput.schema_version import Description
from bridge.pgoutput.values import Encoder, Form, TypeCatalog, ValueType, encoder_of, no_catalog, resolve
from bridge.triggers.shape import Shape

Stamp = tuple[Transaction, bytes, bytes, bytes]
"""
What all events of a transaction share: itself; the id up to the ordinal; JSON from commit_lsn's value up to
commit_idx's; JSON from after commit_idx's value up to keys' value.
"""

NULL: Final = b"null"
KEY_VALUE: Final = b"\0v"
KEY_NULL: Final = b"\0n"


def make_stamp(transaction: Transaction, committed_at: int) -> Stamp:
    """
    Write what the events of one transaction share.

    Args:
        transaction: the one that they carry.
        committed_at: microseconds since 2000-01-01 UTC, exact where the transaction's seconds are rounded.

    Raises:
        OverflowError: the commit time is outside of the years 1 to 9999.
    """
    return (
        transaction,
        b"%016X-" % transaction.commit_lsn,
        b'%d,"commit_idx":' % transaction.commit_lsn,
        b',"commit_timestamp":"%b","transaction_id":%d,"keys":'
        % (clock_text(committed_at).encode("ascii"), transaction.xid),
    )


@dataclass(frozen=True, slots=True)
class ColumnPlan:
    """What becomes of one column."""

    index: int
    name: str
    json_name: bytes
    """`"name"`, quoted and escaped."""
    value_type: ValueType
    encode: Encoder
    flagged: bool
    """Part of the replica identity as the server flags it: present in `K` tuples."""
    in_record: bool
    in_keys: bool
    """Shown in `keys`."""


@dataclass(frozen=True, slots=True)
class KeyLayout:
    """What the ordering keys of a relation are made of; when it changes, older and newer keys can't be compared."""

    prefix: bytes
    columns: tuple[str, ...] | None
    """None: the whole table is one key, or (`ordered` False) nothing is ordered."""
    ordered: bool


class Plan:
    """How the changes of one relation version become events of one shape."""

    def __init__(
        self,
        relation: RelationMessage,
        shape: Shape,
        *,
        database: str,
        primary_key: Sequence[str] | None = None,
        announced: Mapping[int, TypeMessage] | None = None,
        catalog: TypeCatalog = no_catalog,
    ) -> None:
        """
        Args:
            relation: the table as it is now.
            shape: which columns, what order.
            database: stands in the metadata.
            primary_key: its columns, for identities that flag no key (FULL, NOTHING); None: there is none, or unknown.
            announced: Type messages by OID.
            catalog: `pg_type`, for types that are not built in.
        """
        self.relation = relation
        self.shape = shape
        self.table = relation.qualified_name
        self.key_prefix = _key_prefix(relation)
        identity = _identity(relation, primary_key)
        self.columns = tuple(
            _column_plan(
                index, column, resolve(column.type_oid, announced, catalog), shape, in_identity=index in identity
            )
            for index, column in enumerate(relation.columns)
        )
        self.identity = identity
        """Indexes of the columns that name a row, in table order; empty where that is unknown."""
        self.ordering = self._resolve_ordering()
        """Indexes of the ordering columns; empty: see `table_key` and `ordered`."""
        self.table_key: bytes | None = self.key_prefix if self.ordered and not self.ordering else None
        if self.insert_only:
            self.table_key = None
        self.metadata = (
            b'"metadata":{"source":"pgbridge","database":%b,"table_schema":%b,"table_name":%b,'
            b'"schema_version":"%b","commit_lsn":'
            % (
                orjson.dumps(database),
                orjson.dumps(relation.namespace),
                orjson.dumps(relation.name),
                Description.of(relation, announced or {}).schema_version.encode("ascii"),
            )
        )
        """From the metadata's start up to commit_lsn's value."""

    @property
    def ordered(self) -> bool:
        """False: this shape wants no order at all."""
        return self.shape.order_by != "none"

    @property
    def insert_only(self) -> bool:
        """
        True where rows have no name and no order was asked for but theirs: no identity, so the server refuses updates
        and deletes.

        Inserts into it are in nobody's way; what else may come (from a partition with an identity of its own) is a
        barrier.
        """
        return self.shape.order_by == "primary_key" and not self.identity and self.relation.replica_identity != "f"

    @property
    def key_layout(self) -> KeyLayout:
        columns = tuple(self.columns[index].name for index in self.ordering) or None
        return KeyLayout(self.key_prefix, columns, self.ordered and not self.insert_only)

    def _resolve_ordering(self) -> tuple[int, ...]:
        order_by = self.shape.order_by
        if isinstance(order_by, tuple):
            by_name = {column.name: column.index for column in self.columns}
            # A column that isn't there can't order anything: the whole table stays in order instead.
            return tuple(by_name[name] for name in order_by) if all(name in by_name for name in order_by) else ()
        return self.identity if order_by == "primary_key" else ()

    # The plain way

    def encode(self, change: Insert | Update | Delete, ordinal: int, stamp: Stamp) -> Event:
        """
        One row change as an event.

        Raises:
            UnexpectedMessage: another number of columns than the relation has.
            MalformedMessage: a value's text can't be of its type.
        """
        match change:
            case Insert():
                row = self._checked(change.new)
                return self._event("insert", ordinal, stamp, row, None, changes=False)
            case Update():
                before = self._before(change.key, change.old)
                new = self._checked(change.new)
                row = new if before is None else tuple(map(_unless_unchanged, new, before))
                return self._event("update", ordinal, stamp, row, before, changes=change.old is not None)
            case Delete():
                before = self._before(change.key, change.old)
                if before is None:
                    raise UnexpectedMessage("a Delete without key and old row", table=self.table)
                return self._event("delete", ordinal, stamp, before, None, changes=False)

    def encode_read(self, row: TupleData, ordinal: int, stamp: Stamp) -> Event:
        """One row of a backfill, its values in the relation's order, as a `read` event."""
        return self._event("read", ordinal, stamp, self._checked(row), None, changes=False)

    def encode_truncate(self, options: int, ordinal: int, stamp: Stamp) -> Event:
        """The table was emptied: a barrier, for it concerns every row's order. `options` as in the message."""
        transaction, id_prefix, lsn, times = stamp
        event_id = id_prefix + b"%010d" % ordinal
        body = b"".join(
            [
                b'{"id":"%b","action":"truncate","record":null,"changes":null,' % event_id,
                self.metadata,
                lsn,
                b"%d" % ordinal,
                times,
                b'{},"old_keys":null,"unavailable":[],',
                b'"truncate":{"cascade":%b,"restart_identity":%b},'
                % (_truth(options & CASCADE), _truth(options & RESTART_IDENTITY)),
            ]
        )
        key = self.key_prefix if self.ordered else None
        return Event(event_id, transaction, ordinal, key, None, self.table, "truncate", body, self.ordered)

    def _checked(self, row: TupleData) -> TupleData:
        if len(row) != len(self.columns):
            raise UnexpectedMessage(
                f"a row of {len(row)} columns, the relation has {len(self.columns)}", table=self.table
            )
        return row

    def _before(self, key: TupleData | None, old: TupleData | None) -> TupleData | None:
        """The old row as far as it is known: all of it, or just the identity's columns."""
        if old is not None:
            return self._checked(old)
        if key is None:
            return None
        pairs = zip(self._checked(key), self.columns, strict=True)
        return tuple([value if column.flagged else UNCHANGED for value, column in pairs])

    def _event(
        self, action: str, ordinal: int, stamp: Stamp, row: TupleData, before: TupleData | None, *, changes: bool
    ) -> Event:
        transaction, id_prefix, lsn, times = stamp
        event_id = id_prefix + b"%010d" % ordinal
        latin1 = self._not_utf8(row, before)

        def members(values: TupleData, wanted: Callable[[ColumnPlan], bool]) -> bytes:
            return b",".join(
                [
                    column.json_name + b":" + _json(column, value, latin1=column.index in latin1)
                    for column, value in zip(self.columns, values, strict=True)
                    if wanted(column) and not isinstance(value, Unchanged)
                ]
            )

        changed = b"null"
        if changes and before is not None:
            different = {i for i, (old, new) in enumerate(zip(before, row, strict=True)) if old != new}
            changed = b"{%b}" % members(before, lambda column: column.in_record and column.index in different)
        old_keys = b"null"
        if before is not None and self._differ([c.index for c in self.columns if c.in_keys], row, before):
            old_keys = b"{%b}" % members(before, lambda column: column.in_keys)
        absent = [c.json_name for c in self.columns if c.in_record and isinstance(row[c.index], Unchanged)]
        body = b"".join(
            [
                b'{"id":"%b","action":"%b","record":{' % (event_id, action.encode()),
                (self.shape.static_members() + members(row, lambda column: column.in_record)).removesuffix(b","),
                b'},"changes":',
                changed,
                b",",
                self.metadata,
                lsn,
                b"%d" % ordinal,
                times,
                b'{%b},"old_keys":' % members(row, lambda column: column.in_keys),
                old_keys,
                b',"unavailable":[%b],' % b",".join(absent),
                b'"latin1":[%b],' % b",".join([self.columns[i].json_name for i in sorted(latin1)]) if latin1 else b"",
            ]
        )
        key, old_key, barrier = self._keys(action, row, before)
        return Event(event_id, transaction, ordinal, key, old_key, self.table, action, body, barrier)

    def _keys(self, action: str, row: TupleData, before: TupleData | None) -> tuple[bytes | None, bytes | None, bool]:
        if not self.ordered:
            return None, None, False
        if not self.ordering:
            return self.table_key, None, self.insert_only and action in {"update", "delete"}
        key = self._key(row)
        if key is None:
            return None, None, True
        old_key = None if before is None else self._key(before)
        return key, None if old_key == key else old_key, False

    def _key(self, row: TupleData) -> bytes | None:
        pieces = [self.key_prefix]
        for index in self.ordering:
            value = row[index]
            if isinstance(value, Unchanged):
                return None
            pieces.append(KEY_NULL if value is None else KEY_VALUE + value)
        return b"".join(pieces)

    @staticmethod
    def _differ(indexes: Sequence[int], row: TupleData, before: TupleData) -> bool:
        """Whether one of these columns is known to have changed."""
        return any(
            row[i] != before[i] and not isinstance(row[i], Unchanged) and not isinstance(before[i], Unchanged)
            for i in indexes
        )

    def _not_utf8(self, row: TupleData, before: TupleData | None) -> frozenset[int]:
        shown = [column.index for column in self.columns if column.in_record or column.in_keys]
        return frozenset(
            index
            for index in shown
            for values in (row, before)
            if values is not None and isinstance(value := values[index], bytes) and not _is_utf8(value)
        )


def _json(column: ColumnPlan, value: bytes | None, *, latin1: bool) -> bytes:
    if value is None:
        return NULL
    return column.encode(value.decode("latin-1").encode() if latin1 else value)


def _truth(flag: int) -> bytes:
    return b"true" if flag else b"false"


def _is_utf8(text: bytes) -> bool:
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return True


def _unless_unchanged(new: bytes | Unchanged | None, old: bytes | Unchanged | None) -> bytes | Unchanged | None:
    """A TOASTed value that was not sent is what it was before, where that is known."""
    return old if isinstance(new, Unchanged) else new


def _identity(relation: RelationMessage, primary_key: Sequence[str] | None) -> tuple[int, ...]:
    if relation.replica_identity not in "fn":
        return tuple(i for i, column in enumerate(relation.columns) if column.is_key)
    wanted = frozenset(primary_key or ())
    found = tuple(i for i, column in enumerate(relation.columns) if column.name in wanted)
    # A column list may hide a part of the key, and DDL may be ahead of us or behind: half a key names no row.
    return found if len(found) == len(wanted) else ()


def _column_plan(index: int, column: Column, value_type: ValueType, shape: Shape, *, in_identity: bool) -> ColumnPlan:
    shown = shape.shows(column.name)
    mask = shape.mask_of(column.name)
    if mask is not None:
        value_type = replace(value_type, form=Form.MASKED, element=None)
    return ColumnPlan(
        index=index,
        name=column.name,
        # A copy: orjson's own bytes keep the kilobyte or more that they were written into.
        json_name=bytes(memoryview(orjson.dumps(shape.name_of(column.name)))),
        value_type=value_type,
        encode=encoder_of(value_type) if mask is None else mask.encode,
        flagged=column.is_key,
        in_record=shown and (shape.include is None or column.name in shape.include),
        in_keys=shown and in_identity,
    )


def _key_prefix(relation: RelationMessage) -> bytes:
    """The qualified name, quoted as in SQL where a dot in a name would make it ambiguous."""
    return ".".join([_quoted(relation.namespace), _quoted(relation.name)]).encode()


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"' if "." in name or '"' in name else name
