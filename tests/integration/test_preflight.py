"""The doctor on real servers: each fault is found, named and given its fix, all in one run."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import psycopg
import pytest

from bridge.cli import init
from bridge.clock import SystemClock
from bridge.config import Settings, parse
from bridge.errors import ConfigError
from bridge.lsn import LSN
from bridge.secret import SecretResolver
from bridge.source import facts, publication, running_xacts
from bridge.source.findings import Finding
from bridge.source.preflight import examine
from bridge.source.session import connected
from bridge.store.factory import build_store
from bridge.store.protocol import SourceIdentity
from bridge.testing import ManualClock


class Patient:
    """A database that is well, until a test harms it."""

    def __init__(self, dsn: str, webhook: str) -> None:
        self.dsn = dsn
        self.webhook = webhook
        self.admin = psycopg.connect(dsn, autocommit=True)
        self.slot = f"slot_{self.admin.info.dbname}"
        self.run = self.admin.execute
        self.run("CREATE TABLE public.users (id int PRIMARY KEY, name text)")

    def settings(
        self, tables: str = "[public.users]", *, dsn: str | None = None, trigger: str = "", source: str = ""
    ) -> Settings:
        return parse(self.text(tables, dsn=dsn, trigger=trigger, source=source), {})

    def text(
        self, tables: str = "[public.users]", *, dsn: str | None = None, trigger: str = "", source: str = ""
    ) -> str:
        return (
            f"source: {{dsn: '{dsn or self.dsn}', slot: {self.slot}, publication: feed{source}}}\n"
            f"triggers:\n  t:\n    tables: {tables}\n    {trigger}\n    target: {{http: {{url: '{self.webhook}'}}}}\n"
        )


async def check(settings: Settings) -> list[Finding]:
    secrets = SecretResolver()
    store = build_store(settings, secrets)
    try:
        return await examine(settings, secrets, SystemClock(), store)
    finally:
        await store.close()


def only(findings: list[Finding], severity: str) -> list[Finding]:
    return [finding for finding in findings if finding.severity == severity]


def the(findings: list[Finding], words: str) -> Finding:
    """The finding, not ok, that has these words; it has a remedy."""
    (found,) = [finding for finding in findings if finding.severity != "ok" and words in finding.what]
    assert found.remedy
    return found


@pytest.fixture
def webhook():
    """Something that accepts connections, which is all that `check` asks of a plain endpoint."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/hook"


@pytest.fixture(params=["embedded", "system"])
def patient(request: pytest.FixtureRequest, webhook: str):
    patient = Patient(
        request.getfixturevalue("database" if request.param == "embedded" else "system_database"), webhook
    )
    yield patient
    patient.admin.close()


@pytest.fixture
def weak_role(patient: Patient):
    name = f"weak_{patient.admin.info.dbname}"
    patient.run(f"CREATE ROLE {name} LOGIN")
    yield name
    patient.run(f"DROP OWNED BY {name}")
    patient.run(f"DROP ROLE {name}")


async def test_healthy_site_has_only_good_findings(patient: Patient):
    await init._run(patient.settings(), accept_gap=False)
    findings = await check(patient.settings())
    assert [finding.what for finding in findings if finding.severity != "ok"] == []
    assert len(findings) >= 9


async def test_nothing_is_changed_by_looking(patient: Patient):
    await check(patient.settings())
    assert patient.run("SELECT count(*) FROM pg_publication").fetchone() == (0,)
    assert patient.run("SELECT count(*) FROM pg_namespace WHERE nspname = 'pgbridge'").fetchone() == (0,)
    assert patient.run(
        "SELECT count(*) FROM pg_replication_slots WHERE slot_name = %s", (patient.slot,)
    ).fetchone() == (0,)


async def test_five_faults_are_five_findings_each_with_its_fix(patient: Patient, weak_role: str):
    patient.run("CREATE TABLE public.log (line text)")
    dsn = f"{patient.dsn}?user={weak_role}"
    findings = await check(patient.settings("[public.users, public.log, public.usres]", dsn=dsn))
    errors = only(findings, "error")
    assert "REPLICATION" in the(errors, "can't connect").remedy
    assert the(errors, "public.usres matches no table").remedy == "the nearest are public.users"
    assert "pgbridge init" in the(errors, 'publication "feed" does not exist').remedy
    assert 'ALTER TABLE "public"."log" REPLICA IDENTITY FULL' in the(errors, "public.log").remedy
    assert "pgbridge init" in the(errors, f'slot "{patient.slot}" does not exist').remedy
    assert "pgbridge init" in the(errors, "the store").remedy
    assert "GRANT SELECT ON public.users, public.log" in the(findings, "may not SELECT").remedy


async def test_unreachable_source_does_not_hide_the_target(patient: Patient):
    patient.webhook = "http://127.0.0.1:1/hook"
    settings = patient.settings(dsn="postgresql://u:hunter2@127.0.0.1:1/d")
    findings = await check(settings)
    assert len(only(findings, "error")) == 3
    the(findings, "can't connect to 127.0.0.1, port 1")
    the(findings, "trigger t")
    assert "hunter2" not in repr(findings)


async def test_wrong_password_is_told_as_such(make_postgres: Callable, webhook: str):
    server = make_postgres(auth="scram-sha-256")
    patient = Patient(server.dsn(), webhook)
    patient.admin.close()
    findings = await check(patient.settings(dsn=server.dsn().replace(server.password, "hunter2")))
    assert "password" in the(findings, "28P01").remedy
    assert "hunter2" not in repr(findings)


async def test_wal_level_slots_and_senders(make_postgres: Callable, webhook: str):
    server = make_postgres(settings={"wal_level": "replica", "max_wal_senders": "0", "max_replication_slots": "0"})
    patient = Patient(server.dsn(), webhook)
    findings = await check(patient.settings())
    patient.admin.close()
    assert "ALTER SYSTEM SET wal_level" in the(findings, "wal_level is replica").remedy
    assert "max_replication_slots" in the(findings, "all 0 replication slots are in use").remedy
    assert "max_wal_senders" in the(findings, "all 0 walsenders are in use").remedy


async def test_own_publication_is_compared_with_the_triggers(patient: Patient):
    patient.run("CREATE TABLE public.orders (id int PRIMARY KEY)")
    patient.run("CREATE PUBLICATION feed FOR TABLE public.orders WITH (publish = 'insert, truncate')")
    findings = await check(patient.settings("[public.*]", source=", manage: false"))
    assert the(findings, "does not have public.users").remedy == (
        'run ALTER PUBLICATION "feed" ADD TABLE "public"."users"'
    )
    assert "SET (publish = 'insert, update, delete, truncate')" in the(findings, "does not send delete, update").remedy


async def test_own_publication_that_breaks_the_application_is_an_error(patient: Patient):
    patient.run("CREATE TABLE public.log (line text)")
    patient.run("CREATE PUBLICATION feed FOR TABLE public.log")
    findings = await check(patient.settings("[public.log]", source=", manage: false"))
    assert the(findings, "DELETE and UPDATE on public.log fail for the application").severity == "error"


async def test_row_filters_and_column_lists_are_pointed_out(patient: Patient):
    if patient.admin.info.server_version < 150000:
        pytest.skip("row filters and column lists came with 15")
    patient.run("CREATE PUBLICATION feed FOR TABLE public.users (id) WHERE (id > 10)")
    findings = await check(patient.settings(source=", manage: false"))
    the(findings, "only some rows of public.users")
    the(findings, "only some columns of public.users")


async def test_managed_publication_out_of_step_gives_the_statement(patient: Patient, weak_role: str):
    await init._run(patient.settings(), accept_gap=False)
    patient.run("CREATE TABLE public.orders (id int PRIMARY KEY)")
    settings = patient.settings("[public.users, public.orders]")
    assert 'ADD TABLE ONLY "public"."orders"' in the(await check(settings), "out of step").remedy
    patient.run(f"ALTER ROLE {weak_role} REPLICATION")
    findings = await check(patient.settings("[public.users, public.orders]", dsn=f"{patient.dsn}?user={weak_role}"))
    assert the(findings, "may not change it").severity == "error"


async def test_slot_of_another_kind(patient: Patient):
    patient.run("SELECT pg_create_logical_replication_slot(%s, 'test_decoding')", (patient.slot,))
    assert "source.slot" in the(await check(patient.settings()), "decodes with test_decoding").remedy


async def test_slot_that_sends_transactions_before_they_are_committed(patient: Patient):
    patient.run("SELECT pg_create_logical_replication_slot(%s, 'pgoutput', false, true)", (patient.slot,))
    assert "source.slot" in the(await check(patient.settings()), "two_phase").remedy


async def test_lost_slot(make_postgres: Callable, webhook: str):
    server = make_postgres(settings={"max_slot_wal_keep_size": "1MB", "max_wal_size": "32MB"})
    patient = Patient(server.dsn(), webhook)
    await init._run(patient.settings(), accept_gap=False)
    while patient.run("SELECT wal_status FROM pg_replication_slots").fetchone() != ("lost",):
        patient.run("SELECT pg_logical_emit_message(false, 'fill', repeat('x', 1000))")
        patient.run("SELECT pg_switch_wal()")
        patient.run("CHECKPOINT")
    assert "--accept-gap" in the(await check(patient.settings()), "is lost").remedy
    patient.admin.close()


async def test_slot_near_its_limit(make_postgres: Callable, webhook: str):
    server = make_postgres(settings={"max_slot_wal_keep_size": "1GB"})
    patient = Patient(server.dsn(), webhook)
    await init._run(patient.settings(), accept_gap=False)
    server_limit = "ALTER SYSTEM SET max_slot_wal_keep_size = '1MB'"
    patient.run("SELECT pg_logical_emit_message(false, 'fill', repeat('x', 900000))")
    patient.run(server_limit)
    patient.run("SELECT pg_reload_conf()")
    while patient.run("SHOW max_slot_wal_keep_size").fetchone() != ("1MB",):
        pass
    findings = await check(patient.settings())
    assert "max_slot_wal_keep_size" in the(findings, "of the 1 MB of WAL").remedy
    patient.admin.close()


async def test_a_role_whose_slot_lets_go_late_is_told_what_to_grant(patient: Patient, weak_role: str):
    await init._run(patient.settings(), accept_gap=False)
    patient.run(f"ALTER ROLE {weak_role} REPLICATION")
    settings = patient.settings(dsn=f"{patient.dsn}?user={weak_role}")
    advice = only(await check(settings), "advice")
    if patient.admin.info.server_version < running_xacts.OLDEST_SERVER:
        assert advice == []
        return
    (finding,) = advice
    assert f'"{weak_role}" may not call pg_log_standby_snapshot()' in finding.what
    patient.run(finding.remedy.removeprefix("let a superuser run: "))
    assert only(await check(settings), "advice") == []


async def test_idle_timeout_of_slots(make_postgres: Callable, webhook: str):
    server = make_postgres(settings={"idle_replication_slot_timeout": "1h"})
    patient = Patient(server.dsn(), webhook)
    await init._run(patient.settings(), accept_gap=False)
    the(await check(patient.settings()), "lost if nobody reads it for 3600 seconds")
    patient.admin.close()


async def test_plugin_that_is_not_allowed(make_postgres: Callable, webhook: str):
    server = make_postgres(settings={"output_plugin_libraries": "test_decoding"})
    patient = Patient(server.dsn(), webhook)
    assert "test_decoding, pgoutput" in the(await check(patient.settings()), "output_plugin_libraries").remedy
    patient.admin.close()


async def test_slot_ahead_of_the_store_is_a_gap(patient: Patient):
    settings = patient.settings()
    await init._run(settings, accept_gap=False)
    store = build_store(settings, SecretResolver())
    await store.open()
    (system_identifier,) = patient.run("SELECT system_identifier::text FROM pg_control_system()").fetchone()
    await store.claim(SourceIdentity(patient.slot, system_identifier, 1, patient.admin.info.dbname))
    await store.save(LSN(1), {})
    await store.close()
    assert "--accept-gap" in the(await check(settings), "ahead of 0/1").remedy


async def test_trigger_that_asks_what_changed_needs_old_values(patient: Patient):
    settings = patient.settings(trigger="filter_criteria: [{changes: {name: [{exists: true}]}}]")
    await init._run(settings, accept_gap=False)
    told = the(await check(settings), "trigger t: of public.users, updates come without old values (changes is null)")
    assert "and the trigger's filter asks for more" in told.what
    assert 'ALTER TABLE "public"."users" REPLICA IDENTITY FULL' in told.remedy
    patient.run("ALTER TABLE public.users REPLICA IDENTITY FULL")
    assert only(await check(settings), "warning") == []


async def test_what_events_lack_under_the_default_identity_is_said_and_no_fault(patient: Patient):
    await init._run(patient.settings(), accept_gap=False)
    (said,) = [found for found in await check(patient.settings()) if "without old values" in found.what]
    assert (said.severity, said.remedy) == ("ok", "")


async def test_changed_needs_columns_that_the_server_tells_of(patient: Patient):
    settings = patient.settings(trigger="changed: [name]")
    told = the(await check(settings), "triggers.t.changed: whether name changed can't be told")
    assert (told.severity, "REPLICA IDENTITY FULL" in told.remedy) == ("error", True)
    patient.run("ALTER TABLE public.users REPLICA IDENTITY FULL")
    await init._run(settings, accept_gap=False)
    assert not [found for found in await check(settings) if found.severity in {"error", "warning"}]
    wrong = the(await check(patient.settings(trigger="changed: [nam]")), "public.users has no column nam")
    assert wrong.remedy == "the nearest are name"


async def test_the_key_may_be_watched_under_any_identity(patient: Patient):
    settings = patient.settings(trigger="changed: [id]")
    await init._run(settings, accept_gap=False)
    assert not [found for found in await check(settings) if found.severity in {"error", "warning"}]


async def test_under_a_glob_changed_that_cannot_be_told_is_a_warning(patient: Patient):
    settings = patient.settings("['public.*']", trigger="changed: [name]")
    await init._run(settings, accept_gap=False)
    told = the(await check(settings), "whether name changed can't be told")
    assert (told.severity, "REPLICA IDENTITY FULL" in told.remedy) == ("warning", True)


async def test_nothing_starts_where_changed_cannot_be_told(patient: Patient):
    await init._run(patient.settings(), accept_gap=False)
    async with connected(patient.dsn) as session:
        with pytest.raises(ConfigError, match="whether name changed can't be told"):
            await publication.prepare(session, patient.settings(trigger="changed: [name]"))


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    made = ModuleType("shop_preflight")
    made.shaped = lambda event: event
    monkeypatch.setitem(sys.modules, made.__name__, made)
    return made


async def test_transform_that_can_not_be_imported_is_found_with_its_fix(patient: Patient, module: ModuleType):
    missing = the(await check(patient.settings(trigger="transform: no_such_module:shaped")), "no_such_module")
    assert "triggers.t.transform: no_such_module can't be imported: ModuleNotFoundError" in missing.what
    assert "PYTHONPATH" in missing.remedy
    wrong = the(await check(patient.settings(trigger=f"transform: {module.__name__}:other")), "has no function other")
    assert (wrong.severity, wrong.details["trigger"]) == ("error", "t")
    findings = await check(patient.settings(trigger=f"transform: {module.__name__}:shaped"))
    assert f"trigger t: transform {module.__name__}:shaped can be imported" in [found.what for found in findings]


async def test_keys_of_masks_are_fetched_and_looked_at(patient: Patient, tmp_path: Path):
    key = tmp_path / "key"
    settings = patient.settings(trigger=f"mask: {{name: {{hash: 'file:{key}'}}}}")
    missing = the(await check(settings), "trigger t: a mask's key")
    assert str(key) in missing.what
    assert missing.remedy == "check the path and its permissions"
    key.write_text("quiet")
    assert "quiet" not in the(await check(settings), "trigger t: mask.name: a key for hashing must be at least").what
    key.write_text("0123456789abcdef")
    findings = await check(settings)
    assert "trigger t: the keys of its masks are there" in [found.what for found in findings if found.severity == "ok"]


async def test_targets_are_called_by_what_else_is_wrong_with_a_trigger(patient: Patient):
    findings = await check(patient.settings(trigger="transform: no_such_module:shaped"))
    assert [found for found in findings if found.severity == "ok" and found.what.startswith("trigger t: ")]


async def test_destinations_of_dead_letters_are_looked_at(patient: Patient, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    arn = "arn:aws:sqs:us-east-1:123456789012:letters"
    finding = the(await check(patient.settings(trigger=f"on_failure: {{destination: '{arn}'}}")), "on_failure")
    assert finding.severity == "error"
    assert finding.what == "trigger t: on_failure: queue letters can't be reached: EndpointConnectionError"


async def test_clocks_that_differ_are_told(patient: Patient):
    clock = ManualClock()
    async with connected(patient.dsn) as session:
        seen = await facts.read(session, clock)
        (server_now,) = patient.run("SELECT extract(epoch FROM clock_timestamp())::float8").fetchone()
    assert seen.clock_ahead_seconds == pytest.approx(server_now - clock.now(), abs=60)
    settings = patient.settings()
    store = build_store(settings, SecretResolver())
    findings = await examine(settings, SecretResolver(), clock, store)
    await store.close()
    assert "NTP" in the(findings, "the server's clock is").remedy


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    program = Path(sys.executable).parent / "pgbridge"
    return subprocess.run([program, *arguments], capture_output=True, text=True, check=False)


def test_command_prints_words_and_ends_with_one_for_errors(patient: Patient, tmp_path: Path):
    config = tmp_path / "pgbridge.yaml"
    config.write_text(patient.text())
    result = command("check", "-c", str(config))
    assert result.returncode == 1
    assert '✗ error    publication "feed" does not exist\n             create it with: pgbridge init\n' in result.stdout
    assert "✓ ok       wal_level is logical\n" in result.stdout
    assert result.stdout.endswith("\n3 errors\n")
    assert result.stderr == ""
    assert command("init", "-c", str(config)).returncode == 0
    result = command("check", "-c", str(config))
    assert (result.returncode, result.stdout.splitlines()[-1]) == (0, "all is well")


def test_command_prints_json_for_programs(patient: Patient, tmp_path: Path):
    config = tmp_path / "pgbridge.yaml"
    config.write_text(patient.text())
    result = command("check", "--json", "-c", str(config))
    assert result.returncode == 1
    document = json.loads(result.stdout)
    assert document["ok"] is False
    assert {"severity", "what", "remedy", "details"} == document["findings"][0].keys()
