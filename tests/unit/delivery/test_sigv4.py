"""Our signatures against botocore's, over whatever a target may look like."""

from __future__ import annotations

import datetime as dt

import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from hypothesis import given, settings
from hypothesis import strategies as st
from yarl import URL

from bridge.delivery.http import host_header
from bridge.delivery.sigv4 import AwsKeys, SigV4Signer

KEYS = AwsKeys("AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY")
TEMPORARY = AwsKeys("ASIAEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY", "IQoJb3JpZ2luX2VjEXAMPLE==")
NOW = 1_790_000_000.0


def theirs(url, keys, headers, body, now, service, region, monkeypatch):
    stamp = dt.datetime.fromtimestamp(now, dt.UTC)
    monkeypatch.setattr("botocore.auth.get_current_datetime", lambda: stamp)
    request = AWSRequest(method="POST", url=str(url), headers=dict(headers), data=body)
    SigV4Auth(Credentials(keys.access_key, keys.secret_key, keys.token), service, region).add_auth(request)
    return dict(request.headers.items())


def ours(url, keys, headers, body, now, service, region):
    signer = SigV4Signer(
        service=service, region=region, host=host_header(url), path=url.raw_path, query=url.raw_query_string
    )
    return {**headers, **signer.headers(keys, headers, body, now)}


URLS = [
    "https://lambda.eu-west-1.amazonaws.com/2015-03-31/functions/welcome-email/invocations",
    "https://lambda.eu-west-1.amazonaws.com/2015-03-31/functions/welcome-email/invocations?Qualifier=live",
    "https://lambda.eu-west-1.amazonaws.com/2015-03-31/functions/welcome-email/invocations?Qualifier=%24LATEST",
    "https://lambda.eu-west-1.amazonaws.com/2015-03-31/functions/arn%3Aaws%3Alambda%3Aeu-west-1%3A123456789012%3Afunction%3Aw/invocations",
    "http://127.0.0.1:9001/2015-03-31/functions/f/invocations",
    "http://[::1]:9001/2015-03-31/functions/f/invocations",
    "https://lambda.eu-west-1.amazonaws.com:443/2015-03-31/functions/f/invocations",
    "https://abc.lambda-url.eu-west-1.on.aws/",
    "https://abc.lambda-url.eu-west-1.on.aws",
    "https://abc.execute-api.eu-west-1.amazonaws.com/prod//hooks/../orders/./x/?b=2&a=1&a=0&c&d=%20x%2Fy",
    "https://abc.execute-api.eu-west-1.amazonaws.com/a%20b/%C3%A9/~x_-.*",
]


@pytest.mark.parametrize("text", URLS)
@pytest.mark.parametrize("keys", [KEYS, TEMPORARY])
def test_a_signature_is_botocore_s(text, keys, monkeypatch):
    url = URL(text, encoded=True)
    headers = {
        "Content-Type": "application/json",
        "X-Amz-Invocation-Type": "RequestResponse",
        "X-Amz-Log-Type": "Tail",
        "X-Amz-Client-Context": "eyJjdXN0b20iOnt9fQ==",
        "X-Amz-Tenant-Id": "blue  and   green",
    }
    body = b'{"Records":[]}'
    assert ours(url, keys, headers, body, NOW, "lambda", "eu-west-1") == theirs(
        url, keys, headers, body, NOW, "lambda", "eu-west-1", monkeypatch
    )


@settings(max_examples=60)
@given(
    body=st.binary(max_size=200),
    values=st.lists(st.text("abc XYZ09-_=/", max_size=12), max_size=4),
    now=st.integers(0, 4_000_000_000),
)
def test_any_body_header_and_moment_is_signed_as_botocore_signs_it(body, values, now):
    with pytest.MonkeyPatch.context() as monkeypatch:
        url = URL(URLS[1], encoded=True)
        headers = {f"X-Amz-Thing-{number}": value.strip() for number, value in enumerate(values)}
        assert ours(url, KEYS, headers, body, float(now), "lambda", "us-east-1") == theirs(
            url, KEYS, headers, body, float(now), "lambda", "us-east-1", monkeypatch
        )


def test_the_remembered_key_follows_the_day_and_the_credentials(monkeypatch):
    url = URL(URLS[0], encoded=True)
    signer = SigV4Signer(service="lambda", region="eu-west-1", host=host_header(url), path=url.raw_path)
    for keys, now in [(KEYS, NOW), (KEYS, NOW + 1), (KEYS, NOW + 86_400), (TEMPORARY, NOW), (KEYS, NOW)]:
        expected = theirs(url, keys, {}, b"x", now, "lambda", "eu-west-1", monkeypatch)
        assert signer.headers(keys, {}, b"x", now) == expected


def test_keys_show_no_secret():
    assert "wJalr" not in repr(TEMPORARY)
    assert "IQoJ" not in repr(TEMPORARY)
