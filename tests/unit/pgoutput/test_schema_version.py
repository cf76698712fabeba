"""Versions of relations: one id for one description, and what has changed in words."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bridge.change import Position
from bridge.lsn import LSN
from bridge.pgoutput.messages import Column, RelationMessage, TypeMessage
from bridge.pgoutput.schema_version import Description, RelationHistory, differences

INT4, TEXT, VARCHAR, NUMERIC, BIT, TIMESTAMP = 23, 25, 1043, 1700, 1560, 1114
ENUM, DOMAIN = 20001, 20002
ENUM_ANNOUNCED = {ENUM: TypeMessage(ENUM, "public", "mood")}


def relation(*columns: Column, oid: int = 16385, name: str = "users", identity: str = "d", namespace: str = "public"):
    return RelationMessage(oid, namespace, name, identity, columns)


def described(*columns: Column, announced=None, **arguments) -> Description:
    return Description.of(relation(*columns, **arguments), announced or {})


ID = Column(1, "id", INT4, -1)
NAME = Column(0, "name", TEXT, -1)
USERS = described(ID, NAME)


def test_one_description_has_one_id_whatever_its_oid():
    assert described(ID, NAME, oid=9_999_999).schema_version == USERS.schema_version
    assert len(USERS.schema_version) == 16
    # Fixed for ever: handlers may keep it.
    assert USERS.schema_version == "b46901eb0bbeeeed"


@pytest.mark.parametrize(
    ("after", "what"),
    [
        (described(ID, NAME, Column(0, "age", INT4, -1)), ["column age added (int4)"]),
        (described(ID), ["column name dropped"]),
        (described(ID, replace(NAME, name="label")), ["column name renamed to label"]),
        (described(ID, Column(0, "label", INT4, -1)), ["column label added (int4)", "column name dropped"]),
        (described(replace(ID, name="name"), replace(NAME, name="id")), ["column name changed from text to int4", "column id changed from int4 to text", "key changed from (id) to (name)"]),
        (described(ID, Column(0, "name", VARCHAR, 24)), ["column name changed from text to varchar(20)"]),
        (described(ID, Column(0, "name", VARCHAR, -1)), ["column name changed from text to varchar"]),
        (described(ID, Column(0, "name", NUMERIC, (12 << 16 | 2) + 4)), ["column name changed from text to numeric(12,2)"]),
        (described(ID, Column(0, "name", NUMERIC, (3 << 16 | (-2 & 0x7FF)) + 4)), ["column name changed from text to numeric(3,-2)"]),
        (described(ID, Column(0, "name", BIT, 5)), ["column name changed from text to bit(5)"]),
        (described(ID, Column(0, "name", TIMESTAMP, 3)), ["column name changed from text to timestamp(3)"]),
        (described(ID, Column(0, "name", ENUM, -1), announced=ENUM_ANNOUNCED), ["column name changed from text to public.mood"]),
        (described(ID, Column(0, "name", ENUM, 7)), ["column name changed from text to type 20001 with modifier 7"]),
        (described(ID, NAME, name="people"), ["renamed from public.users"]),
        (described(ID, NAME, namespace="crm"), ["renamed from public.users"]),
        (described(ID, NAME, identity="n"), ["replica identity changed from default to nothing"]),
        (described(ID, replace(NAME, flags=1), identity="f"), ["replica identity changed from default to full"]),
        (described(replace(ID, flags=0), replace(NAME, flags=1)), ["key changed from (id) to (name)"]),
        (described(NAME, ID), ["columns in another order"]),
        (described(replace(ID, name="key"), NAME), ["column id renamed to key"]),
    ],
)  # fmt: skip
def test_what_differs_is_another_version_and_is_said(after, what):
    assert after.schema_version != USERS.schema_version
    assert list(differences(USERS, after)) == what


def test_nothing_differs_from_itself():
    assert differences(USERS, USERS) == ()


def test_types_that_are_not_built_in_enter_by_name():
    here = described(Column(0, "m", ENUM, -1), announced=ENUM_ANNOUNCED)
    there = described(Column(0, "m", 30003, -1), announced={30003: TypeMessage(30003, "public", "mood")})
    other = described(Column(0, "m", ENUM, -1), announced={ENUM: TypeMessage(ENUM, "public", "moods")})
    assert here.schema_version == there.schema_version != other.schema_version


def test_domains_over_the_same_type_are_told_apart():
    over = {oid: TypeMessage(oid, "pg_catalog", "int4") for oid in (DOMAIN, DOMAIN + 1)}
    versions = {described(Column(0, "d", oid, -1), announced=over).schema_version for oid in (INT4, DOMAIN, DOMAIN + 1)}
    assert len(versions) == 3


def test_a_dot_in_a_name_is_not_the_dot_between_names():
    assert (
        described(ID, namespace="a.b", name="c").schema_version
        != described(ID, namespace="a", name="b.c").schema_version
    )


# History


def position(lsn: int, ordinal: int = 0) -> Position:
    return Position(LSN(lsn), ordinal)


WIDER = described(ID, NAME, Column(0, "age", INT4, -1))


def test_the_first_description_is_no_change_and_the_next_different_one_is():
    history = RelationHistory()
    assert history.note(USERS, position(10), 1.0) is None
    assert history.note(USERS, position(20), 2.0) is None
    change = history.note(WIDER, position(30, 4), 3.0)
    assert change is history.last["public.users"]
    assert (change.schema_version, change.previous_version) == (WIDER.schema_version, USERS.schema_version)
    assert (change.position, change.committed_at, history.total) == (position(30, 4), 3.0, 1)


def test_what_is_sent_again_is_no_change():
    history = RelationHistory()
    history.note(USERS, position(10), 1.0)
    history.note(WIDER, position(30, 4), 3.0)
    for _ in range(2):
        assert history.note(USERS, position(20), 2.0) is None
        assert history.note(WIDER, position(30, 4), 3.0) is None
    assert history.total == 1
    assert history.note(USERS, position(40), 4.0).what == ("column age dropped",)


def test_a_table_made_anew_is_compared_with_the_one_of_its_name():
    history = RelationHistory()
    history.note(USERS, position(10), 1.0)
    assert history.note(replace(USERS, oid=17000), position(20), 2.0) is None
    assert history.note(replace(WIDER, oid=18000), position(30), 3.0).what == ("column age added (int4)",)


def test_a_renamed_table_stands_under_its_new_name_alone():
    history = RelationHistory()
    history.note(USERS, position(10), 1.0)
    history.note(WIDER, position(20), 2.0)
    history.note(replace(WIDER, table="public.people"), position(30), 3.0)
    assert list(history.last) == ["public.people"]
    assert history.total == 2
    # Another one may take the old name: nothing is known of it.
    assert history.note(replace(USERS, oid=20000), position(40), 4.0) is None
