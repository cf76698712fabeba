import json

import pytest


@pytest.fixture
def welcome_user(load_function, monkeypatch):
    monkeypatch.delenv("WELCOME_ALLOW_MISSING_NAME", raising=False)
    return load_function("welcome_user")


def logged(log):
    return [json.loads(line) for line in log.getvalue().splitlines()]


def test_it_says_hello_to_each_new_user(welcome_user, signup, context, log):
    batch = {"Records": [signup(0, 1, name="John Doe", email="john@example.com"), signup(1, 2, name="Ada")]}

    assert welcome_user.lambda_handler(batch, context) == {"batchItemFailures": []}
    assert [line["message"] for line in logged(log)] == ["Hello John Doe", "Hello Ada"]


@pytest.mark.parametrize("name", [None, "", "  "])
def test_a_user_without_a_name_fails_alone_and_the_log_says_why(welcome_user, signup, context, log, name):
    batch = {"Records": [signup(0, 1, name="Ada"), signup(1, 2, name=name), signup(2, 3, name="John")]}

    answer = welcome_user.lambda_handler(batch, context)

    assert answer == {"batchItemFailures": [{"itemIdentifier": "0000000001A2B3C0-0000000001"}]}
    lines = logged(log)
    assert [line["message"] for line in lines if line["level"] == "INFO"] == ["Hello Ada", "Hello John"]
    (failure,) = [line for line in lines if line["level"] == "WARNING"]
    assert failure["message"] == "failed 0000000001A2B3C0-0000000001 of public.users"
    assert "ValueError: user 2 has no name to be greeted by" in failure["exception"]


def test_the_setting_mends_it_without_a_new_execution_environment(welcome_user, signup, context, monkeypatch, log):
    batch = {"Records": [signup(0, 2, name=None)]}
    assert len(welcome_user.lambda_handler(batch, context)["batchItemFailures"]) == 1

    monkeypatch.setenv("WELCOME_ALLOW_MISSING_NAME", "1")
    assert welcome_user.lambda_handler(batch, context) == {"batchItemFailures": []}
    assert logged(log)[-1]["message"] == "Hello there"


def test_log_lines_carry_the_request_and_the_event(welcome_user, signup, context, log):
    welcome_user.lambda_handler({"Records": [signup(0, 1, name="Ada")]}, context)

    (line,) = logged(log)
    assert line["function_request_id"] == context.aws_request_id
    assert line["event_id"] == "0000000001A2B3C0-0000000000"
