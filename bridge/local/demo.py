"""
The demo: a database, functions, a webhook receiver and the bridge on this machine, and a story told with them.

Every step is done by the real part: the server is PostgreSQL, the functions run under AWS's own runtime client, the
receiver verifies signatures with the reference library, and the commands are those that a user types. Each step waits
for what it announces, and ends the demo with a `DemoFailed` if that does not come.
"""

from __future__ import annotations

import asyncio
import base64
import os
import secrets
import socket
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import psycopg

from bridge.errors import BridgeError, ConfigError
from bridge.local.lambda_api import LocalLambda
from bridge.local.postgres import EmbeddedPostgres
from bridge.local.receiver import Receiver
from bridge.local.template import FunctionSpec, read_template

STEP_SECONDS = 60.0
WELCOME = "welcome-user"

CONFIGURATION = """\
# Written by `pgbridge demo`; a real one looks the same.
source:
  dsn: {dsn}
  slot: demo
  publication: demo
admin:
  listen: 127.0.0.1:{admin_port}
triggers:
  welcome:
    tables: [public.users]
    operations: [insert]
    target:
      lambda: {{function_name: welcome-user, qualifier: live}}
    maximum_retry_attempts: 2
  order-webhook:
    tables: [public.orders]
    target:
      http:
        url: {receiver_url}hooks/orders
        auth: {{bearer: "${{HOOK_TOKEN}}"}}
        signing: {{secrets: ["${{HOOK_SECRET}}"]}}
"""

FUNCTION = FunctionSpec(
    logical_id="WelcomeUser",
    name=WELCOME,
    handler="index.lambda_handler",
    code=None,
    inline="""\
import os

from bridge.handlers import process_changes


def welcome(event):
    name = event.record["name"].strip()
    if not name and os.environ.get("WELCOME_ALLOW_MISSING_NAME") != "1":
        raise ValueError(f"user {event.record['id']} has no name to be greeted by")
    print(f"Hello {name or 'there'}")


def lambda_handler(event, context):
    return process_changes(event, welcome, context=context)
""",
    timeout_seconds=30,
    alias="live",
)
"""`functions/welcome_user` in short, for where only the package is installed and there is no checkout."""

SCHEMA = """
CREATE TABLE users (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, name text NOT NULL, plan text NOT NULL);
CREATE TABLE orders (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, user_id bigint NOT NULL,
                     total numeric(10,2) NOT NULL, status text NOT NULL DEFAULT 'new');
"""

Say = Callable[[str], None]


class DemoFailed(BridgeError):
    """A step of the demo did not do what it announced."""


class Demo:
    """
    Args:
        template: the SAM template whose functions run; None for a function of our own.
        say: prints a line of the story.
        show: prints a command and what it wrote.
    """

    def __init__(self, template: Path | None, *, say: Say, show: Callable[[str, str], None]) -> None:
        self._say = say
        self._show = show
        self._functions = (FUNCTION,) if template is None else tuple(read_template(template).functions)
        self._whose = (
            "a function of the demo's own runs" if template is None else f"the functions of {template.name} run"
        )
        if WELCOME not in {function.name for function in self._functions}:
            raise ConfigError(
                f"{template} has no function {WELCOME!r}, which the demo invokes",
                remedy="name one that has, or leave --template (and PGBRIDGE_TEMPLATE) out",
            )
        self._folder = Path(tempfile.mkdtemp(prefix="pgbridge-demo-"))
        self._environment = {
            **os.environ,
            "HOOK_TOKEN": secrets.token_urlsafe(16),
            "HOOK_SECRET": "whsec_" + base64.b64encode(secrets.token_bytes(24)).decode("ascii"),
            # The local Lambda checks no signature, but the SDK wants something to sign with.
            "AWS_ACCESS_KEY_ID": "demo",
            "AWS_SECRET_ACCESS_KEY": "demo",
            "AWS_REGION": "us-east-1",
        }
        self._environment.pop("AWS_PROFILE", None)
        self._log: list[str] = []
        self._logged = asyncio.Condition()
        self._dsn = ""

    @property
    def configuration(self) -> Path:
        return self._folder / "pgbridge.yaml"

    # -- the story -----------------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def running(self) -> AsyncIterator[str]:
        """Tell the story; afterwards everything still runs until the context is left. Gives the console's URL."""
        postgres = EmbeddedPostgres(settings={"fsync": "off"})
        self._say("PostgreSQL starts in a temporary folder")
        await asyncio.to_thread(postgres.start)
        receiver = Receiver(bearer=self._environment["HOOK_TOKEN"], signing_secrets=[self._environment["HOOK_SECRET"]])
        functions = LocalLambda(self._functions, environ=self._environment, on_log=self._on_log)
        bridge: asyncio.subprocess.Process | None = None
        try:
            self._dsn = postgres.dsn()
            await self._execute(SCHEMA)
            await receiver.start()
            self._say(f"a webhook receiver that checks token and signature listens at {receiver.url}")
            await functions.start()
            self._environment["AWS_ENDPOINT_URL_LAMBDA"] = functions.endpoint_url
            self._say(f"{self._whose} behind {functions.endpoint_url}")
            admin_port = _free_port()
            self.configuration.write_text(
                CONFIGURATION.format(dsn=self._dsn, admin_port=admin_port, receiver_url=receiver.url)
            )
            await self._command("init")
            bridge = await self._start_bridge()
            self._say("`pgbridge run` reads the slot")
            await self._greet()
            await self._order(receiver)
            functions = await self._poison_and_mend(functions)
            await self._command("status")
            yield f"http://127.0.0.1:{admin_port}/"
            self._say("the bridge is asked to stop")
            bridge.terminate()
            await self._within(bridge.wait(), "the bridge to stop")
            if bridge.returncode != 0:
                raise DemoFailed(f"the bridge ended with exit code {bridge.returncode}", remedy=self._log_hint())
        finally:
            if bridge is not None and bridge.returncode is None:
                with suppress(ProcessLookupError):
                    bridge.kill()
                await bridge.wait()
            await functions.stop()
            await receiver.stop()
            await asyncio.to_thread(postgres.close)

    async def _greet(self) -> None:
        self._say("three users sign up: one INSERT")
        await self._execute(
            "INSERT INTO users (name, plan) VALUES ('John Doe', 'pro'), ('Jane Roe', 'free'), ('Richard Miles', 'team')"
        )
        for name in ("John Doe", "Jane Roe", "Richard Miles"):
            self._say(f"  {WELCOME} says: {await self._hears(f'Hello {name}')}")

    async def _order(self, receiver: Receiver) -> None:
        self._say("an order is placed, paid and shipped: an INSERT and two UPDATEs of one row")
        await self._execute(
            "INSERT INTO orders (user_id, total) VALUES (1, 12.50)",
            "UPDATE orders SET status = 'paid'",
            "UPDATE orders SET status = 'shipped'",
        )
        taken = await self._within(receiver.wait_for(3), "three webhooks")
        for one in taken:
            record: Any = one.event["record"]
            self._say(f"  webhook {one.id}, signature verified: order {record['id']} is {record['status']}")
        if [one.event["record"]["status"] for one in taken] != ["new", "paid", "shipped"]:
            raise DemoFailed("the webhooks came in another order than the changes", remedy=self._log_hint())
        refused = [call for call in receiver.calls if call.status != 200]
        if refused:
            raise DemoFailed(f"the receiver refused a call: {refused[0].reason}", remedy=self._log_hint())

    async def _poison_and_mend(self, functions: LocalLambda) -> LocalLambda:
        self._say("a user without a name signs up among others; the function can't greet that one")
        await self._execute(
            "INSERT INTO users (name, plan) VALUES ('Ann Lee', 'pro'), ('', 'free'), ('Bob Ray', 'pro')"
        )
        for name in ("Ann Lee", "Bob Ray"):
            self._say(f"  {WELCOME} says: {await self._hears(f'Hello {name}')}")
        letters = await self._within(self._dead_letters(1), "a dead letter")
        if len(letters) != 1 or letters[0]["trigger"] != "welcome":
            raise DemoFailed(f"there are {len(letters)} dead letters, not one", remedy=self._log_hint())
        await self._command("dlq", "list")
        self._say("the function is mended and deployed anew, and the dead letter replayed")
        functions = await self._redeploy(functions, WELCOME_ALLOW_MISSING_NAME="1")
        await self._command("dlq", "replay", "--all")
        self._say(f"  {WELCOME} says: {await self._hears('Hello there')}")
        if await self._within(self._dead_letters(0), "the dead letters to be gone"):
            raise DemoFailed("a dead letter is left after its replay", remedy=self._log_hint())
        return functions

    # -- its parts -----------------------------------------------------------------------------------------------------

    async def _redeploy(self, functions: LocalLambda, **variables: str) -> LocalLambda:
        port = int(functions.endpoint_url.rpartition(":")[2])
        await functions.stop()
        changed: list[FunctionSpec] = [
            replace(spec, environment={**spec.environment, **variables}) if spec.name == WELCOME else spec
            for spec in self._functions
        ]
        return await LocalLambda(changed, port=port, environ=self._environment, on_log=self._on_log).start()

    async def _start_bridge(self) -> asyncio.subprocess.Process:
        with (self._folder / "bridge.log").open("wb") as log:
            return await asyncio.create_subprocess_exec(
                *_pgbridge("run", "--config", str(self.configuration)), env=self._environment, stderr=log
            )

    async def _command(self, *arguments: str) -> str:
        """Run a command of pgbridge as a user would, and show it."""
        output = await self._run(*arguments)
        self._show(" ".join(["pgbridge", *arguments]), output)
        return output

    async def _run(self, *arguments: str) -> str:
        process = await asyncio.create_subprocess_exec(
            *_pgbridge(*arguments, "--config", str(self.configuration)),
            env=self._environment,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        output: bytes
        errors: bytes
        output, errors = await self._within(process.communicate(), f"pgbridge {' '.join(arguments)}")
        if process.returncode != 0:
            said = errors.decode(errors="replace").strip()
            raise DemoFailed(f"pgbridge {' '.join(arguments)} ended with exit code {process.returncode}: {said}")
        return output.decode(errors="replace")

    async def _dead_letters(self, wanted: int) -> list[dict[str, Any]]:
        while True:
            letters: list[dict[str, Any]] = orjson.loads(await self._run("dlq", "list", "--json"))
            if len(letters) == wanted:
                return letters
            await asyncio.sleep(0.3)

    async def _execute(self, *statements: str) -> None:
        async with await psycopg.AsyncConnection.connect(self._dsn, autocommit=True) as connection:
            for statement in statements:
                await connection.execute(statement)

    def _on_log(self, function: str, line: str) -> None:
        self._log.append(line)
        task = asyncio.get_running_loop().create_task(self._tell())
        task.add_done_callback(lambda done: done.exception())

    async def _tell(self) -> None:
        async with self._logged:
            self._logged.notify_all()

    async def _hears(self, text: str) -> str:
        """Wait until a function logs a text; gives the text."""

        def said() -> bool:
            return any(text in line for line in self._log)

        async with self._logged:
            await self._within(self._logged.wait_for(said), f"a function to say {text!r}")
        return text

    async def _within(self, awaitable: Awaitable[Any], what: str) -> Any:
        try:
            return await asyncio.wait_for(awaitable, STEP_SECONDS)
        except TimeoutError:
            raise DemoFailed(f"waited {STEP_SECONDS:.0f} s for {what}", remedy=self._log_hint()) from None

    def _log_hint(self) -> str:
        return f"the bridge's log is {self._folder / 'bridge.log'}"


def _pgbridge(*arguments: str) -> list[str]:
    """The command of the environment that this interpreter belongs to."""
    return [sys.executable, "-c", "from bridge.cli import main; main()", *arguments]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
