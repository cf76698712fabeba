"""
Replication commands and statements as quoted text. Pure.

Source: manual, "Streaming Replication Protocol"; grammar in `repl_gram.y` and `repl_scanner.l`, which know neither
parameters nor escape sequences: a quote inside quotes is doubled, and that is all.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from bridge.errors import ConfigError
from bridge.lsn import LSN

PLUGIN = "pgoutput"
IDENTIFY_SYSTEM = "IDENTIFY_SYSTEM"

# ReplicationSlotValidateName in slot.c; 63 is NAMEDATALEN - 1.
_SLOT_NAME = re.compile(r"[a-z0-9_]{1,63}")
_LONGEST_NAME_BYTES = 63

# The server versions in which the grammar changed, as `server_version_num`.
_MESSAGES_OPTION = 140000
ORIGIN_OPTION = 160000
"""The first server that can leave out what carries a replication origin."""
_FAILOVER_SLOTS = 170000


@dataclass(frozen=True, slots=True)
class Statement:
    """One statement as data: what to run, without its semicolon, and why. Or several that are one step."""

    sql: str
    why: str
    needed: bool = True
    """False where things also work without it: then a missing right is worth a warning, not an error."""
    together: tuple[str, ...] = ()
    """Statements that follow in the same transaction."""
    locked: tuple[str, ...] = ()
    """Quoted tables that nobody may be writing to at that moment; `queries.run` says how far that goes."""

    @property
    def commands(self) -> tuple[str, ...]:
        """All of it in order, to be run in one transaction."""
        lock = f"LOCK TABLE {', '.join(self.locked)} IN SHARE ROW EXCLUSIVE MODE"
        return (*((lock,) if self.locked else ()), self.sql, *self.together)

    @property
    def text(self) -> str:
        """The same on one line, for a reader."""
        together = "; ".join(self.commands)
        return together if len(self.commands) == 1 else f"BEGIN; {together}; COMMIT"


def quote_identifier(name: str) -> str:
    """
    A name as SQL and the replication grammar take it, always in double quotes.

    Raises:
        ConfigError: the name is empty, or holds a zero byte, which would cut the statement short.
    """
    if not name or "\0" in name:
        raise ConfigError(f"{name!r} can't be the name of anything in PostgreSQL", remedy="give it another name")
    return '"' + name.replace('"', '""') + '"'


def quote_qualified(schema: str, name: str) -> str:
    """`"schema"."name"`."""
    return f"{quote_identifier(schema)}.{quote_identifier(name)}"


def quote_literal(text: str) -> str:
    """A string constant that reads the same whatever `standard_conforming_strings` says."""
    if "\0" in text:
        raise ConfigError("a zero byte can't stand in a statement", remedy="remove it")
    quoted = text.replace("'", "''")
    return f" E'{quoted.replace(chr(92), chr(92) * 2)}'" if "\\" in quoted else f"'{quoted}'"


def check_slot_name(name: str) -> str:
    """
    Return the name if a slot can have it.

    Raises:
        ConfigError: it is empty, too long, or has other characters than the server allows.
    """
    if _SLOT_NAME.fullmatch(name) is None:
        raise ConfigError(
            f"source.slot holds {name!r}, which can't be the name of a slot",
            remedy="use 1 to 63 of the characters a-z, 0-9 and _",
        )
    return name


def check_publication_name(name: str) -> str:
    """
    Return the name if a publication can have it.

    Raises:
        ConfigError: it is empty, has a zero byte, or the server would cut it short and then not find it.
    """
    quote_identifier(name)
    if len(name.encode()) > _LONGEST_NAME_BYTES:
        raise ConfigError(
            f"source.publication holds {name!r}, and PostgreSQL keeps only {_LONGEST_NAME_BYTES} bytes of a name",
            remedy="use a shorter name",
        )
    return name


def companion_name(publication: str) -> str:
    """The name of the publication beside another that publishes inserts only (`publication.py` says why)."""
    suffix = "_inserts"
    kept = publication.encode()[: _LONGEST_NAME_BYTES - len(suffix)]
    return kept.decode(errors="ignore") + suffix


def create_slot(name: str, *, temporary: bool = False, failover: bool = False) -> str:
    """
    CREATE_REPLICATION_SLOT for pgoutput, without an exported snapshot.

    The form without parentheses is the only one that 14 knows, and all later servers still take it. `failover` has no
    such form; it came with 17, as the parentheses did with 15.
    """
    kind = f"{quote_identifier(check_slot_name(name))}{' TEMPORARY' if temporary else ''} LOGICAL {PLUGIN}"
    if failover:
        return f"CREATE_REPLICATION_SLOT {kind} (SNAPSHOT 'nothing', FAILOVER true)"
    return f"CREATE_REPLICATION_SLOT {kind} NOEXPORT_SNAPSHOT"


def create_slot_sql(name: str, *, server_version: int, failover: bool = True) -> str:
    """
    The same as SQL, which needs no replication connection.

    With `failover`, from 17 on, standbys that synchronise slots carry it, so that it survives a promotion; without such
    standbys it changes nothing.
    """
    arguments = f"{quote_literal(check_slot_name(name))}, '{PLUGIN}'"
    if failover and supports_failover(server_version):
        arguments += ", failover => true"
    return f"SELECT pg_catalog.pg_create_logical_replication_slot({arguments})"


def explain_slot(name: str) -> str:
    """What can be wrong with a slot that the server will not stream; for the simple protocol, hence no parameter."""
    return (
        "SELECT s.active_pid, s.slot_type, s.plugin, s.database, pg_catalog.current_database(),"  # noqa: S608 - quoted
        " pg_catalog.current_setting('wal_level'), pg_catalog.pg_is_in_recovery(),"
        " s.wal_status"
        f" FROM pg_catalog.pg_replication_slots s WHERE s.slot_name = {quote_literal(check_slot_name(name))}"
    )


def settings(names: Iterable[str]) -> str:
    """Names in lower case and values of server settings; likewise."""
    return (
        "SELECT pg_catalog.lower(name), setting FROM pg_catalog.pg_settings WHERE pg_catalog.lower(name)"  # noqa: S608 - quoted
        f" IN ({', '.join(quote_literal(name) for name in names)})"
    )


def drop_slot_sql(name: str) -> str:
    return f"SELECT pg_catalog.pg_drop_replication_slot({quote_literal(check_slot_name(name))})"


def supports_failover(server_version: int) -> bool:
    """Whether slots can be synchronised to standbys."""
    return server_version >= _FAILOVER_SLOTS


def find_publications(names: Iterable[str]) -> str:
    """Which of the publications there are; for the simple protocol, hence no parameter."""
    listed = ", ".join(quote_literal(name) for name in names)
    return f"SELECT pubname FROM pg_catalog.pg_publication WHERE pubname IN ({listed})"  # noqa: S608 - quoted


def start_replication(
    slot: str, publications: Iterable[str], lsn: LSN, *, server_version: int, local_only: bool = False
) -> str:
    """
    START_REPLICATION from `lsn`, or from where the slot stands if that is further.

    With `local_only`, transactions that carry a replication origin are not sent; only a server that knows the option
    (16) may be asked for that.

    Protocol version 1: its Begin already carries the commit LSN, so no transaction has to be held. `messages` asks for
    logical messages, which pgoutput sends from 14 on.
    """
    # pgoutput splits the list as SQL identifiers, folding what is not quoted: hence quotes inside quotes.
    names = ", ".join(quote_identifier(check_publication_name(name)) for name in publications).replace("'", "''")
    options = f"proto_version '1', publication_names '{names}'"
    if server_version >= _MESSAGES_OPTION:
        options += ", messages 'true'"
    if local_only:
        options += ", origin 'none'"
    return f"START_REPLICATION SLOT {quote_identifier(check_slot_name(slot))} LOGICAL {lsn} ({options})"
