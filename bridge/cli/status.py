"""`pgbridge status`: asks the running process, or else the database, and says which."""

from __future__ import annotations

import asyncio
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click
import orjson

from bridge.cli.options import config_option, json_option, load_settings
from bridge.cli.output import UNKNOWN, duration, fitting, number, on_one_line, print_json, size, terminal_width
from bridge.clock import SystemClock
from bridge.errors import BridgeError

if TYPE_CHECKING:
    from bridge.config import Settings
    from bridge.observe.status import ServiceStatus, TriggerStatus
    from bridge.secret import SecretResolver
    from bridge.store.protocol import KeptPause

ASK_SECONDS: Final = 3.0
"""How long a process of this machine may take to answer before the database is asked instead."""

MOST_CHANGED_TABLES: Final = 10
"""Shown to people; as JSON all are there."""

MOST_ANSWER_BYTES: Final = 4 << 20


class ProcessUnreachable(BridgeError):
    """No process of ours answered; what was asked and why it failed."""

    exit_code = 3


@click.command(epilog="Example:  pgbridge status --json")
@click.option(
    "--url",
    envvar="PGBRIDGE_STATUS_URL",
    show_envvar=True,
    metavar="URL",
    help="Ask the admin port there, and nobody else.  [default: admin.listen, then the database]",
)
@json_option
@config_option
def command(*, config: Path, url: str | None, as_json: bool) -> None:
    """
    Show the slot, the triggers and their dead letters.

    Asks the running process at its admin port; where none answers, the database and the store are read, which know
    less: neither lag nor what is in flight. The first line says who answered.
    """
    settings = load_settings(config)
    answer = asyncio.run(_find(settings, url))
    if as_json:
        print_json(as_document(answer))
        return
    for line in render(answer, SystemClock().now(), terminal_width()):
        click.echo(line)


@dataclass(frozen=True, slots=True)
class Answer:
    """A status and where it is from."""

    by_process: bool
    """False: read from the database, by which nothing is known but slot, checkpoints and dead letters."""
    said: str
    """Who answered, in words; and why not somebody better."""
    status: ServiceStatus


async def _find(settings: Settings, url: str | None) -> Answer:
    from bridge.secret import SecretResolver  # noqa: PLC0415 - --help needs none of it

    secrets = SecretResolver()
    base = url.rstrip("/") if url is not None else _own_url(settings)
    if base is None:
        said = "the database; admin.listen is off, so the process can't be asked"
        return Answer(by_process=False, said=said, status=await _from_database(settings, secrets))
    token = None if settings.admin.token is None else await secrets.fetch(settings.admin.token)
    try:
        status = await asyncio.to_thread(_from_process, base, token, settings.source.slot)
    except ProcessUnreachable as error:
        if url is not None:
            raise
        said = f"the database; {error}"
        return Answer(by_process=False, said=said, status=await _from_database(settings, secrets))
    return Answer(by_process=True, said=f"the process at {base}", status=status)


def _own_url(settings: Settings) -> str | None:
    address = settings.admin.address
    if address is None:
        return None
    # Listening everywhere is listening here.
    here = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(address.host, address.host)  # noqa: S104 - read, not bound
    return f"http://[{here}]:{address.port}" if ":" in here else f"http://{here}:{address.port}"


def _from_process(base: str, token: str | None, slot: str) -> ServiceStatus:
    """
    Ask an admin port for the status of the reader of a slot.

    Raises:
        ProcessUnreachable: nobody is there, it refuses us, it is no pgbridge, or it reads another slot.
    """
    status = _ask(base, token)
    if status.slot is not None and status.slot.name != slot:
        raise ProcessUnreachable(f'the process at {base} reads slot "{status.slot.name}", not "{slot}"')
    return status


def _ask(base: str, token: str | None) -> ServiceStatus:
    from bridge.observe.status import ServiceStatus  # noqa: PLC0415 - --help needs none of it

    if not base.startswith(("http://", "https://")):
        raise ProcessUnreachable(f"{base!r} is no URL", remedy="write http://host:port")
    request = urllib.request.Request(f"{base}/api/status")  # noqa: S310 - http and https only, see above
    if token is not None:
        request.add_header("Authorization", f"Bearer {token}")
    # No proxy of the environment's: this machine's own port is not behind one.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), _NoRedirect())
    try:
        with opener.open(request, timeout=ASK_SECONDS) as response:
            return ServiceStatus.from_json(orjson.loads(response.read(MOST_ANSWER_BYTES)))
    except urllib.error.HTTPError as error:
        error.close()  # it is the answer too, and holds the socket
        remedy = "check admin.token" if error.code == 401 else None
        raise ProcessUnreachable(f"the process at {base} answered with HTTP {error.code}", remedy=remedy) from error
    except urllib.error.URLError as error:
        reason = getattr(error.reason, "strerror", None) or "no answer"
        raise ProcessUnreachable(f"no process answers at {base} ({reason})") from error
    except (OSError, HTTPException, ValueError) as error:
        raise ProcessUnreachable(f"what answers at {base} is no pgbridge") from error


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirect would carry the token elsewhere."""

    def redirect_request(self, *_arguments: Any) -> None:
        return None


async def _from_database(settings: Settings, secrets: SecretResolver) -> ServiceStatus:
    """
    What the slot and the store say by themselves.

    Raises:
        SourceError: the database is out of reach.
    """
    from bridge.observe.status import ServiceState, ServiceStatus  # noqa: PLC0415 - as above
    from bridge.source.slot_watch import look_once  # noqa: PLC0415 - as above

    name = settings.source.slot
    seen = await look_once(await secrets.fetch(settings.source.dsn), settings)
    triggers, store_problem = await _triggers(settings, secrets)
    if seen is None:
        missing = f'slot "{name}" does not exist; create it with: pgbridge init'
        return ServiceStatus(ServiceState.NOT_RUNNING, missing, slot=None, triggers=triggers)
    return ServiceStatus(
        ServiceState.UNKNOWN if seen.active else ServiceState.NOT_RUNNING,
        store_problem,
        slot=seen,
        confirmed_lsn=seen.confirmed_flush_lsn,
        triggers=triggers,
    )


async def _triggers(settings: Settings, secrets: SecretResolver) -> tuple[tuple[TriggerStatus, ...], str | None]:
    """The triggers as far as the store knows them, and why it knows nothing where it doesn't."""
    from bridge.observe.status import TriggerState, TriggerStatus  # noqa: PLC0415 - as above
    from bridge.store.factory import build_store  # noqa: PLC0415 - as above
    from bridge.store.protocol import BacklogSize, LetterFilter  # noqa: PLC0415 - as above

    store = build_store(settings, secrets)
    problem = None
    letters = checkpoints = backlogs = None
    pauses: Mapping[str, KeptPause] = {}
    try:
        await store.open()
        letters = await store.count_letters(LetterFilter(slot=settings.source.slot))
        checkpoints = (await store.read(settings.source.slot)).checkpoints
        backlogs = await store.backlogs(settings.source.slot)
        pauses = await store.pauses(settings.source.slot)
    except BridgeError as error:
        problem = str(error)
    finally:
        await store.close()
    statuses = []
    for name, trigger in settings.triggers.items():
        checkpoint = None if checkpoints is None else checkpoints.get(name)
        backlog = None if backlogs is None else backlogs.get(name, BacklogSize(0, 0))
        pause = pauses.get(name) if trigger.enabled else None
        if pause is not None and not pause.holds_for(trigger.target.fingerprint):
            pause = None  # who starts next lifts it
        not_asked = TriggerState.UNKNOWN if pause is None else TriggerState.PAUSED
        statuses.append(
            TriggerStatus(
                name,
                trigger.target.display_name,
                not_asked if trigger.enabled else TriggerState.DISABLED,
                paused_reason=f"{pause.reason}; {pause.remedy}" if pause else None,
                dead_letters=None if letters is None else letters.get(name, 0),
                backlog_events=None if backlog is None else backlog.events,
                backlog_bytes=None if backlog is None else backlog.body_bytes,
                checkpoint_lsn=None if checkpoint is None else checkpoint.commit_lsn,
            )
        )
    return tuple(statuses), problem


# -- printing ----------------------------------------------------------------------------------------------------------

_HEADER: Final = (
    "trigger", "state", "lag", "behind", "waiting", "in flight", "retrying", "delivered", "backlog", "dead letters",
)  # fmt: skip
_NUMBERS: Final = frozenset(range(2, len(_HEADER)))


# What only the process knows: not 0 but unknown where it was not asked.
_OF_THE_PROCESS: Final = (
    "version", "buffered_bytes", "polled_changes", "reconnects", "schema_changes", "changed_tables",
    "ignored_contexts",
)  # fmt: skip
_OF_THE_PROCESS_BY_TRIGGER: Final = (
    "waiting", "waiting_bytes", "in_flight", "retrying", "delivered", "filtered", "dead_lettered", "failed_invocations",
)  # fmt: skip


def as_document(answer: Answer) -> dict[str, Any]:
    """For `--json`: `from` is process or database, and what nobody could be asked for is null."""
    document = answer.status.to_json()
    if not answer.by_process:
        document |= dict.fromkeys(_OF_THE_PROCESS)
        unknown = dict.fromkeys(_OF_THE_PROCESS_BY_TRIGGER)
        document["triggers"] = [{**trigger, **unknown} for trigger in document["triggers"]]
    return {"from": "process" if answer.by_process else "database", "said": answer.said, **document}


def render(answer: Answer, now: float, width: int | None = None) -> Iterator[str]:
    """The lines for people; the table of triggers keeps within `width` characters where one is given."""
    status = answer.status
    yield f"from       {answer.said}"
    reason = f": {on_one_line(status.reason)}" if status.reason else ""
    yield f"state      {status.state.value.replace('_', ' ')}{reason}"
    slot = status.slot
    if slot is not None:
        yield f"slot       {slot.name}" + (f", WAL {slot.wal_status}" if slot.wal_status else "")
        left = "" if slot.safe_wal_bytes is None else f", {size(slot.safe_wal_bytes)} more before it is in danger"
        yield f"WAL kept   {size(slot.retained_bytes)}{left}"
        if slot.held_by:
            yield f"           from the oldest open transaction on: {on_one_line(slot.held_by)}"
    if status.received_lsn is not None:
        yield f"received   {status.received_lsn}"
    if status.confirmed_lsn is not None:
        behind = None if status.received_lsn is None else status.received_lsn - status.confirmed_lsn
        yield f"confirmed  {status.confirmed_lsn}" + (f", {size(behind)} behind" if behind else "")
    if status.buffer_limit_bytes is not None:
        yield f"in memory  {size(status.buffered_bytes)} of {size(status.buffer_limit_bytes)}"
    yield ""
    yield from fitting(_HEADER, [_row(trigger, answer) for trigger in status.triggers], right=_NUMBERS, width=width)
    for trigger in status.triggers:
        if trigger.mode == "backlog":
            yield f"{trigger.name} delivers from the backlog, which holds {size(trigger.backlog_bytes)}"
        if trigger.paused_reason:
            yield f"{trigger.name} is paused: {on_one_line(trigger.paused_reason)}"
        elif trigger.last_error:
            when = "" if trigger.last_error_at is None else f" {duration(max(0.0, now - trigger.last_error_at))} ago"
            yield f"{trigger.name} last failed{when}: {on_one_line(trigger.last_error)}"
    for change in status.changed_tables[:MOST_CHANGED_TABLES]:
        when = duration(max(0.0, now - change.committed_at))
        what = on_one_line("; ".join(change.what))
        yield f"{on_one_line(change.table)} changed {when} ago to version {change.schema_version}: {what}"
    if len(status.changed_tables) > MOST_CHANGED_TABLES:
        yield f"and {len(status.changed_tables) - MOST_CHANGED_TABLES} tables before, see --json"


def _row(trigger: TriggerStatus, answer: Answer) -> tuple[str, ...]:
    counts = (trigger.waiting, trigger.in_flight, trigger.retrying, trigger.delivered)
    return (
        trigger.name,
        trigger.state.value,
        duration(trigger.lag_seconds),
        size(trigger.lag_bytes),
        *(number(count) if answer.by_process else UNKNOWN for count in counts),
        number(trigger.backlog_events),
        number(trigger.dead_letters),
    )
