"""Names of durable executions: what repeats a call has its name, what starts anew has another."""

from __future__ import annotations

import re

from bridge.delivery import durable
from bridge.delivery.durable import DurableNames


def test_the_same_bytes_have_the_same_name_until_the_execution_failed():
    names = DurableNames()
    first = names.name("welcome-email", b"body")
    assert names.name("welcome-email", b"body") == first
    names.failed(b"body")
    second = names.name("welcome-email", b"body")
    assert second != first
    names.failed(b"body")
    assert names.name("welcome-email", b"body") not in {first, second}
    names.ended(b"body")
    assert names.name("welcome-email", b"body") == first


def test_other_bytes_have_another_name_and_so_has_another_process_the_same():
    assert DurableNames().name("t", b"a") != DurableNames().name("t", b"b")
    assert DurableNames().name("t", b"a") == DurableNames().name("t", b"a")


def test_a_name_is_one_that_lambda_takes():
    names = DurableNames()
    for _ in range(12):
        names.failed(b"body")
    assert re.fullmatch(r"[a-zA-Z0-9-_]{1,64}", names.name("t" * 64, b"body"))


def test_failures_are_remembered_for_a_bounded_number_of_batches(monkeypatch):
    monkeypatch.setattr(durable, "KEPT", 3)
    names = DurableNames()
    for number in range(10):
        names.failed(b"%d" % number)
    assert len(names._failures) == 3
