"""
The messages of pgoutput, protocol version 1 in text, fields named and ordered as in the manual.

Manual, "Logical Replication Message Formats"; where that is silent, `src/backend/replication/logical/proto.c`.
Times are microseconds since 2000-01-01 UTC. Row data is kept out of every repr.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from bridge.change import Unchanged
from bridge.lsn import LSN

TupleData = tuple[bytes | Unchanged | None, ...]
"""
One entry a column, in the order of the Relation message: the value's text, None for null, `UNCHANGED` for a TOASTed
value that was not sent.
"""

KEY_FLAG: Final = 1
"""Column flag: part of the replica identity. Under FULL it is set on every column."""

CASCADE: Final = 1
RESTART_IDENTITY: Final = 2
TRANSACTIONAL: Final = 1


@dataclass(frozen=True, slots=True)
class Begin:
    """`B`. Opens a transaction; sent when it has committed."""

    final_lsn: LSN
    """Where the commit record starts; the same as the Commit's `commit_lsn`."""
    committed_at: int
    xid: int


@dataclass(frozen=True, slots=True)
class Commit:
    """`C`. Closes the transaction."""

    flags: int
    """Unused as yet: 0."""
    commit_lsn: LSN
    end_lsn: LSN
    """Just past the commit record: as it stands, the position to confirm."""
    committed_at: int


@dataclass(frozen=True, slots=True)
class Origin:
    """`O`. The transaction was replicated from elsewhere; follows its Begin."""

    commit_lsn: LSN
    """On the server it came from."""
    name: str


@dataclass(frozen=True, slots=True)
class Column:
    flags: int
    name: str
    type_oid: int
    type_modifier: int

    @property
    def is_key(self) -> bool:
        return bool(self.flags & KEY_FLAG)


@dataclass(frozen=True, slots=True)
class RelationMessage:
    """`R`. Describes a table before its first change, and again after it was altered."""

    oid: int
    namespace: str
    """Schema; the empty string on the wire is `pg_catalog`."""
    name: str
    replica_identity: str
    """`d` default, `n` nothing, `f` full, `i` index (`pg_class.relreplident`)."""
    columns: tuple[Column, ...]

    @property
    def qualified_name(self) -> str:
        return f"{self.namespace}.{self.name}"


@dataclass(frozen=True, slots=True)
class TypeMessage:
    """`Y`. Names a type that is not built in, before the Relation that uses it. For a domain, its base type's name."""

    oid: int
    namespace: str
    name: str


@dataclass(frozen=True, slots=True)
class Insert:
    """`I`."""

    relation_oid: int
    new: TupleData = field(repr=False)


@dataclass(frozen=True, slots=True)
class Update:
    """
    `U`. The old row comes with it (`O`) under FULL, its key (`K`) when the update changed that, nothing otherwise.

    In `key` only the identity's columns mean anything; the others are null on the wire.
    """

    relation_oid: int
    key: TupleData | None = field(repr=False)
    old: TupleData | None = field(repr=False)
    new: TupleData = field(repr=False)


@dataclass(frozen=True, slots=True)
class Delete:
    """`D`. Either the key (`K`) or, under FULL, the old row (`O`)."""

    relation_oid: int
    key: TupleData | None = field(repr=False)
    old: TupleData | None = field(repr=False)


@dataclass(frozen=True, slots=True)
class Truncate:
    """`T`."""

    options: int
    relation_oids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class LogicalMessage:
    """`M`. What `pg_logical_emit_message` wrote."""

    flags: int
    lsn: LSN
    """Just past the message's record: `logicalmsg_decode` passes the record's end."""
    prefix: str
    content: bytes = field(repr=False)

    @property
    def transactional(self) -> bool:
        return bool(self.flags & TRANSACTIONAL)


Message = Begin | Commit | Origin | RelationMessage | TypeMessage | Insert | Update | Delete | Truncate | LogicalMessage
