"""`pgbridge filter`: true and 0, false and 1, refused and 2."""

import json

import pytest
from click.testing import CliRunner

from bridge.cli import main

PATTERN = '{"record": {"plan": ["pro"], "age": [{"numeric": [">=", 18]}]}}'
EVENT = '{"action": "insert", "record": {"plan": "pro", "age": 33}}'


def run(*arguments, stdin=None):
    return CliRunner().invoke(main, ["filter", *arguments], input=stdin)


def test_a_match_prints_true_and_exits_0():
    result = run("--pattern", PATTERN, "--event", EVENT)
    assert (result.stdout, result.stderr, result.exit_code) == ("true\n", "", 0)


def test_no_match_prints_false_and_exits_1():
    result = run("--pattern", '{"record": {"plan": ["team"]}}', "--event", EVENT)
    assert (result.stdout, result.stderr, result.exit_code) == ("false\n", "", 1)


def test_a_pattern_that_is_not_valid_exits_2_with_place_and_reason():
    result = run("-p", '{"record": {"age": [{"numeric": [">", "18"]}]}}', "-e", EVENT)
    assert (result.stdout, result.exit_code) == ("", 2)
    assert result.stderr == (
        "pgbridge: the filter is not valid: record.age[0].numeric[1]: a number must follow >, not text\n"
    )


def test_several_patterns_are_ored(tmp_path):
    other = tmp_path / "patterns.json"
    other.write_text('[{"action": ["delete"]}, {"record": {"plan": ["pro"]}}]', encoding="utf-8")
    assert run("-p", '{"action": ["truncate"]}', "-p", str(other), "-e", EVENT).exit_code == 0
    assert run("-p", '{"action": ["truncate"]}', "-p", '[{"action": ["delete"]}]', "-e", EVENT).exit_code == 1


def test_the_error_counts_patterns_over_all_options():
    result = run("-p", '[{"a": ["x"]}, {"b": ["x"]}]', "-p", '{"c": "x"}', "-e", EVENT)
    assert result.exit_code == 2
    assert "pattern 3: c: text can't stand alone" in result.stderr


def test_files_hold_patterns_and_events(tmp_path):
    pattern, event = tmp_path / "pattern.json", tmp_path / "event.json"
    pattern.write_text(PATTERN, encoding="utf-8")
    event.write_text(EVENT, encoding="utf-8")
    assert run("-p", str(pattern), "-e", str(event)).stdout == "true\n"


def test_filter_criteria_of_an_event_source_mapping_are_taken_as_they_are(tmp_path):
    criteria = tmp_path / "criteria.json"
    criteria.write_text(json.dumps({"Filters": [{"Pattern": '{"a": ["x"]}'}, {"Pattern": PATTERN}]}), encoding="utf-8")
    assert run("-p", str(criteria), "-e", EVENT).stdout == "true\n"


@pytest.mark.parametrize("arguments", [("-p", "-", "-e", EVENT), ("-p", PATTERN, "-e", "-")])
def test_a_dash_is_standard_input(arguments):
    stdin = PATTERN if arguments[1] == "-" else EVENT
    assert run(*arguments, stdin=stdin).stdout == "true\n"


def test_standard_input_can_be_asked_for_once():
    result = run("-p", "-", "-e", "-", stdin=EVENT)
    assert result.exit_code == 2
    assert "standard input was asked for twice" in result.stderr


@pytest.mark.parametrize("event", ["[]", "{", '{"a": NaN}', "{} {}"])
def test_an_event_that_is_not_an_object_exits_2(event):
    result = run("-p", PATTERN, "-e", event)
    assert (result.stdout, result.exit_code) == ("", 2)
    assert result.stderr.startswith("pgbridge: --event: the event is not")


def test_a_file_that_is_not_there_exits_2_and_is_named(tmp_path):
    missing = str(tmp_path / "missing.json")
    for arguments in (("-p", missing, "-e", EVENT), ("-p", PATTERN, "-e", missing)):
        result = run(*arguments)
        assert result.exit_code == 2
        assert f"can't read {missing}: No such file or directory" in result.stderr


def test_a_file_that_is_not_utf_8_exits_2(tmp_path):
    latin = tmp_path / "latin.json"
    latin.write_bytes('{"a": ["é"]}'.encode("latin-1"))
    result = run("-p", str(latin), "-e", EVENT)
    assert result.exit_code == 2
    assert "is not UTF-8" in result.stderr


def test_no_value_of_the_event_is_shown_when_it_is_refused():
    result = run("-p", PATTERN, "-e", '{"record": {"card": "4111111111111111", }}')
    assert result.exit_code == 2
    assert "4111" not in result.stderr + result.stdout


def test_numbers_are_exact():
    big = '{"record": {"id": 9007199254740993}}'
    assert run("-p", '{"record": {"id": [9007199254740993]}}', "-e", big).stdout == "true\n"
    assert run("-p", '{"record": {"id": [9007199254740992]}}', "-e", big).stdout == "false\n"


def test_a_numeric_column_is_named_by_an_option():
    arguments = ("-p", '{"record": {"balance": [{"numeric": ["=", 12.5]}]}}', "-e", '{"record": {"balance": "12.50"}}')
    assert run(*arguments).stdout == "false\n"
    assert run(*arguments, "--numeric", "record.balance").stdout == "true\n"


def test_pattern_and_event_are_both_asked_for():
    for arguments in (("-p", PATTERN), ("-e", EVENT)):
        assert run(*arguments).exit_code == 2


def test_the_help_shows_an_example():
    assert '  pgbridge filter --pattern \'{"record"' in run("--help").stdout
