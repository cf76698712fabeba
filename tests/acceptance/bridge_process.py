"""`pgbridge run` as a process of its own, with what it delivers to."""

from __future__ import annotations

import asyncio
import base64
import os
import secrets
import signal
import sys
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import Self

from bridge.local.lambda_api import LocalLambda
from bridge.local.receiver import Receiver, read_ledger
from bridge.local.template import FunctionSpec

HERE = Path(__file__).parent
COMMAND = [sys.executable, "-c", "from bridge.cli import main; main()"]

CONFIGURATION = """\
source: {{dsn: "{dsn}", slot: {slot}, publication: {slot}}}
admin: {{listen: null}}
triggers:
  to-function:
    tables: [public.pgbench_*]
    target:
      lambda: {{function_name: ledger}}
  to-webhook:
    tables: [public.pgbench_*]
    target:
      http:
        url: {url}hook
        batch: true
        auth: {{bearer: "${{TOKEN}}"}}
        signing: {{secrets: ["${{SECRET}}"]}}
"""


class Rig:
    """A receiver, a function and the configuration that sends everything of pgbench's tables to both."""

    def __init__(self, dsn: str, folder: Path) -> None:
        self.dsn = dsn
        self.slot = "bridge_" + secrets.token_hex(4)
        self.folder = folder
        self.token = secrets.token_hex(8)
        self.secret = "whsec_" + base64.b64encode(secrets.token_bytes(24)).decode()
        self.configuration = folder / "pgbridge.yaml"
        self.function_ledger = folder / "function.jsonl"
        self.receiver_ledger = folder / "receiver.jsonl"
        self.bridge: asyncio.subprocess.Process | None = None
        self.receiver: Receiver | None = None
        self.starts = 0
        self._stack = AsyncExitStack()
        self.environment: dict[str, str] = {}

    async def __aenter__(self) -> Self:
        self.function_ledger.touch()
        self.receiver = await self._stack.enter_async_context(
            Receiver(bearer=self.token, signing_secrets=[self.secret], ledger=self.receiver_ledger)
        )
        spec = FunctionSpec(
            "Ledger", "ledger", "handler.lambda_handler", HERE / "functions" / "ledger", timeout_seconds=30
        )
        spec = replace(spec, environment={"LEDGER": str(self.function_ledger)})
        functions = await self._stack.enter_async_context(LocalLambda([spec]))
        self.environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(self.folder),
            "TOKEN": self.token,
            "SECRET": self.secret,
            "AWS_ENDPOINT_URL_LAMBDA": functions.endpoint_url,
            "AWS_ACCESS_KEY_ID": "local",
            "AWS_SECRET_ACCESS_KEY": "local",
            "AWS_REGION": "us-east-1",
        }
        self.write_configuration()
        return self

    async def __aexit__(self, *exception: object) -> None:
        if self.bridge is not None and self.bridge.returncode is None:
            self.bridge.kill()
            await self.bridge.wait()
        await self._stack.aclose()

    def write_configuration(self, text: str = CONFIGURATION) -> None:
        self.configuration.write_text(text.format(dsn=self.dsn, slot=self.slot, url=self.receiver.url))

    async def command(self, *arguments: str, code: int = 0) -> tuple[str, str]:
        """A command of pgbridge with this configuration; gives its stdout and stderr."""
        process = await asyncio.create_subprocess_exec(
            *COMMAND, *arguments, "--config", str(self.configuration), env=self.environment,
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        output, errors = await asyncio.wait_for(process.communicate(), 60)
        assert process.returncode == code, errors.decode()
        return output.decode(), errors.decode()

    async def start(self) -> None:
        """`pgbridge run`; returns at once."""
        self.starts += 1
        with self.log.open("ab") as log:
            self.bridge = await asyncio.create_subprocess_exec(
                *COMMAND, "run", "--config", str(self.configuration), env=self.environment, stderr=log, stdout=log
            )

    @property
    def log(self) -> Path:
        return self.folder / "bridge.log"

    async def kill(self) -> None:
        self.bridge.kill()
        await self.bridge.wait()

    async def stop(self) -> int:
        """A clean stop; gives the exit code."""
        self.bridge.send_signal(signal.SIGTERM)
        return await asyncio.wait_for(self.bridge.wait(), 60)

    async def arrived(self, count: int) -> None:
        """Wait until so many different events are in both ledgers."""
        for ledger in (self.receiver_ledger, self.function_ledger):
            async with asyncio.timeout(90):
                while len({line["id"] for line in read_ledger(ledger)}) < count:
                    assert self.bridge.returncode is None, self.log.read_text()
                    await asyncio.sleep(0.2)
