"""Secrets: used, rotated, and never shown."""

from __future__ import annotations

import asyncio
import copy
import json
import pickle
import sys

import boto3
import pytest
from pydantic import BaseModel

from bridge.errors import ConfigError, Disposition, SecretUnavailable
from bridge.secret import HIDDEN, Secret, SecretResolver, redact

VALUE = "correct horse battery staple"


class Holder(BaseModel):
    secret: Secret


def test_nothing_that_prints_a_secret_shows_it():
    secret = Secret(VALUE)
    holder = Holder(secret=secret)
    shown = [
        repr(secret),
        str(secret),
        f"{secret}",
        f"{secret!r:>40}",
        repr(holder),
        str([secret]),
        holder.model_dump_json(),
    ]
    shown.append(json.dumps(holder.model_dump(mode="json")))
    assert not [text for text in shown if "horse" in text]


def test_what_is_no_text_or_empty_is_refused():
    with pytest.raises(ValueError, match="quotes"):
        Holder(secret=12345678)
    with pytest.raises(ValueError, match="it is empty"):
        Holder(secret="")


def test_a_secret_is_immutable_and_can_not_be_pickled():
    secret = Secret(VALUE)
    with pytest.raises(AttributeError):
        secret.kind = "file"
    with pytest.raises(AttributeError):
        del secret.kind
    with pytest.raises(TypeError):
        pickle.dumps(secret)
    assert copy.deepcopy(secret) is secret
    assert copy.copy(secret) is secret


def test_secrets_are_equal_by_what_they_hold():
    assert Secret(VALUE) == Secret(VALUE)
    assert hash(Secret(VALUE)) == hash(Secret(VALUE))
    assert Secret(VALUE) != Secret(VALUE + "!")
    assert Secret(VALUE) != VALUE


@pytest.mark.parametrize(
    ("text", "kind", "reference"),
    [
        ("file:/run/secrets/x", "file", "/run/secrets/x"),
        (
            "secretsmanager:arn:aws:secretsmanager:eu-west-1:1:secret:db#password",
            "secretsmanager",
            "arn:aws:secretsmanager:eu-west-1:1:secret:db#password",
        ),
        ("ssm:/pgbridge/dsn", "ssm", "/pgbridge/dsn"),
    ],
)
def test_a_reference_names_its_place(text, kind, reference):
    secret = Secret(text)
    assert (secret.kind, secret.reference, secret.literal) == (kind, reference, None)


@pytest.mark.parametrize("text", ["postgresql://u:p@h/d", "file", "files:/x", "ssm", "host=x dbname=file:y", "file:"])
def test_all_other_text_is_the_secret_itself(text):
    assert Secret(text).literal == text
    with pytest.raises(ValueError, match="refers to nothing"):
        _ = Secret(text).reference


async def test_a_literal_is_its_own_answer():
    assert await SecretResolver().fetch(Secret(VALUE)) == VALUE


@pytest.mark.parametrize(
    ("content", "secret"), [("s3cret\n", "s3cret"), ("s3cret\r\n", "s3cret"), ("a\n\n", "a\n"), (" a ", " a ")]
)
async def test_a_file_loses_one_trailing_newline(tmp_path, content, secret):
    path = tmp_path / "token"
    path.write_bytes(content.encode())
    assert await SecretResolver().fetch(Secret(f"file:{path}")) == secret
    assert await SecretResolver().fetch(Secret(f"file://{path}")) == secret


async def test_a_rotated_file_is_read_again_only_when_fresh_is_asked_for(tmp_path):
    path = tmp_path / "token"
    path.write_text("old")
    resolver, secret = SecretResolver(), Secret(f"file:{path}")
    assert await resolver.fetch(secret) == "old"
    path.write_text("new")
    assert await resolver.fetch(secret) == "old"
    assert await resolver.fetch(secret, fresh=True) == "new"
    assert await resolver.fetch(secret) == "new"


async def test_an_unreadable_file_is_a_config_error_that_names_it(tmp_path):
    resolver = SecretResolver()
    with pytest.raises(ConfigError, match="missing can't be read"):
        await resolver.fetch(Secret(f"file:{tmp_path}/missing"))
    (tmp_path / "empty").write_text("\n")
    with pytest.raises(ConfigError, match="empty is empty"):
        await resolver.fetch(Secret(f"file:{tmp_path}/empty"))
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="not UTF-8"):
        await resolver.fetch(Secret(f"file:{tmp_path}/binary"))


async def test_many_callers_cause_one_fetch(tmp_path, monkeypatch):
    reads = []
    monkeypatch.setitem(sys.modules["bridge.secret"]._READERS, "file", lambda reference: reads.append(reference) or "x")
    resolver, secret = SecretResolver(), Secret("file:/x")
    assert await asyncio.gather(*(resolver.fetch(secret) for _ in range(5))) == ["x"] * 5
    assert reads == ["/x"]


@pytest.fixture
def document(aws):
    """The ARN of a secret that holds a JSON document, as RDS keeps its own."""
    client = boto3.client("secretsmanager")
    created = client.create_secret(Name="db", SecretString=json.dumps({"password": VALUE, "port": 5432, "tags": ["x"]}))
    yield created["ARN"]
    client.delete_secret(SecretId="db", ForceDeleteWithoutRecovery=True)


async def test_a_member_of_a_secrets_manager_document_is_picked(document):
    resolver = SecretResolver()
    assert await resolver.fetch(Secret(f"secretsmanager:{document}#password")) == VALUE
    assert await resolver.fetch(Secret(f"secretsmanager:{document}#port")) == "5432"
    assert await resolver.fetch(Secret("secretsmanager:db#password")) == VALUE
    assert json.loads(await resolver.fetch(Secret(f"secretsmanager:{document}")))["port"] == 5432


@pytest.mark.parametrize(("key", "says"), [("nope", "has no member 'nope'"), ("tags", "'tags' .* is not text")])
async def test_a_member_that_is_not_there_is_named_without_the_document(document, key, says):
    with pytest.raises(ConfigError, match=says) as caught:
        await SecretResolver().fetch(Secret(f"secretsmanager:{document}#{key}"))
    assert "horse" not in str(caught.value)


async def test_a_plain_secret_has_no_members(aws):
    boto3.client("secretsmanager").create_secret(Name="plain", SecretString=VALUE)
    assert await SecretResolver().fetch(Secret("secretsmanager:plain")) == VALUE
    with pytest.raises(ConfigError, match="is not JSON") as caught:
        await SecretResolver().fetch(Secret("secretsmanager:plain#key"))
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


async def test_a_rotated_secret_is_taken_up_when_fresh_is_asked_for(document):
    resolver, secret = SecretResolver(), Secret("secretsmanager:db#password")
    assert await resolver.fetch(secret) == VALUE
    boto3.client("secretsmanager").put_secret_value(SecretId="db", SecretString='{"password": "next"}')
    assert await resolver.fetch(secret) == VALUE
    assert await resolver.fetch(secret, fresh=True) == "next"


async def test_a_parameter_is_decrypted(aws):
    boto3.client("ssm").put_parameter(Name="/pgbridge/dsn", Value=VALUE, Type="SecureString")
    assert await SecretResolver().fetch(Secret("ssm:/pgbridge/dsn")) == VALUE


async def test_what_does_not_exist_is_a_config_error_with_the_services_code(aws):
    with pytest.raises(ConfigError, match="ResourceNotFoundException"):
        await SecretResolver().fetch(Secret("secretsmanager:nope"))
    with pytest.raises(ConfigError, match="ParameterNotFound"):
        await SecretResolver().fetch(Secret("ssm:/nope"))


async def test_a_service_that_does_not_answer_is_worth_another_try(aws, unused_tcp_port, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{unused_tcp_port}")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    with pytest.raises(SecretUnavailable, match="EndpointConnectionError") as caught:
        await SecretResolver().fetch(Secret("ssm:/x"))
    assert caught.value.disposition is Disposition.RETRY


async def test_without_credentials_the_remedy_says_so(aws, monkeypatch, tmp_path):
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    with pytest.raises(ConfigError, match="AWS credentials"):
        await SecretResolver().fetch(Secret("ssm:/x"))


@pytest.mark.parametrize(
    "text",
    [
        "postgresql://user:hunter2@host/db",
        "connection to postgres://u:hunter2@h:5432/d?x=1 failed",
        "host=h password=hunter2 dbname=d",
        "password = 'hunter2 hunter2' user=x",
        "Authorization: Bearer hunter2hunter2",
        "token=hunter2",
        "whsec_hunter2hunter2hunter2",
        '{"client_secret": "hunter2"}',
        "https://h/hook?api_key=hunter2&x=1",
    ],
)
def test_foreign_text_is_covered_where_it_looks_secret(text):
    assert "hunter2" not in redact(text)
    assert HIDDEN in redact(text)


@pytest.mark.parametrize(
    "text", ["slot pgbridge at 16/B374D848", "https://api.example.com/x", "table public.users: 3 rows", ""]
)
def test_other_text_is_left_alone(text):
    assert redact(text) == text
