from __future__ import annotations

import re

import pytest

from bridge.errors import ConfigError
from bridge.store.migrations import check_schema_name, latest_version, lock_key, migration_sql, migrations
from bridge.store.statements import Statements, folder_text


def test_migrations_are_numbered_without_a_gap():
    assert [migration.version for migration in migrations()] == list(range(1, latest_version() + 1))


def test_the_printed_sql_is_one_transaction_in_the_named_schema():
    text = migration_sql('we"ird')
    assert text.startswith("BEGIN;\n")
    assert text.endswith("COMMIT;\n")
    assert '"we""ird".dead_letters' in text
    assert "{" not in text


def test_only_what_is_missing_is_printed():
    text = migration_sql("pgbridge", installed=latest_version())
    assert "CREATE" not in text


def test_a_role_gets_no_more_than_it_needs():
    text = migration_sql("pgbridge", role="reader")
    granted = re.findall(r"^GRANT (.*?) ON", text, re.MULTILINE)
    assert granted == ["USAGE", "SELECT", "SELECT, INSERT, UPDATE, DELETE", "EXECUTE"]
    assert not re.search(r"^GRANT", migration_sql("pgbridge"), re.MULTILINE)


@pytest.mark.parametrize("name", ["", "pg_x", "a\0", "x" * 64, "\ud800" * 22])
def test_names_that_postgres_would_refuse_or_cut_are_refused(name):
    with pytest.raises(ConfigError, match=r"store\.schema"):
        check_schema_name(name)


def test_lock_keys_fit_postgres_and_tell_their_words_apart():
    keys = {lock_key("replay", "s", "ab"), lock_key("replay", "sa", "b"), lock_key("migrate", "s")}
    assert len(keys) == 3
    assert all(-(2**63) <= key < 2**63 for key in keys)
    assert lock_key("migrate", "pgbridge") == lock_key("migrate", "pgbridge")


def test_every_named_query_can_be_filled_in():
    names = re.findall(r"^-- (\w+) --$", folder_text("queries.sql"), re.MULTILINE)
    statements = Statements("a%b")
    assert len(names) == len(set(names)) > 10
    for name in names:
        parts = set(re.findall(r"\{(\w+)\}", folder_text("queries.sql").split(f"-- {name} --")[1].split("\n\n\n")[0]))
        if not parts - {"schema"}:
            text = statements[name].as_string(None)
            assert "--" not in text
            assert ('"a%%b"' in text) == ("schema" in parts)
