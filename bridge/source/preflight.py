"""
What is wrong with a database, its store and the targets, and what mends each.

Every part is examined whatever came of the others, so that one run names all faults; a part that can't be asked says so
and leaves the rest alone. An `error` is what keeps the bridge from running or from sending what a trigger asks for; a
`warning` is what will hurt later, or what somebody may not expect.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from bridge.clock import Clock
from bridge.config import Settings, TriggerSettings
from bridge.errors import BridgeError
from bridge.rds import connection_string
from bridge.secret import SecretResolver
from bridge.source import facts, running_xacts, slot
from bridge.source.connection import ReplicationConnection, SystemIdentity
from bridge.source.facts import Facts
from bridge.source.findings import Finding
from bridge.source.publication_findings import about_publication
from bridge.source.queries import Queries
from bridge.source.server_findings import about_server
from bridge.source.session import connected
from bridge.source.slot import SlotState
from bridge.source.slot_findings import about_continuity, about_restart, about_slot, text_of
from bridge.source.slot_watch import most_wal_bytes
from bridge.store.protocol import Store


async def examine(settings: Settings, secrets: SecretResolver, clock: Clock, store: Store) -> list[Finding]:
    """
    Look at everything that a run needs, and change nothing.

    Args:
        settings: of the process.
        secrets: fetches DSNs and what the targets need.
        clock: compared with the server's.
        store: that of the settings; not opened yet, and closed by the caller.

    Returns:
        In the order in which a reader would mend them; the source's first.
    """
    source, identity, state = await _examine_source(settings, secrets, clock)
    stored = await _examine_store(settings, store, identity, state)
    triggers = await asyncio.gather(
        *(_examine_trigger(name, trigger, secrets) for name, trigger in settings.triggers.items())
    )
    return [*source, *stored, *(finding for findings in triggers for finding in findings)]


async def _examine_source(
    settings: Settings, secrets: SecretResolver, clock: Clock
) -> tuple[list[Finding], SystemIdentity | None, SlotState | None]:
    findings: list[Finding] = []
    identity: SystemIdentity | None = None
    state: SlotState | None = None
    try:
        dsn = await connection_string(settings.source.dsn, secrets, iam_auth=settings.source.iam_auth)
        async with connected(dsn, application_name="pgbridge check") as session:
            seen = await facts.read(session, clock)
            state = await slot.inspect(session, settings.source.slot)
            findings += about_server(seen, state)
            identity, finding = await _replication(dsn, seen)
            findings.append(finding)
            findings += await about_publication(session, settings)
            findings += about_slot(settings.source.slot, state, seen)
            findings += await _about_restart(session, settings, state, seen)
    except BridgeError as error:
        findings.append(Finding.of(error))
    return findings, identity, state


async def _about_restart(
    session: Queries, settings: Settings, state: SlotState | None, seen: Facts
) -> Iterable[Finding]:
    behind = None if state is None else state.bytes_behind_confirmed
    held = behind is not None and behind > most_wal_bytes(settings)
    return about_restart(settings.source.slot, seen, behind, await running_xacts.oldest_open(session) if held else None)


async def _replication(dsn: str, seen: Facts) -> tuple[SystemIdentity | None, Finding]:
    """The right to replicate is had in several ways, some of them a provider's own: trying tells."""
    try:
        connection = await ReplicationConnection.open(dsn, application_name="pgbridge check")
    except BridgeError as error:
        return None, Finding.of(error, role=seen.user)
    await connection.close()
    return connection.identity, Finding(
        "ok",
        f'role "{seen.user}" may replicate',
        details={
            "system_identifier": connection.identity.system_identifier,
            "timeline": connection.identity.timeline,
            "wal_sender_timeout_seconds": connection.wal_sender_timeout_seconds,
        },
    )


async def _examine_store(
    settings: Settings, store: Store, identity: SystemIdentity | None, state: SlotState | None
) -> list[Finding]:
    try:
        await store.open()
        progress = await store.read(settings.source.slot)
        letters = await store.count_letters()
    except BridgeError as error:
        return [Finding.of(error)]
    details = {
        "schema": settings.store.schema_,
        "confirmed_lsn": text_of(progress.confirmed_lsn),
        "dead_letters": sum(letters.values()),
    }
    findings = [
        Finding("ok", f'the store\'s tables in schema "{settings.store.schema_}" are up to date', details=details)
    ]
    if identity is not None and state is not None:
        findings += about_continuity(progress, identity, state)
    return findings


async def _examine_trigger(name: str, trigger: TriggerSettings, secrets: SecretResolver) -> list[Finding]:
    if not trigger.enabled:
        return [Finding("ok", f"trigger {name} is disabled", details={"trigger": name})]
    return [
        *_examine_transform(name, trigger),
        *await _examine_masks(name, trigger, secrets),
        *await _examine_target(name, trigger, secrets),
        *await _examine_destination(name, trigger),
    ]


def _examine_transform(name: str, trigger: TriggerSettings) -> list[Finding]:
    """Importing it runs the module, as a start would."""
    from bridge.delivery.factory import load_transform  # noqa: PLC0415 - the HTTP client and botocore, for this alone

    try:
        transform = load_transform(trigger.transform, trigger=name)
    except BridgeError as error:
        return [Finding.of(error, trigger=name)]
    if transform is None:
        return []
    return [Finding("ok", f"trigger {name}: transform {trigger.transform} can be imported", details={"trigger": name})]


async def _examine_masks(name: str, trigger: TriggerSettings, secrets: SecretResolver) -> list[Finding]:
    if not trigger.mask_keys:
        return []
    try:
        keys = await secrets.fetch_all(trigger.mask_keys)
    except BridgeError as error:
        return [
            Finding("error", f"trigger {name}: a mask's key: {error.message}", error.remedy or "", {"trigger": name})
        ]
    try:
        trigger.shape(keys)
    except BridgeError as error:
        return [Finding("error", f"trigger {name}: {error.message}", "store a longer one", {"trigger": name})]
    return [Finding("ok", f"trigger {name}: the keys of its masks are there", details={"trigger": name})]


async def _examine_target(name: str, trigger: TriggerSettings, secrets: SecretResolver) -> list[Finding]:
    from bridge.delivery.factory import build_target  # noqa: PLC0415 - as above

    try:
        target = build_target(name, trigger, secrets)
    except BridgeError as error:
        return [Finding.of(error, trigger=name)]
    try:
        results = await target.check()
    except BridgeError as error:
        return [Finding.of(error, trigger=name)]
    finally:
        await target.close()
    return [
        Finding("ok" if result.ok else "error", f"trigger {name}: {result.what}", result.remedy, {"trigger": name})
        for result in results
    ]


async def _examine_destination(name: str, trigger: TriggerSettings) -> list[Finding]:
    from bridge.delivery.factory import build_destination  # noqa: PLC0415 - as above

    destination = build_destination(trigger)
    results = () if destination is None else await destination.check()
    return [
        Finding("ok" if result.ok else "error", f"trigger {name}: {result.what}", result.remedy, {"trigger": name})
        for result in results
    ]
