"""
What was committed against what arrived. Pure.

For each trigger:

- *lost*: committed, and neither in the ledger nor among the dead letters.
- *invented*: arrived, and was never committed (rolled back, another id, another trigger's table).
- *altered*: came twice with two contents; *wrong*: its content is not what was committed.
- *reordered*: of one key, a change came for the first time after a younger one had come; or a repeat left one out: what
  comes again must come as a whole tail, so that whoever applies each event ends with the last state.
- *repeated*: arrivals beyond the first; *excess*: those beyond what the faults of this run explain.
- *ahead*: the slot stood behind a commit whose changes were not all in the ledger, the dead letters or the backlog by then.
"""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from chaos.ledger import Arrivals
from chaos.truth import Change


@dataclass(frozen=True, slots=True)
class Glance:
    """What one look at the slot saw. The ledger's size was taken after the slot's position."""

    confirmed_lsn: int
    stored_lsn: int
    epoch: int
    ledger_bytes: int
    kept: frozenset[tuple[str, str]]
    """(trigger, event id) of the dead letters, and of what is in the backlog, that no look before this one saw."""


@dataclass(slots=True)
class Report:
    """What a reconciliation found."""

    changes: int = 0
    """That had to arrive, for all triggers."""
    lost: list[str] = field(default_factory=list)
    invented: list[str] = field(default_factory=list)
    altered: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    reordered: list[str] = field(default_factory=list)
    repeated: int = 0
    excess: int = 0
    ahead: list[str] = field(default_factory=list)
    set_aside: int = 0

    @property
    def faults(self) -> dict[str, int]:
        """What must not be, by kind."""
        kinds = ("lost", "invented", "altered", "wrong", "reordered", "ahead")
        counts = {kind: len(getattr(self, kind)) for kind in kinds} | {"excess": self.excess}
        return {kind: count for kind, count in counts.items() if count}

    def __str__(self) -> str:
        examples = {kind: getattr(self, kind)[:3] for kind in self.faults if kind != "excess"}
        return f"{self.changes} changes, {self.repeated} repeated, {self.faults or 'clean'} {examples or ''}".strip()


def reconcile(
    changes: Sequence[Change],
    arrivals: Arrivals,
    wanted: Mapping[str, Collection[str]],
    *,
    letters: Collection[tuple[str, str]] = (),
    glances: Sequence[Glance] = (),
    most_repeats: int | None = None,
    torn_repeats: bool = False,
) -> Report:
    """
    Args:
        changes: committed, in commit order.
        arrivals: the ledger.
        wanted: by trigger, its tables.
        letters: (trigger, event id) of the dead letters.
        glances: at the slot, in time order.
        most_repeats: that the run's faults explain; None where nothing bounds them.
        torn_repeats: two processes delivered at the same time, so that the repeats of one may stand between the other's.
    """
    report = Report(altered=list(arrivals.altered))
    for trigger, tables in wanted.items():
        its_changes = {change.id: change for change in changes if change.table in tables}
        order = arrivals.order.get(trigger, [])
        report.changes += len(its_changes)
        set_aside = {event_id for name, event_id in letters if name == trigger}
        report.set_aside += len(set_aside)
        came = dict.fromkeys(order)
        report.lost += [
            f"{trigger} {event_id}" for event_id in its_changes if event_id not in came and event_id not in set_aside
        ]
        report.invented += [f"{trigger} {event_id}" for event_id in came if event_id not in its_changes]
        report.invented += [
            f"{trigger} {event_id} (dead letter)" for event_id in set_aside if event_id not in its_changes
        ]
        report.wrong += [
            f"{trigger} {event_id}"
            for event_id in came
            if event_id in its_changes and not _same(its_changes[event_id], arrivals.first[trigger, event_id])
        ]
        report.repeated += len(order) - len(came)
        report.reordered += _reordered(trigger, its_changes, order, set_aside, torn_repeats=torn_repeats)
    if most_repeats is not None:
        report.excess = max(0, report.repeated - most_repeats)
    report.ahead = _ahead(changes, arrivals, wanted, glances)
    return report


def _same(change: Change, event: Mapping[str, Any]) -> bool:
    metadata = event["metadata"]
    if (event["action"], f"{metadata['table_schema']}.{metadata['table_name']}") != (change.action, change.table):
        return False
    if metadata["commit_lsn"] != change.commit_lsn:
        return False
    record = event["record"] or {}
    return (
        change.action == "truncate"
        or {name: None if value is None else str(value) for name, value in record.items()} == change.values
    )


def _reordered(
    trigger: str,
    changes: Mapping[str, Change],
    order: Sequence[str],
    set_aside: Collection[str],
    *,
    torn_repeats: bool,
) -> list[str]:
    """Of each key, the steps that are neither to the next change nor back."""
    places: dict[str, dict[str, int]] = {}
    for change in changes.values():
        if change.id not in set_aside:
            for key in change.keys:
                its = places.setdefault(key, {})
                its[change.id] = len(its)
    at: dict[str, int] = {}
    newest: dict[str, int] = {}
    found = []
    for event_id in order:
        change = changes.get(event_id)
        for key in () if change is None or event_id in set_aside else change.keys:
            place = places[key][event_id]
            allowed = newest.get(key, -1) if torn_repeats else at.get(key, -1)
            if place > allowed + 1:
                found.append(f"{trigger} {event_id} of {key}")
            at[key] = place
            newest[key] = max(newest.get(key, -1), place)
    return found + _through_barriers(trigger, changes, order)


def _through_barriers(trigger: str, changes: Mapping[str, Change], order: Sequence[str]) -> list[str]:
    """First arrivals on the wrong side of a truncate."""
    place = {event_id: number for number, event_id in reversed(list(enumerate(order)))}
    ids = [event_id for event_id in changes if event_id in place]
    if not any(changes[event_id].action == "truncate" for event_id in ids):
        return []
    latest_before = [-1, *itertools.accumulate((place[event_id] for event_id in ids), max)]
    earliest_after = [*itertools.accumulate((place[event_id] for event_id in reversed(ids)), min)][::-1]
    earliest_after.append(len(order))
    return [
        f"{trigger} {event_id} (truncate)"
        for number, event_id in enumerate(ids)
        if changes[event_id].action == "truncate"
        and not latest_before[number] < place[event_id] < earliest_after[number + 1]
    ]


def _ahead(
    changes: Sequence[Change],
    arrivals: Arrivals,
    wanted: Mapping[str, Collection[str]],
    glances: Sequence[Glance],
) -> list[str]:
    """Where the slot stood behind a commit of which something was nowhere yet."""
    if not glances:
        return []
    commits: list[int] = []
    needed: list[float] = []  # glance from which on everything up to that commit was safe
    sizes = list(itertools.accumulate((glance.ledger_bytes for glance in glances), max))
    kept_since: dict[tuple[str, str], int] = {}
    for number, glance in enumerate(glances):
        for name in glance.kept:
            kept_since.setdefault(name, number)
    newest, latest = 0.0, ""
    waiting_for: list[str] = []
    for change in changes:
        for trigger, tables in wanted.items():
            if change.table not in tables:
                continue
            name = (trigger, change.id)
            offset = arrivals.offset.get(name)
            arrived = float("inf") if offset is None else bisect.bisect_left(sizes, offset)
            arrived = min(arrived, kept_since.get(name, float("inf")))
            if arrived > newest:
                newest, latest = arrived, f"{trigger} {change.id}"
        if commits and commits[-1] == change.commit_lsn:
            needed[-1], waiting_for[-1] = newest, latest
        else:
            commits.append(change.commit_lsn)
            needed.append(newest)
            waiting_for.append(latest)
    found = []
    for number, glance in enumerate(glances):
        # `confirmed_lsn` is exclusive: a commit record that starts exactly there is not confirmed.
        behind = bisect.bisect_left(commits, glance.confirmed_lsn) - 1
        if behind >= 0 and needed[behind] > number:
            found.append(
                f"{glance.confirmed_lsn:X}, but {waiting_for[behind]} is safe {needed[behind] - number} glances later"
            )
    stored = [glance.stored_lsn for glance in glances]
    epochs = [glance.epoch for glance in glances]
    found += [f"stored position back to {b:X}" for a, b in itertools.pairwise(stored) if b < a]
    found += [f"epoch back to {b}" for a, b in itertools.pairwise(epochs) if b < a]
    return found
