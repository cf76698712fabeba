"""From the settings to the store."""

from __future__ import annotations

from bridge.config import Settings
from bridge.secret import SecretResolver
from bridge.store.postgres import PostgresStore


def build_store(settings: Settings, secrets: SecretResolver) -> PostgresStore:
    """The store that the settings name; connects to nothing before it is used."""
    asked = False

    async def dsn() -> str:
        # Fetched again for every connection but the first: the one before may have ended with a rotated password.
        nonlocal asked
        fresh, asked = asked, True
        return await secrets.fetch(settings.store_dsn, fresh=fresh)

    return PostgresStore(dsn, settings.store.schema_)
