"""From the settings to the store."""

from __future__ import annotations

from bridge import dsn as connection_strings
from bridge.config import Settings
from bridge.rds import connection_string
from bridge.secret import SecretResolver
from bridge.store.postgres import PostgresStore


def build_store(settings: Settings, secrets: SecretResolver) -> PostgresStore:
    """The store that the settings name; connects to nothing before it is used."""
    asked = False

    async def dsn() -> str:
        # Fetched again for every connection but the first: the one before may have ended with a rotated password.
        nonlocal asked
        fresh, asked = asked, True
        # A store of its own has its own password; one in the source database logs in as the reader does.
        iam_auth = settings.source.iam_auth and settings.store.dsn is None
        text = await connection_string(settings.store_dsn, secrets, iam_auth=iam_auth, fresh=fresh)
        # Here, where it is known which setting it is from: whoever has no store.dsn is not told to correct it.
        connection_strings.parse(text, setting="source.dsn" if settings.store.dsn is None else "store.dsn")
        return text

    return PostgresStore(dsn, settings.store.schema_)
