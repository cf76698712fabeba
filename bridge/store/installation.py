"""The store's tables as a whole: of which version they are, and how they come to be of this program's."""

from __future__ import annotations

from typing import Any

from psycopg import AsyncConnection, sql

from bridge.errors import StoreMisconfigured
from bridge.store.migrations import latest_version, lock_key, migrations, record_version, version_table
from bridge.store.session import one_value
from bridge.store.statements import Statements


class Installation:
    """The tables of one schema."""

    def __init__(self, schema: str, statements: Statements) -> None:
        self._schema = schema
        self._statements = statements

    async def version(self, connection: AsyncConnection[Any]) -> int:
        """
        The version of the tables; 0 where there are none.

        Raises:
            StoreMisconfigured: they are newer than this program.
        """
        if not await one_value(connection, self._statements["has_version_table"], {"schema": self._schema}):
            return 0
        version = int(await one_value(connection, self._statements["installed_version"]))
        if version > latest_version():
            raise StoreMisconfigured(
                f'the tables in schema "{self._schema}" have version {version}, '
                f"and this pgbridge knows versions up to {latest_version()}",
                remedy="run the newer pgbridge that made them",
            )
        return version

    async def upgrade(self, connection: AsyncConnection[Any]) -> list[str]:
        """Apply what is missing, in one transaction; returns the names of the migrations."""
        async with connection.transaction():
            key = lock_key("migrate", self._schema)
            await connection.execute(self._statements["take_migration_lock"], {"key": key})
            # Read again: somebody else may have been at it while we waited.
            version = await self.version(connection)
            if version == 0:
                if not await one_value(connection, self._statements["has_schema"], {"schema": self._schema}):
                    create = sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(self._schema))
                    await connection.execute(create)
                await connection.execute(version_table(self._schema))
            due = [migration for migration in migrations() if migration.version > version]
            for migration in due:
                await connection.execute(migration.statement(self._schema))
                await connection.execute(record_version(self._schema, migration))
        return [migration.name for migration in due]
