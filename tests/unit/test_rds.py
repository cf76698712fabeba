"""RDS IAM tokens in place of a password."""

from __future__ import annotations

from urllib.parse import parse_qs, urlsplit

import pytest
from psycopg.conninfo import conninfo_to_dict

from bridge.errors import ConfigError, SecretUnavailable
from bridge.rds import connection_string, with_token
from bridge.secret import Secret, SecretResolver

DSN = "postgresql://reader@shop.abc123.eu-west-1.rds.amazonaws.com:5433/shop"


@pytest.fixture(autouse=True)
def credentials(monkeypatch, tmp_path):
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_REGION", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")


def test_a_token_names_host_port_user_and_region_and_needs_verified_tls():
    parameters = conninfo_to_dict(with_token(DSN))
    token = urlsplit("https://" + parameters["password"])
    assert (token.hostname, token.port) == ("shop.abc123.eu-west-1.rds.amazonaws.com", 5433)
    query = parse_qs(token.query)
    assert query["DBUser"] == ["reader"]
    assert "/eu-west-1/rds-db/aws4_request" in query["X-Amz-Credential"][0]
    assert parameters["sslmode"] == "verify-full"


def test_what_the_dsn_says_of_tls_stands():
    assert conninfo_to_dict(with_token(DSN + "?sslmode=require"))["sslmode"] == "require"


@pytest.mark.parametrize(
    "dsn", ["postgresql://shop.example.com/shop", "postgresql:///shop?user=reader", "host=a,b user=reader"]
)
def test_a_dsn_without_one_host_and_a_user_is_refused_in_one_sentence(dsn):
    with pytest.raises(ConfigError, match="lacks a host or a user"):
        with_token(dsn)


def test_missing_credentials_are_named(monkeypatch):
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    with pytest.raises(SecretUnavailable, match="IAM token"):
        with_token(DSN)


async def test_without_iam_the_dsn_is_used_as_it_is():
    secrets = SecretResolver()
    assert await connection_string(Secret(DSN), secrets, iam_auth=False) == DSN
    assert "password" in conninfo_to_dict(await connection_string(Secret(DSN), secrets, iam_auth=True))
