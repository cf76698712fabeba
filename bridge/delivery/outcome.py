"""
What came of one call, as a value: the classes of the delivery table. Pure.

| class | charged to the record | then |
|---|---|---|
| Delivered, Accepted | no | settled |
| Partial | failed ids only | those are retried, the rest is settled |
| Failed | yes, unless `unsent` | back off; bisect if on |
| Busy | no | back off, honour `retry_after_seconds` |
| Misconfigured | no | pause the trigger, probe slowly |
| TooLarge | no | split; a single event is a dead letter |
| Rejected | yes, at once | bisect down to the event; dead letter |
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Evidence:
    """
    What the target said. `error` is ours and safe to log; `detail` and `log_tail` are the target's own words,
    may hold row values, and go to the dead-letter table alone.
    """

    error: str
    detail: str = field(default="", repr=False)
    status: int | None = None
    request_id: str | None = None
    log_tail: str | None = field(default=None, repr=False)
    function_error: str | None = None
    """Lambda's word for it: Unhandled or Handled."""
    executed_version: str | None = None
    """Of the function, as Lambda says."""


NO_EVIDENCE = Evidence("")


@dataclass(frozen=True, slots=True)
class Delivered:
    """The handler succeeded."""

    evidence: Evidence = NO_EVIDENCE


@dataclass(frozen=True, slots=True)
class Accepted:
    """The service owns it now (Lambda `Event` invocation): settled on acceptance, as the trigger's settings say."""

    evidence: Evidence = NO_EVIDENCE


@dataclass(frozen=True, slots=True)
class Partial:
    """The handler named the records that failed; never empty, and every id is of this invocation."""

    failed_ids: frozenset[str]
    evidence: Evidence
    untried_ids: frozenset[str] = frozenset()
    """Of them, those that the handler has not come to: nothing is held against these."""


@dataclass(frozen=True, slots=True)
class Failed:
    """The whole call failed, or its outcome is unknown."""

    evidence: Evidence
    retry_after_seconds: float | None = None
    unsent: bool = False
    """No connection came about, so the target has seen none of the records, and none is charged."""
    joins: bool = False
    """The same bytes again would join the work that may be going on, and parts of them begin it anew: no dividing."""


@dataclass(frozen=True, slots=True)
class Busy:
    """Throttled or not ready: nothing is wrong with the records."""

    evidence: Evidence
    retry_after_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Misconfigured:
    """No record can succeed until somebody changes the target or our right to call it."""

    evidence: Evidence
    remedy: str
    disable: bool = False
    """True where the target asked to be left alone (HTTP 410): no probes until resumed by hand."""


@dataclass(frozen=True, slots=True)
class TooLarge:
    """The call was over the target's limit."""

    evidence: Evidence


@dataclass(frozen=True, slots=True)
class Rejected:
    """The target refuses this content, and would again."""

    evidence: Evidence
    final: bool = False
    """The receiver says itself that this message is meant, so its refusals are no sign of a target that is down."""


Outcome = Delivered | Accepted | Partial | Failed | Busy | Misconfigured | TooLarge | Rejected
