"""`pgbridge dev` as a user starts it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest

TEMPLATE = """
Transform: AWS::Serverless-2016-10-31
Parameters: {Greeting: {Type: String, Default: Hello}}
Globals: {Function: {Runtime: python3.11, Handler: app.handler, CodeUri: code}}
Resources:
  Greeter:
    Type: AWS::Serverless::Function
    Properties:
      FunctionName: greeter
      AutoPublishAlias: live
      Environment: {Variables: {GREETING: !Ref Greeting, PLACE: here, HOST: !GetAtt Db.Endpoint}}
  Other: {Type: AWS::Serverless::Function, Properties: {Runtime: nodejs22.x}}
"""

HANDLER = """
import os
def handler(event, context):
    text = f"{os.environ['GREETING']} {event['name']} %s {os.environ['PLACE']}"
    print(text)
    return text
"""


class Dev:
    def __init__(self, folder: Path, *arguments: str, **environ: str) -> None:
        command = [sys.executable, "-c", "from bridge.cli import main; main()", "dev", "--port", "0", *arguments]
        self.process = subprocess.Popen(
            command,
            cwd=folder,
            env={**os.environ, **environ},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def line(self, holding: str) -> str:
        """The next line on stdout that holds the text."""
        for line in self.process.stdout:
            if holding in line:
                return line
        raise AssertionError(f"it ended without a line that holds {holding!r}: {self.process.stderr.read()}")

    def client(self):
        url = self.line("Lambda API at").split()[-1]
        return boto3.client(
            "lambda", endpoint_url=url, region_name="us-east-1", aws_access_key_id="a", aws_secret_access_key="b"
        )

    def end(self) -> tuple[int, str]:
        self.process.send_signal(signal.SIGINT)
        _, errors = self.process.communicate()
        return self.process.returncode, errors


@pytest.fixture
def folder(tmp_path) -> Path:
    (tmp_path / "template.yaml").write_text(TEMPLATE)
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "app.py").write_text(HANDLER % "is")
    return tmp_path


@pytest.fixture
def start(folder) -> Iterator:
    started = []

    def start(*arguments: str, **environ: str) -> Dev:
        started.append(Dev(folder, *arguments, **environ))
        return started[-1]

    yield start
    for dev in started:
        if dev.process.poll() is None:
            dev.process.kill()
        dev.process.communicate()


def invoke(client, name: str) -> object:
    answer = client.invoke(FunctionName="greeter", Qualifier="live", Payload=json.dumps({"name": name}))
    return json.loads(answer["Payload"].read())


def test_functions_are_invoked_their_log_shown_and_their_code_followed(start, folder):
    dev = start("--watch", "--parameter", "Greeting=Servus", PLACE="there")
    client = dev.client()
    assert invoke(client, "Jane") == "Servus Jane is there"
    assert dev.line("Servus Jane") == "greeter | Servus Jane is there\n"
    (folder / "code" / "app.py").write_text(HANDLER % "was")
    assert "greeter" in dev.line("the code changed")
    assert invoke(client, "Jane") == "Servus Jane was there"
    client.close()
    code, errors = dev.end()
    assert code == 0
    assert "Other is written for nodejs22.x" in errors
    assert "Greeter: Environment uses !GetAtt Db.Endpoint" in errors


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["-t", "nowhere.yaml"], 2, "nowhere.yaml does not exist; name the SAM template with --template"),
        (["-c", "nowhere.yaml"], 2, "nowhere.yaml"),
        (["--parameter", "Greeting"], 2, "write NAME=VALUE"),
    ],
)
def test_bad_input_is_one_sentence_and_an_exit_code(start, arguments, code, words):
    dev = start(*arguments)
    output, errors = dev.process.communicate()
    assert (dev.process.returncode, output) == (code, "")
    assert words in errors
    assert "Traceback" not in errors


def test_a_port_that_is_taken_is_one_sentence(start):
    first = start()
    client = first.client()
    port = client.meta.endpoint_url.rpartition(":")[2]
    client.close()
    second = start("--port", port)
    _, errors = second.process.communicate()
    assert second.process.returncode == 9
    assert f"port {port} of 127.0.0.1 can't be used" in errors
