"""
What a relation needs of the catalog before its rows can be written, and whether the catalog at hand has it.

A Relation message flags no key under FULL and NOTHING, and a Type message doesn't tell a domain or an array from other
types. The catalog does, but it has to be new enough: what it says of a table that was altered since it was read, or of
a type that did not exist then, would give other bytes and other ordering keys than after a restart. So the assembler
asks at each Relation message, and stops before it where the answer is no.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from bridge.pgoutput.messages import RelationMessage, TypeMessage
from bridge.pgoutput.values import is_told_by_the_stream


@dataclass(frozen=True, slots=True)
class Lookup:
    """What one relation needs to be known, as a transaction left it."""

    table: str
    """Its qualified name, to tell people."""
    key_of: int | None
    """OID of the relation, where its primary key matters."""
    types: frozenset[int]
    """OIDs of types that the stream says too little of."""
    xid: int
    """The transaction of which the Relation message came; whatever was altered was committed by it or before it."""


Lacks = Callable[[Lookup], bool]
"""Whether the catalog at hand can't answer, and reading it again might help."""


def lacks_nothing(_lookup: Lookup) -> bool:
    """For a catalog that is asked live, or not there at all."""
    return False


def lookup_for(message: RelationMessage, announced: Mapping[int, TypeMessage], xid: int) -> Lookup | None:
    """What this relation needs; None where the stream says all."""
    key_of = message.oid if message.replica_identity in "fn" else None
    types = frozenset(
        column.type_oid for column in message.columns if not is_told_by_the_stream(column.type_oid, announced)
    )
    return Lookup(message.qualified_name, key_of, types, xid) if types or key_of is not None else None
