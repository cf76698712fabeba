from __future__ import annotations

import psycopg
import pytest

from bridge.errors import Disposition, InvariantBroken, StoreError, StoreFenced, StoreMisconfigured
from bridge.store.sqlstate import is_lost, translate, translate_connecting


def error(code: str | None) -> psycopg.Error:
    kind = psycopg.OperationalError if code is None else type("Given", (psycopg.DatabaseError,), {"sqlstate": code})
    return kind("a secret value")


@pytest.mark.parametrize(
    ("code", "kind", "disposition"),
    [
        ("PB001", StoreFenced, Disposition.STOP),
        ("PB002", InvariantBroken, Disposition.STOP),
        ("42P01", StoreMisconfigured, Disposition.OPERATOR),
        ("42883", StoreMisconfigured, Disposition.OPERATOR),
        ("3F000", StoreMisconfigured, Disposition.OPERATOR),
        ("42501", StoreMisconfigured, Disposition.OPERATOR),
        ("25006", StoreError, Disposition.RETRY),
        ("53100", StoreError, Disposition.RETRY),
        ("53200", StoreError, Disposition.RETRY),
        ("53300", StoreError, Disposition.RETRY),
        ("55P03", StoreError, Disposition.RETRY),
        ("57014", StoreError, Disposition.RETRY),
        ("57P01", StoreError, Disposition.RETRY),
        ("57P03", StoreError, Disposition.RETRY),
        ("08006", StoreError, Disposition.RETRY),
        ("40001", StoreError, Disposition.RETRY),
        ("23505", StoreError, Disposition.RETRY),
        ("XX001", StoreError, Disposition.RETRY),
    ],
)
def test_codes_decide_and_no_value_is_repeated(code, kind, disposition):
    translated = translate(error(code), "pgbridge")
    assert type(translated) is kind
    assert translated.disposition is disposition
    assert "secret" not in str(translated)


def test_a_lost_connection_is_told_in_the_drivers_words_on_one_line():
    translated = translate_connecting(psycopg.OperationalError("connection failed:\n\tno such host\n"))
    assert str(translated).startswith("the store can't be reached: connection failed: no such host; check store.dsn")


def test_what_the_driver_refuses_by_itself_is_our_bug_and_not_repeated():
    translated = translate(psycopg.DataError("a secret value"), "pgbridge")
    assert isinstance(translated, InvariantBroken)
    assert "secret" not in str(translated)


@pytest.mark.parametrize(
    ("code", "lost"),
    [(None, True), ("57P01", True), ("08006", True), ("25P03", True), ("23505", False), ("57014", False)],
)
def test_connections_are_told_from_statements(code, lost):
    assert is_lost(error(code)) is lost
