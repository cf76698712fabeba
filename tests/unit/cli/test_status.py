"""`pgbridge status`: what it prints, and what it does not pretend to know."""

from __future__ import annotations

from bridge.cli.status import Answer, as_document, render
from bridge.lsn import LSN
from bridge.observe.status import (
    SchemaChangeStatus,
    ServiceState,
    ServiceStatus,
    SlotStatus,
    TriggerMode,
    TriggerState,
    TriggerStatus,
)

NOW = 1_000_000.0

BY_PROCESS = Answer(
    by_process=True,
    said="the process at http://127.0.0.1:8765",
    status=ServiceStatus(
        ServiceState.STREAMING,
        slot=SlotStatus("pgbridge", wal_status="reserved", retained_bytes=91_226_112, safe_wal_bytes=1 << 30),
        received_lsn=LSN.parse("16/B374D900"),
        confirmed_lsn=LSN.parse("16/B374D500"),
        buffered_bytes=1024,
        buffer_limit_bytes=1 << 27,
        schema_changes=12,
        changed_tables=(
            SchemaChangeStatus("public.users", "98dd23ed2d2027e7", "0123456789abcdef", ("column age added (int4)", "column \x1b dropped"), LSN(7), NOW - 60),
        ) * 12,
        triggers=(
            TriggerStatus("email", "lambda:f", lag_seconds=0.2, lag_bytes=4096, waiting=14, in_flight=2, delivered=10_277,
                          dead_letters=0, last_error="timed out", last_error_at=NOW - 12),
            TriggerStatus("hook", "https://h", TriggerState.PAUSED, "HTTP 401\x1b[31m; check auth", dead_letters=3,
                          mode=TriggerMode.BACKLOG, backlog_events=70_000, backlog_bytes=1 << 24),
        ),
    ),
)  # fmt: skip

BY_DATABASE = Answer(
    by_process=False,
    said="the database; no process answers",
    status=ServiceStatus(
        ServiceState.NOT_RUNNING,
        slot=SlotStatus("pgbridge", active=False, retained_bytes=5),
        confirmed_lsn=LSN(5),
        triggers=(
            TriggerStatus(
                "email", "lambda:f", TriggerState.UNKNOWN, checkpoint_lsn=LSN(3), backlog_events=5, dead_letters=2
            ),
        ),
    ),
)


def test_a_running_process_is_shown_whole():
    assert list(render(BY_PROCESS, NOW)) == [
        "from       the process at http://127.0.0.1:8765",
        "state      streaming",
        "slot       pgbridge, WAL reserved",
        "WAL kept   87.0 MiB, 1.0 GiB more before it is in danger",
        "received   16/B374D900",
        "confirmed  16/B374D500, 1.0 KiB behind",
        "in memory  1.0 KiB of 128 MiB",
        "",
        "trigger  state      lag   behind  waiting  in flight  retrying  delivered  backlog  dead letters",
        "email    running  0.2 s  4.0 KiB       14          2         0     10,277        -             0",
        "hook     paused       -        -        0          0         0          0   70,000             3",
        "email last failed 12 s ago: timed out",
        "hook delivers from the backlog, which holds 16.0 MiB",
        "hook is paused: HTTP 401\\x1b[31m; check auth",
        *["public.users changed 60 s ago to version 98dd23ed2d2027e7: column age added (int4); column \\x1b dropped"]
        * 10,
        "and 2 tables before, see --json",
    ]


def test_on_a_narrow_terminal_a_trigger_is_a_paragraph():
    lines = list(render(BY_PROCESS, NOW, 60))
    at = lines.index("email")
    assert lines[at + 1].startswith("  state running, lag ")
    assert max(len(line) for line in lines[at + 1 : at + 3]) <= 60


def test_what_the_database_does_not_know_is_a_dash():
    assert list(render(BY_DATABASE, NOW)) == [
        "from       the database; no process answers",
        "state      not running",
        "slot       pgbridge",
        "WAL kept   5 B",
        "confirmed  0/5",
        "",
        "trigger  state    lag  behind  waiting  in flight  retrying  delivered  backlog  dead letters",
        "email    unknown    -       -        -          -         -          -        5             2",
    ]


def test_in_json_it_is_null_and_not_zero():
    document = as_document(BY_DATABASE)
    assert document["from"] == "database"
    trigger = document["triggers"][0]
    assert (trigger["waiting"], trigger["delivered"], trigger["dead_letters"]) == (None, None, 2)
    assert trigger["checkpoint_lsn"] == "0/3"
    assert (document["buffered_bytes"], document["reconnects"]) == (None, None)


def test_json_of_a_process_is_its_own():
    document = as_document(BY_PROCESS)
    assert document["from"] == "process"
    assert {**BY_PROCESS.status.to_json(), "from": "process", "said": BY_PROCESS.said} == document


def test_what_holds_the_slot_is_shown_and_survives_the_way_over_http():
    held_by = "prepared transaction 'a\x1bb' in database \"shop\", open for 99 s"
    status = ServiceStatus(ServiceState.STREAMING, slot=SlotStatus("pgbridge", retained_bytes=5, held_by=held_by))
    status = ServiceStatus.from_json(status.to_json())
    lines = list(render(Answer(by_process=True, said="", status=status), NOW))
    kept = lines.index("WAL kept   5 B")
    assert lines[kept + 1] == (
        "           from the oldest open transaction on: prepared transaction 'a\\x1bb' in database \"shop\", open for 99 s"
    )
