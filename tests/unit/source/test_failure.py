"""Which error a SQLSTATE becomes, at each moment."""

from __future__ import annotations

import pytest

from bridge.errors import (
    Disposition,
    SlotInUse,
    SlotLost,
    SourceCredentialsRefused,
    SourceError,
    SourceMisconfigured,
    SourceUnavailable,
)
from bridge.lsn import LSN
from bridge.source import failure

MOMENTS = {
    "connecting": lambda code: failure.while_connecting("the server", code, "said"),
    "starting": lambda code: failure.while_starting("s", code, "said"),
    "streaming": lambda code: failure.while_streaming("s", LSN(0x10), code, "said"),
    "querying": lambda code: failure.while_querying("do it", code, "said"),
}


@pytest.mark.parametrize(
    ("moment", "code", "kind"),
    [
        ("connecting", "28P01", SourceCredentialsRefused),
        ("connecting", "28000", SourceCredentialsRefused),
        ("connecting", "3D000", SourceMisconfigured),
        ("connecting", "42501", SourceMisconfigured),
        ("connecting", "08P01", SourceMisconfigured),
        ("connecting", "57P03", SourceUnavailable),
        ("connecting", "53300", SourceUnavailable),
        ("connecting", None, SourceUnavailable),
        ("starting", "42704", SlotLost),
        ("starting", "55000", SlotLost),
        ("starting", "55006", SlotInUse),
        ("starting", "42501", SourceMisconfigured),
        ("starting", "42601", SourceMisconfigured),
        ("starting", "57P01", SourceUnavailable),
        ("streaming", "42704", SourceMisconfigured),
        ("streaming", "55000", SlotLost),
        ("streaming", "58P01", SlotLost),
        ("streaming", "22021", SourceMisconfigured),
        ("streaming", "57P01", SourceUnavailable),
        ("streaming", "57014", SourceUnavailable),
        ("streaming", "XX000", SourceUnavailable),
        ("streaming", None, SourceUnavailable),
        ("querying", "42501", SourceMisconfigured),
        ("querying", "53400", SourceMisconfigured),
        ("querying", "55006", SlotInUse),
        ("querying", "57014", SourceUnavailable),
    ],
)
def test_code_and_moment_decide(moment: str, code: str | None, kind: type[SourceError]):
    error = MOMENTS[moment](code)
    assert type(error) is kind
    assert code is None or f"({code})" in str(error)


@pytest.mark.parametrize("moment", MOMENTS)
def test_words_of_the_server_decide_nothing(moment: str):
    """The text of a wrong password under a code that is worth another try."""
    telling = {
        "connecting": lambda said: failure.while_connecting("the server", "57P03", said),
        "starting": lambda said: failure.while_starting("s", "57P03", said),
        "streaming": lambda said: failure.while_streaming("s", None, "57P03", said),
        "querying": lambda said: failure.while_querying("do it", "57P03", said),
    }[moment]
    for said in ("password authentication failed", "replication slot does not exist", "is active for PID 1", "请稍后"):
        assert telling(said).disposition is Disposition.RETRY


def test_what_is_for_a_person_has_a_next_step():
    tables = (failure._CONNECTING, failure._STARTING, failure._STREAMING, failure._QUERYING)
    assert all(remedy for table in tables for _, remedy in table.values())


def test_holder_of_a_slot_is_named():
    assert 'slot "s" is in use by server process 4711' in str(failure.while_starting("s", "55006", "", holder=4711))


def test_position_travels_with_the_error():
    assert failure.while_streaming("s", LSN(0x10), "57P01", "x").position == LSN(0x10)


def test_what_looks_like_a_secret_is_covered():
    error = failure.while_connecting("the server", "08P01", "options password=hunter2 not allowed")
    assert "hunter2" not in str(error)
    error = failure.while_connecting("the server", None, "bad: postgresql://u:hunter2@h/d\nmore")
    assert "hunter2" not in str(error)
