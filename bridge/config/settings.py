"""The file as a whole, and its sections of plain settings: source, store and admin."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal, NamedTuple

from pydantic import Field, ValidationInfo, field_validator

from bridge.config.section import Identifier, Section
from bridge.config.targets import is_loopback
from bridge.config.trigger import BacklogSettings, TriggerSettings
from bridge.secret import Secret

TRIGGER_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")


def _check_dsn(secret: Secret | None) -> Secret | None:
    """A libpq connection string or URI, as far as that can be told without connecting."""
    if secret is None or secret.literal is None:
        return secret
    import psycopg  # noqa: PLC0415 - `pgbridge schema` needs no libpq
    from psycopg.conninfo import conninfo_to_dict  # noqa: PLC0415 - as above

    try:
        conninfo_to_dict(secret.literal)
    except psycopg.ProgrammingError:
        # Not chained, not quoted: libpq's sentence repeats parts of the string, the password among them.
        raise ValueError(
            "it must be a libpq connection string or URI, such as postgresql://user:password@host:5432/database"
        ) from None
    return secret


class SourceSettings(Section):
    """The database that changes are read from."""

    dsn: Secret
    """
    libpq connection string or URI of the database to read. It must reach PostgreSQL itself: PgBouncer does not pass
    replication connections on. A secret: `${VAR}`, `file:`, `secretsmanager:` or `ssm:`.
    """
    slot: Annotated[str, Field(pattern=r"^[a-z0-9_]{1,63}$")] = "pgbridge"
    """Name of the replication slot; `pgbridge init` makes it. One process reads a slot at a time."""
    publication: Identifier = "pgbridge"
    """Name of the publication that says which tables are sent."""
    manage: bool = True
    """Whether the publication is created, and kept in step with the triggers' tables; false where it is your own."""
    origin: Literal["any", "none"] = "any"
    """
    none leaves out what carries a replication origin: changes that came by logical replication, and those of sessions
    that have set one up, as a function may for its own writes. Needs PostgreSQL 16. Default any: all changes.
    """
    push_down: Literal["auto", "off"] = "auto"
    """
    auto: of a table of which no trigger wants updates or deletes the server sends neither, and from PostgreSQL 15 on
    only rows that a filter may want, as far as SQL can say so. It then keeps the columns that the filters read from
    being dropped or given another type. off: all changes of the triggers' tables are sent, and filtered here.
    """
    iam_auth: bool = False
    """Log in with an RDS IAM token, made anew for each connection, in place of a password."""

    _dsn = field_validator("dsn")(_check_dsn)


class StoreSettings(Section):
    """Where checkpoints and dead letters are kept."""

    dsn: Secret | None = None
    """
    libpq connection string or URI of the store. Default: the source database, since one database less can fail and it
    is backed up already.
    """
    schema_: Identifier = Field(default="pgbridge", alias="schema")
    """Schema that holds our tables; the role must own it."""

    _dsn = field_validator("dsn")(_check_dsn)

    @field_validator("dsn", mode="before")
    @classmethod
    def _empty_is_absent(cls, value: Any) -> Any:
        return None if value == "" else value

    @field_validator("schema_")
    @classmethod
    def _not_reserved(cls, value: str) -> str:
        if value.startswith("pg_") or value == "information_schema":
            raise ValueError("PostgreSQL keeps that name for itself; take another, such as pgbridge")
        return value


class Address(NamedTuple):
    """Where to listen."""

    host: str
    port: int

    @property
    def is_loopback(self) -> bool:
        return is_loopback(self.host)


def parse_address(text: str) -> Address:
    """
    Read `host:port`.

    Raises:
        ValueError: it is something else.
    """
    host, colon, port = text.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        host = ""
    if not colon or not host or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise ValueError("it must be host:port, such as 127.0.0.1:8765, or null")
    return Address(host, int(port))


class AdminSettings(Section):
    """The admin port: health, metrics, status and the operator's page."""

    listen: str | None = "127.0.0.1:8765"
    """
    `host:port` (`[::1]:8765` for IPv6); null turns the admin port off. Default: this machine only, so that nothing is
    open that was not asked for.
    """
    token: Secret | None = Field(default=None, validate_default=True)
    """Bearer token that every request but the health checks must carry; required unless `listen` is loopback."""

    @field_validator("listen", mode="before")
    @classmethod
    def _off(cls, value: Any) -> Any:
        return None if value in ("", "off", False) else value

    @field_validator("listen")
    @classmethod
    def _is_an_address(cls, value: str | None) -> str | None:
        if value is not None:
            parse_address(value)
        return value

    @field_validator("token", mode="before")
    @classmethod
    def _empty_is_absent(cls, value: Any) -> Any:
        return None if value == "" else value

    @field_validator("token")
    @classmethod
    def _open_only_with_a_token(cls, value: Secret | None, info: ValidationInfo) -> Secret | None:
        listen = info.data.get("listen")
        if value is None and listen is not None and not parse_address(listen).is_loopback:
            raise ValueError(f"it is required because admin.listen is {listen}; set it, or listen on 127.0.0.1")
        return value

    @property
    def address(self) -> Address | None:
        """`listen` in its parts; None where the admin port is off."""
        return None if self.listen is None else parse_address(self.listen)


class Settings(Section):
    """The whole file."""

    source: SourceSettings
    """The database that changes are read from."""
    store: StoreSettings = StoreSettings()
    """Where checkpoints and dead letters are kept. Default: the source database."""
    admin: AdminSettings = AdminSettings()
    """The admin port."""
    backlog: BacklogSettings = BacklogSettings()
    """When a trigger's changes move to the backlog table; also per trigger."""
    triggers: Annotated[dict[str, TriggerSettings], Field(min_length=1)]
    """The triggers, by name: letters, digits, - and _, at most 64, a letter or digit first."""

    @field_validator("store", "admin", "backlog", mode="before")
    @classmethod
    def _null_is_default(cls, value: Any) -> Any:
        return {} if value is None else value

    @field_validator("triggers", mode="before")
    @classmethod
    def _are_named(cls, value: Any) -> Any:
        if isinstance(value, Mapping):
            for name in value:
                if not isinstance(name, str) or TRIGGER_NAME.fullmatch(name) is None:
                    raise ValueError(
                        f"{name!r} is not a trigger's name: it may hold letters, digits, - and _, at most 64, "
                        "and begins with a letter or digit; put a name of digits alone in quotes"
                    )
        return value

    @property
    def store_dsn(self) -> Secret:
        """The store's connection string, which is the source's where it has none of its own."""
        return self.store.dsn or self.source.dsn

    def backlog_of(self, trigger: str) -> BacklogSettings:
        """The backlog settings that hold for a trigger."""
        return self.triggers[trigger].backlog or self.backlog
