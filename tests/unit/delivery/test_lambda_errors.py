"""The classes of Lambda's error codes, held against the service model that the SDK ships."""

from __future__ import annotations

import botocore.session
import pytest

from bridge.delivery import lambda_errors
from bridge.delivery.lambda_errors import ErrorClass, error_class, remedy

GROUPS = [
    lambda_errors.BUSY,
    lambda_errors.FAILED,
    lambda_errors.TOO_LARGE,
    lambda_errors.REJECTED,
    frozenset(lambda_errors.MISCONFIGURED),
]


def invoke_errors():
    model = botocore.session.get_session().get_service_model("lambda").operation_model("Invoke")
    return {shape.name: shape.metadata["error"]["httpStatusCode"] for shape in model.error_shapes}


def test_every_error_that_the_service_model_gives_invoke_has_a_class_of_its_own():
    known = frozenset().union(*GROUPS)
    assert set(invoke_errors()) - known == set()


def test_no_code_stands_in_two_classes():
    assert sum(map(len, GROUPS)) == len(frozenset().union(*GROUPS))


@pytest.mark.parametrize("code", sorted(lambda_errors.MISCONFIGURED))
def test_every_misconfiguration_has_a_remedy_that_reads_as_one(code):
    text = remedy(code, 400, "welcome-email:live")
    assert "{" not in text
    assert text[0].islower()
    assert not text.endswith(".")


@pytest.mark.parametrize(
    ("code", "status", "expected"),
    [
        ("", 429, ErrorClass.BUSY),
        ("", 503, ErrorClass.BUSY),
        ("", 413, ErrorClass.TOO_LARGE),
        ("", 408, ErrorClass.FAILED),
        ("", 425, ErrorClass.FAILED),
        ("", 500, ErrorClass.FAILED),
        ("", 502, ErrorClass.FAILED),
        ("", 302, ErrorClass.FAILED),
        ("", 204, ErrorClass.FAILED),
        ("", 400, ErrorClass.MISCONFIGURED),
        ("", 403, ErrorClass.MISCONFIGURED),
        ("", 404, ErrorClass.MISCONFIGURED),
        ("SomethingNewException", 400, ErrorClass.MISCONFIGURED),
        ("SomethingNewException", 502, ErrorClass.FAILED),
        ("EC2ThrottledException", 502, ErrorClass.BUSY),
        ("KMSDisabledException", 502, ErrorClass.MISCONFIGURED),
        ("EFSIOException", 410, ErrorClass.BUSY),
        ("ServiceException", 500, ErrorClass.FAILED),
    ],
)
def test_the_code_decides_and_the_status_only_where_there_is_none(code, status, expected):
    assert error_class(code, status) is expected


def test_an_unknown_refusal_still_has_a_remedy():
    assert "lambda:InvokeFunction on f" in remedy("", 403, "f")
    assert remedy("", 404, "f").startswith("create f")
    assert "AWS documentation" in remedy("SomethingNewException", 400, "f")
