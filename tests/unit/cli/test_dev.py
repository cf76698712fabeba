"""Where `dev` points the AWS SDK of its own process."""

from __future__ import annotations

import os
from unittest import mock

import botocore.session
import pytest

from bridge.cli.dev import point_sdk_at

ENDPOINT = "http://127.0.0.1:3001"


@pytest.fixture
def environ(tmp_path):
    """An environment in which nothing says who or where we are."""
    bare = {
        "HOME": str(tmp_path),
        "AWS_CONFIG_FILE": str(tmp_path / "config"),
        "AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "credentials"),
    }
    with mock.patch.dict(os.environ, bare, clear=True):
        yield os.environ


def test_lambda_alone_is_called_here(environ):
    environ["AWS_IGNORE_CONFIGURED_ENDPOINT_URLS"] = "true"
    point_sdk_at(ENDPOINT, "eu-west-1")
    session = botocore.session.Session()
    client = session.create_client("lambda")
    assert client.meta.endpoint_url == ENDPOINT
    assert session.create_client("sqs").meta.endpoint_url == "https://sqs.eu-west-1.amazonaws.com"
    assert session.get_credentials().access_key == "local"


def test_credentials_and_region_of_the_machine_are_left_alone(environ, tmp_path):
    (tmp_path / "credentials").write_text("[default]\naws_access_key_id = mine\naws_secret_access_key = mine\n")
    (tmp_path / "config").write_text("[default]\nregion = eu-north-1\n")
    before = dict(environ)
    point_sdk_at(ENDPOINT, "us-east-1")
    assert dict(environ) == {**before, "AWS_ENDPOINT_URL_LAMBDA": ENDPOINT}
    session = botocore.session.Session()
    assert (session.get_credentials().access_key, session.get_config_variable("region")) == ("mine", "eu-north-1")
