"""Settings to targets."""

from __future__ import annotations

import base64

import pytest

from bridge.config import TriggerSettings
from bridge.delivery.aws_lambda import LambdaTarget
from bridge.delivery.batch_response import Report
from bridge.delivery.factory import build_target
from bridge.delivery.http import HttpTarget
from bridge.secret import SecretResolver

SECRET = "whsec_" + base64.b64encode(bytes(range(32))).decode()
URL = "https://api.example.com/hooks?a=1"


def target_of(target, **settings):
    model = TriggerSettings.model_validate({"tables": ["public.users"], "target": target, **settings})
    return build_target("welcome", model, SecretResolver())


def test_a_function_becomes_a_lambda_target():
    target = target_of(
        {"lambda": {"function_name": "welcome", "qualifier": "live", "region": "eu-west-1", "tenant_id": "blue"}}
    )
    assert isinstance(target, LambdaTarget)
    assert target._function == "welcome:live"
    assert target._headers["X-Amz-Tenant-Id"] == "blue"


def test_a_url_becomes_an_http_target():
    target = target_of({"http": {"url": URL, "signing": {"secrets": [SECRET]}, "timeout_in_seconds": 3}})
    assert isinstance(target, HttpTarget)
    assert str(target._url) == URL
    assert target._timeout_seconds == 3


def test_the_function_s_own_limit_is_looked_up_unless_one_is_set():
    assert target_of({"lambda": {"function_name": "f"}})._timeout_seconds is None
    assert target_of({"lambda": {"function_name": "f", "timeout_in_seconds": 20}})._timeout_seconds == 20


@pytest.mark.parametrize(
    ("settings", "report"),
    [
        ({}, Report.WELCOME),
        ({"function_response_types": ["ReportBatchItemFailures"]}, Report.EXPECTED),
        ({"FunctionResponseTypes": ["ReportBatchItemFailures"]}, Report.EXPECTED),
        ({"function_response_types": []}, Report.IGNORED),
    ],
)
def test_a_report_is_expected_where_it_was_written_and_welcome_where_it_is_the_default(settings, report):
    assert target_of({"lambda": {"function_name": "f"}}, **settings)._report is report
    assert target_of({"http": {"url": URL, "batch": True}}, **settings)._report is report
    assert target_of({"http": {"url": URL}}, **settings)._report is Report.IGNORED
    event = {"lambda": {"function_name": "f", "invocation_type": "Event"}}
    assert target_of(event, **settings)._report is Report.IGNORED


def test_no_target_shows_a_secret():
    target = target_of({"http": {"url": URL, "auth": {"bearer": "hunter2"}, "signing": {"secrets": [SECRET]}}})
    shown = repr(target) + repr(vars(target)) + repr(vars(target._keeper))
    assert "hunter2" not in shown
    assert SECRET not in shown
