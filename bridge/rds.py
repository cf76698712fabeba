"""Connection strings with an RDS IAM token as the password, made for each connect, since it lives 15 minutes."""

from __future__ import annotations

import asyncio
import re

from psycopg.conninfo import conninfo_to_dict, make_conninfo

from bridge.aws import new_session
from bridge.errors import ConfigError, SecretUnavailable
from bridge.secret import Secret, SecretResolver

# name.hash.region.rds.amazonaws.com; in China it ends in .com.cn, and a proxy has proxy- before its hash.
_RDS_HOST = re.compile(r"\.(?P<region>[a-z]{2}(?:-[a-z]+)+-\d)\.rds\.amazonaws\.com(?:\.cn)?$")
_DEFAULT_PORT = "5432"


async def connection_string(dsn: Secret, secrets: SecretResolver, *, iam_auth: bool, fresh: bool = False) -> str:
    """
    The connection string to connect with now.

    Args:
        dsn: as the settings have it.
        secrets: fetches it where it is a reference.
        iam_auth: put a new token into it as the password.
        fresh: fetch a reference again.

    Raises:
        ConfigError: a token needs a host and a user, and the string lacks one.
        SecretUnavailable: it, or credentials to sign the token with, can't be had.
    """
    text = await secrets.fetch(dsn, fresh=fresh)
    if not iam_auth:
        return text
    return await asyncio.to_thread(with_token, text)


def with_token(dsn: str) -> str:
    """The same with a token as its password; the token is signed here, no server is asked. Blocks for credentials."""
    parameters = conninfo_to_dict(dsn)
    host, user = parameters.get("host"), parameters.get("user")
    if not host or not user or "," in str(host) or str(host).startswith("/"):
        raise ConfigError(
            "source.iam_auth is true, and source.dsn lacks a host or a user to make the token for",
            remedy="name one host and the user in it: postgresql://user@name.region.rds.amazonaws.com/database",
        )
    import botocore.exceptions  # noqa: PLC0415 - a process without AWS never pays for it

    region = _RDS_HOST.search(str(host))
    try:
        client = new_session().create_client("rds", region_name=region["region"] if region else None)
        token = client.generate_db_auth_token(
            DBHostname=str(host), Port=int(parameters.get("port") or _DEFAULT_PORT), DBUsername=str(user)
        )
    except botocore.exceptions.BotoCoreError as error:
        raise SecretUnavailable(
            f"no IAM token for {user}@{host}: {type(error).__name__}",
            remedy="give this process AWS credentials with rds-db:connect, and AWS_REGION if the host has none",
        ) from error
    # The token is in no way private to a connection without TLS, and RDS refuses it there.
    return make_conninfo(dsn, password=token, **({} if "sslmode" in parameters else {"sslmode": "verify-full"}))
