"""
Connection strings: read without telling, and completed with what every connection of ours should have.

What the DSN says wins, then libpq's environment (`PGSSLMODE` and the rest), then what stands here. No error of this
module quotes a DSN: a mistyped one may show its password in the oddest place.
"""

from __future__ import annotations

import ipaddress
import os
import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import psycopg
from psycopg import pq
from psycopg.conninfo import conninfo_to_dict

from bridge.errors import ConfigError

# A peer that vanished is given up after 10 + 3 x 5 = 25 seconds if the link is idle, and after 30 if something was
# sent: half of the server's default wal_sender_timeout. libpq's own defaults leave it to the system: two hours.
_LIVENESS: Final = {
    "keepalives": "1",
    "keepalives_idle": "10",
    "keepalives_interval": "5",
    "keepalives_count": "3",
    "tcp_user_timeout": "30000",
}

# Where systems keep the certificates that they trust, for an OpenSSL that was built to look elsewhere (as the one in
# psycopg's wheels is, which is why `sslrootcert=system` does not do).
_TRUSTED: Final = (
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/cert.pem",
)


_HIGHEST_PORT: Final = 65535


def parse(dsn: str, *, setting: str = "source.dsn") -> dict[str, str]:
    """
    The parameters of a libpq connection string or URI.

    Raises:
        ConfigError: it is neither; says so without quoting it.
    """
    try:
        given = conninfo_to_dict(dsn)
    except psycopg.ProgrammingError:
        # libpq's message quotes the part that it could not read, which may be the password: dropped, chain and all.
        raise _unreadable(setting) from None
    parameters = {name: str(value) for name, value in given.items() if value is not None}
    if not all(_is_port(port) for port in parameters.get("port", "").split(",")):
        # libpq looks at it only when it connects; here it may be the rest of a password with a colon in it.
        raise _unreadable(setting)
    return parameters


def _unreadable(setting: str) -> ConfigError:
    return ConfigError(
        f"{setting} is not a PostgreSQL connection string",
        remedy="write postgresql://user:password@host:5432/database with special characters percent-encoded,"
        " or host=… port=… dbname=… user=… password=…",
    )


def _is_port(text: str) -> bool:
    return not text or (text.isascii() and text.isdigit() and 0 < int(text) <= _HIGHEST_PORT)


def environment() -> dict[str, str]:
    """Libpq's defaults: what the `PG…` variables say, and what is compiled in."""
    return {
        option.keyword.decode(): option.val.decode(errors="surrogateescape")
        for option in pq.Conninfo.get_defaults()
        if option.val is not None
    }


def complete(
    dsn: str, *, application_name: str, options: Mapping[str, str] | None = None, setting: str = "source.dsn"
) -> dict[str, str]:
    """
    The parameters to connect with: the DSN's, the marks of a live link, verified TLS, and pinned session settings.

    TLS: unless the DSN or the environment says something of `sslmode`, a server that is not on this machine has to show
    a certificate for its name, from the `sslrootcert` given or else from an authority that this system trusts.

    Args:
        dsn: connection string or URI.
        application_name: shown in `pg_stat_activity`, unless the DSN or the environment has another.
        options: session settings that win over those of the role and the database.
        setting: the name of the setting that holds the DSN, for the error.

    Raises:
        ConfigError: the DSN can't be read.
    """
    given = parse(dsn, setting=setting)
    parameters = {**_LIVENESS, "fallback_application_name": application_name, **given}
    if options:
        # Later ones win. The environment's are taken along because a DSN with options of its own would replace them.
        own = given.get("options", os.environ.get("PGOPTIONS", ""))
        pinned = " ".join(f"-c {name}={_escape(value)}" for name, value in options.items())
        parameters["options"] = f"{own} {pinned}".strip()
    if _says_nothing_of_tls(given) and not _on_this_machine({**environment(), **given}):
        parameters["sslmode"] = "verify-full"
    mode = parameters.get("sslmode") or os.environ.get("PGSSLMODE", "")
    if mode.startswith("verify-") and (certificates := _trusted_certificates(given)) is not None:
        parameters["sslrootcert"] = certificates
    return parameters


def _escape(value: str) -> str:
    """A value inside `options`, where white space separates and a backslash escapes."""
    return value.replace("\\", "\\\\").replace(" ", "\\ ")


def _says_nothing_of_tls(given: Mapping[str, str]) -> bool:
    # A service file may say it, and libpq alone reads that.
    said = {"sslmode", "requiressl", "service"} & given.keys()
    return not said and not {"PGSSLMODE", "PGREQUIRESSL", "PGSERVICE"} & os.environ.keys()


def _on_this_machine(parameters: Mapping[str, str]) -> bool:
    """Whether every host named is this machine: a socket, or a loopback address."""
    named = parameters.get("hostaddr") or parameters.get("host") or ""
    return all(_is_local(host) for host in named.split(","))


def _is_local(host: str) -> bool:
    if not host or host.startswith(("/", "@")) or host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _trusted_certificates(given: Mapping[str, str]) -> str | None:
    """The file to verify servers by; None where libpq finds one by itself."""
    if "sslrootcert" in given or "PGSSLROOTCERT" in os.environ:
        return None
    if (Path.home() / ".postgresql" / "root.crt").exists():
        return None
    for file in (ssl.get_default_verify_paths().cafile, *_TRUSTED):
        if file is not None and Path(file).exists():
            return file
    return "system"
