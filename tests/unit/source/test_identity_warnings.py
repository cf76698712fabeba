"""Which triggers will lack old values or deleted columns, as far as replica identities tell."""

from __future__ import annotations

import pytest

from bridge.config import Settings
from bridge.source.identity_warnings import IdentityWarning, identity_warnings
from bridge.source.tables import Table

HTTP = {"http": {"url": "https://example.com/"}}


def table(name: str, identity: str = "default", **more) -> Table:
    schema, _, name = name.rpartition(".")
    arguments = {
        "oid": hash((schema, name)), "kind": "r", "persistence": "p", "identifies_rows": True, "ancestors": frozenset(),
        "readable": True, "owned": True, "columns": frozenset({"id", "name", "plan"}), "key": frozenset({"id"}),
    }  # fmt: skip
    return Table(schema=schema or "public", name=name, identity=identity, **{**arguments, **more})


def settings(**trigger) -> Settings:
    trigger = {"tables": ["*.*"], "target": HTTP, **trigger}
    return Settings.model_validate({"source": {"dsn": "dbname=x"}, "triggers": {"t": trigger}})


def found(present: list[Table], **trigger) -> IdentityWarning | None:
    warnings = identity_warnings(settings(**trigger), present)
    assert len(warnings) < 2
    return warnings[0] if warnings else None


def test_under_default_updates_lack_old_values_and_deletes_all_but_the_key():
    warning = found([table("users")])
    assert (warning.old_values, warning.deleted_columns, warning.asked_for) == (True, True, False)
    assert warning.what == (
        "trigger t: of public.users, updates come without old values (changes is null) and deletes with the key alone"
    )
    assert 'ALTER TABLE "public"."users" REPLICA IDENTITY FULL (' in warning.remedy


@pytest.mark.parametrize("identity", ["default", "index", "nothing"])
def test_every_identity_but_full_lacks_something(identity):
    assert found([table("users", identity)]) is not None
    assert found([table("users", "full")]) is None


@pytest.mark.parametrize(
    ("operations", "lacks"),
    [(["insert"], None), (["insert", "truncate"], None), (["update"], (True, False)), (["delete"], (False, True)),
     (["message"], None)],
)  # fmt: skip
def test_only_what_the_trigger_takes_can_be_lacking(operations, lacks):
    warning = found([table("users")], operations=operations)
    assert (warning and (warning.old_values, warning.deleted_columns)) == lacks


def test_a_table_that_is_all_key_lacks_nothing_of_a_deleted_row():
    pair = table("pairs", columns=frozenset({"a", "b"}), key=frozenset({"a", "b"}))
    assert found([pair], operations=["delete"]) is None


@pytest.mark.parametrize(
    ("trigger", "asked"),
    [
        ({}, False),
        ({"filter_criteria": [{"record": {"plan": ["pro"]}}]}, True),
        ({"filter_criteria": [{"record": {"plan": ["pro"]}}], "operations": ["insert", "update"]}, False),
        ({"filter_criteria": [{"record": {"id": [7]}}]}, False),
        ({"filter_criteria": [{"changes": {"plan": [{"exists": True}]}}]}, True),
        ({"filter_criteria": [{"changes": {"plan": ["pro"]}}], "operations": ["delete"]}, False),
        ({"filter_criteria": [{"action": ["delete"]}]}, False),
    ],
)
def test_a_filter_that_asks_for_it_is_told_apart(trigger, asked):
    warning = found([table("users")], **trigger)
    assert warning.asked_for is asked
    assert ("asks for more" in warning.what) is asked


def test_tables_that_are_not_sent_are_not_spoken_of():
    tables = [table("users", kind="v"), table("users", persistence="u"), table("pgbridge.dead_letters"), table("b.c")]
    assert found(tables, tables=["*.*", "!b.*"]) is None


def test_a_disabled_trigger_lacks_nothing():
    assert found([table("users")], enabled=False) is None


def test_a_long_list_is_counted():
    warning = found([table(f"t{number}") for number in range(5)])
    assert "of public.t0, public.t1, public.t2 and 2 more, updates" in warning.what
    assert "the same for the others" in warning.remedy


def test_a_partitioned_table_is_as_its_partitions_are():
    root = table("orders", "full", kind="p")
    leaf = table("orders_1", ancestors=frozenset({root.oid}))
    full = table("orders_1", "full", ancestors=frozenset({root.oid}))
    assert found([root, leaf]).tables == (root,)
    assert found([root, full]) is None
    assert found([table("orders", kind="p"), full]).tables[0].name == "orders"
