"""
What the stream does not say of tables and types, read from the system catalogs.

A Relation message flags no key where the replica identity is FULL or NOTHING, and a Type message has a type's name but
not whether it is a domain or an array. Both are read when a stream starts; what DDL makes afterwards is read again when
a relation or a type turns up that is not known here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from bridge.pgoutput.values import CatalogType
from bridge.source.queries import Queries

PRIMARY_KEYS = """
SELECT i.indrelid, a.attname
  FROM pg_catalog.pg_index i
  CROSS JOIN LATERAL pg_catalog.unnest(i.indkey::pg_catalog.int2[]) WITH ORDINALITY AS k(attnum, place)
  JOIN pg_catalog.pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum
 WHERE i.indisprimary AND i.indrelid >= 16384
 ORDER BY i.indrelid, k.place
"""

# Types that initdb made are built in: their OIDs are below FirstNormalObjectId, 16384. Row types of tables are many,
# and are text whether they are listed or not.
TYPES = """
SELECT t.oid, t.typtype, t.typbasetype,
       CASE WHEN t.typsubscript = 'pg_catalog.array_subscript_handler'::pg_catalog.regproc THEN t.typelem ELSE 0 END,
       coalesce(e.typdelim, ',')
  FROM pg_catalog.pg_type t
  LEFT JOIN pg_catalog.pg_type e ON e.oid = t.typelem
 WHERE t.oid >= 16384 AND (t.typtype = 'd' OR t.typelem <> 0)
"""


@dataclass(frozen=True, slots=True)
class Catalog:
    """The catalogs as they were when this was read."""

    primary_keys: Mapping[int, tuple[str, ...]]
    types: Mapping[int, CatalogType]

    def primary_key(self, relation_oid: int) -> tuple[str, ...] | None:
        """Columns of a table's primary key, in its order; None where it has none."""
        return self.primary_keys.get(relation_oid)

    def type_of(self, type_oid: int) -> CatalogType | None:
        """A domain or an array type; None for built-in types and those that are text anyway."""
        return self.types.get(type_oid)


async def load(session: Queries) -> Catalog:
    """
    Read the catalogs; any role may.

    Raises:
        SourceError: the server refused.
    """
    keys: dict[int, list[str]] = {}
    for relation, column in await session.query(PRIMARY_KEYS):
        keys.setdefault(int(relation or 0), []).append(column or "")
    types = {
        int(oid or 0): CatalogType(
            kind=kind or "b", base=int(base or 0), element=int(element or 0), delimiter=delimiter or ","
        )
        for oid, kind, base, element, delimiter in await session.query(TYPES)
    }
    return Catalog({relation: tuple(columns) for relation, columns in keys.items()}, types)
