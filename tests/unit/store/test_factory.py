"""From the settings to the store."""

from __future__ import annotations

import pytest

from bridge.config import parse
from bridge.errors import ConfigError
from bridge.secret import SecretResolver
from bridge.store.factory import build_store

TRIGGERS = "triggers: {t: {tables: [public.users], target: {lambda: {function_name: f}}}}\n"
BAD = "postgresql://user:geheim:5432/@@"


@pytest.mark.parametrize(
    ("text", "setting"),
    [
        (f'source: {{dsn: "{BAD}"}}\n', "source.dsn"),
        (f'source: {{dsn: "host=localhost"}}\nstore: {{dsn: "{BAD}"}}\n', "store.dsn"),
    ],
)
async def test_a_connection_string_that_can_not_be_read_is_named_by_the_setting_it_is_from(text, setting):
    store = build_store(parse(text + TRIGGERS, {}), SecretResolver())
    try:
        with pytest.raises(ConfigError, match=f"^{setting} is not a PostgreSQL connection string") as refused:
            await store.open()
        assert "geheim" not in str(refused.value)
    finally:
        await store.close()
