"""`pgbridge tail`: which changes are wanted, and how one is printed."""

from __future__ import annotations

import pytest

from bridge.change import Event, Transaction
from bridge.cli.tail import OPERATIONS, _json_printer, _print_pretty, _wanted
from bridge.config import parse
from bridge.errors import ConfigError

SETTINGS = parse(
    """
source: {dsn: postgresql://h/d}
triggers:
  email:
    tables: [public.users, 'shop.*']
    operations: [insert, update]
    columns: {exclude: [password]}
    filter_criteria: [{record: {balance: [{numeric: [">", 10]}]}}]
    target: {lambda: {function_name: f}}
""",
    {},
)


def event(action: str, members: str, table: str = "public.users") -> Event:
    body = (
        '{"id":"0000000000000010-0000000000","action":"' + action + '",' + members + ',"metadata":{"source":"pgbridge",'
        '"keys":{"id":7},"old_keys":null,"unavailable":[],'
    )
    transaction = Transaction(16, 16, 1_790_000_000.123, 5)
    return Event(b"0000000000000010-0000000000", transaction, 0, None, None, table, action, body.encode())


def printed(capsys, what: Event) -> list[str]:
    _print_pretty(what)
    return [line.strip() for line in capsys.readouterr().out.splitlines()]


def test_without_options_everything_is_wanted():
    wanted = _wanted(SETTINGS, (), None, None)
    assert wanted.operations == frozenset(OPERATIONS)
    assert wanted.wants_table("any", "thing")
    assert wanted.trigger is None


def test_a_trigger_narrows_tables_operations_and_columns():
    wanted = _wanted(SETTINGS, ("*.orders",), "email", "update,delete")
    assert wanted.operations == {"update"}
    assert [
        wanted.wants_table("shop", "orders"),
        wanted.wants_table("public", "orders"),
        wanted.wants_table("shop", "x"),
    ] == [
        True,
        False,
        False,
    ]
    assert wanted.shape.exclude == {"password"}


def test_a_trigger_filters_as_it_would_when_delivering():
    assert _wanted(SETTINGS, (), None, None).selection is None
    selection = _wanted(SETTINGS, (), "email", None).selection
    assert selection.matcher.reads("record", "balance")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((("users",), None, None), "--table: 'users' names no schema"),
        (((), "nope", None), "there is no trigger 'nope'; name one of these: email"),
        (((), None, "insert,upsert"), "--operations: 'upsert' is no operation"),
        (((), None, ""), "--operations: '' is no operation"),
    ],
)
def test_a_wrong_option_is_refused_by_its_name(arguments, says):
    with pytest.raises(ConfigError) as caught:
        _wanted(SETTINGS, *arguments)
    assert says in str(caught.value)


def test_an_insert_shows_the_row_without_its_key(capsys):
    lines = printed(capsys, event("insert", '"record":{"id":7,"name":"Jane","note":null},"changes":null'))
    assert lines[0].endswith("insert    public.users  id=7")
    assert lines[1:] == ['name: "Jane"', "note: null"]


def test_an_update_with_a_known_old_row_shows_what_changed(capsys):
    lines = printed(capsys, event("update", '"record":{"id":7,"name":"Jane","plan":"pro"},"changes":{"plan":"free"}'))
    assert lines[1:] == ['plan: "free" → "pro"']


def test_an_update_without_one_shows_the_row(capsys):
    lines = printed(capsys, event("update", '"record":{"id":7,"name":"Jane"},"changes":null'))
    assert lines[1:] == ['name: "Jane"']


def test_a_truncate_has_no_row(capsys):
    assert len(printed(capsys, event("truncate", '"record":null,"changes":null'))) == 1


def test_a_value_can_not_drive_the_terminal_and_is_cut(capsys):
    lines = printed(capsys, event("insert", '"record":{"x\\u001b]0;":"' + "y" * 500 + '","z":"\u202e"},"changes":null'))
    assert "\x1b" not in "".join(lines)
    assert "\u202e" not in "".join(lines)
    assert max(map(len, lines)) < 130


def test_numbers_and_text_that_json_parsers_differ_on_are_shown_as_written(capsys):
    members = '"record":{"a":9007199254740993,"b":1e400,"c":{"d":[0.10,"\\ud800"]}},"changes":null'
    assert printed(capsys, event("insert", members))[1:] == [
        "a: 9007199254740993",
        "b: 1e400",
        'c: {"d": [0.10, "\\ud800"]}',
    ]


def test_what_nests_too_deeply_is_named_and_ends_nothing(capsys):
    lines = printed(capsys, event("insert", '"record":{"a":' + "[" * 5000 + "]" * 5000 + '},"changes":null'))
    assert lines[1:] == ["nests too deeply to be shown here; --json prints it"]


def test_json_is_the_event_as_the_trigger_sends_it(capsys):
    _json_printer("email", "7")(event("insert", '"record":{}'))
    _json_printer(None, "7")(event("insert", '"record":{}'))
    named, bare = capsys.readouterr().out.splitlines()
    assert named.endswith('"trigger":"email","idempotency_key":"7-email-0000000000000010-0000000000"}}')
    assert bare.endswith('"trigger":null,"idempotency_key":null}}')
