"""Replication commands and quoting, as text."""

from __future__ import annotations

import pytest

from bridge.errors import ConfigError
from bridge.lsn import LSN
from bridge.source import commands


def test_start_names_slot_position_and_publication():
    assert commands.start_replication("pgbridge", ["feed"], LSN.parse("16/B374D848"), server_version=180006) == (
        'START_REPLICATION SLOT "pgbridge" LOGICAL 16/B374D848'
        " (proto_version '1', publication_names '\"feed\"', messages 'true')"
    )


def test_publication_name_is_quoted_as_identifier_inside_a_literal():
    command = commands.start_replication("s", ['it\'s a "feed", really', "b"], LSN(0), server_version=150000)
    assert """publication_names '"it''s a ""feed"", really", "b"'""" in command


def test_messages_are_asked_for_only_where_the_server_knows_them():
    assert "messages" not in commands.start_replication("s", ["p"], LSN(0), server_version=130000)
    assert commands.start_replication("s", ["p"], LSN(0), server_version=160000, local_only=True).endswith(
        ", messages 'true', origin 'none')"
    )
    assert "messages 'true'" in commands.start_replication("s", ["p"], LSN(0), server_version=140000)


@pytest.mark.parametrize(
    ("options", "command"),
    [
        ({}, 'CREATE_REPLICATION_SLOT "s" LOGICAL pgoutput NOEXPORT_SNAPSHOT'),
        ({"temporary": True}, 'CREATE_REPLICATION_SLOT "s" TEMPORARY LOGICAL pgoutput NOEXPORT_SNAPSHOT'),
        ({"failover": True}, "CREATE_REPLICATION_SLOT \"s\" LOGICAL pgoutput (SNAPSHOT 'nothing', FAILOVER true)"),
    ],
)
def test_create_slot_has_a_form_that_the_oldest_server_takes(options: dict[str, bool], command: str):
    assert commands.create_slot("s", **options) == command


@pytest.mark.parametrize(
    ("version", "failover", "statement"),
    [
        (140000, True, "SELECT pg_catalog.pg_create_logical_replication_slot('s', 'pgoutput')"),
        (170000, True, "SELECT pg_catalog.pg_create_logical_replication_slot('s', 'pgoutput', failover => true)"),
        (170000, False, "SELECT pg_catalog.pg_create_logical_replication_slot('s', 'pgoutput')"),
    ],
)
def test_slot_is_carried_to_standbys_from_17_on(version: int, failover: bool, statement: str):  # noqa: FBT001
    assert commands.create_slot_sql("s", server_version=version, failover=failover) == statement


@pytest.mark.parametrize("name", ["", "Orders", "a-b", "a b", "é", "a" * 64, 'a"; DROP', "a\n"])
def test_slot_name_that_the_server_would_refuse_is_refused_before(name: str):
    with pytest.raises(ConfigError, match=r"source\.slot"):
        commands.check_slot_name(name)
    with pytest.raises(ConfigError):
        commands.create_slot(name)
    with pytest.raises(ConfigError):
        commands.start_replication(name, ["p"], LSN(0), server_version=180000)


@pytest.mark.parametrize("name", ["a", "pgbridge", "_1", "9", "a" * 63])
def test_slot_name_of_the_servers_characters_is_taken(name: str):
    assert commands.check_slot_name(name) == name


def test_publication_name_is_measured_in_bytes():
    assert commands.check_publication_name("é" * 31) == "é" * 31
    with pytest.raises(ConfigError, match="63 bytes"):
        commands.check_publication_name("é" * 32)


@pytest.mark.parametrize("name", ["feed", "é" * 31, "x" * 63, "日本" * 10])
def test_companion_has_a_name_of_its_own_that_fits(name: str):
    companion = commands.companion_name(name)
    assert companion != name
    assert commands.check_publication_name(companion) == companion
    assert companion.endswith("_inserts")


@pytest.mark.parametrize(
    ("text", "literal"),
    [("plain", "'plain'"), ("it's", "'it''s'"), ("back\\slash", " E'back\\\\slash'"), ("", "''")],
)
def test_literal_reads_the_same_with_and_without_standard_strings(text: str, literal: str):
    assert commands.quote_literal(text) == literal


def test_zero_byte_never_reaches_a_statement():
    with pytest.raises(ConfigError):
        commands.quote_identifier("a\0b")
    with pytest.raises(ConfigError):
        commands.quote_literal("a\0b")


def test_identifier_keeps_its_quotes():
    assert commands.quote_qualified('My "Shop"', "Order.s") == '"My ""Shop"""."Order.s"'
