"""
A batch, record by record, answered the way an event source mapping reads it.

Each record is handed to a function; what it raises fails that record alone. Records of one key stay in order: once one
of them failed, the later ones are not handed over but reported as failed too, so that the bridge sends them again after
it. They have to be reported: whatever the answer does not name counts as delivered.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import logging
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Concatenate, Literal, cast, overload

from aws_lambda_powertools.utilities.batch import BasePartialBatchProcessor, EventType
from aws_lambda_powertools.utilities.batch.exceptions import UnexpectedBatchTypeError

from bridge.handlers.claim_check import fetch_claim_check, is_claim_check
from bridge.handlers.data_classes import ChangeEvent
from bridge.handlers.event import Event, RecordT

if TYPE_CHECKING:
    # At run time only where it is used: Powertools' idempotency imports boto3.
    from aws_lambda_powertools.utilities.batch.types import PartialItemFailureResponse, PartialItemFailures
    from aws_lambda_powertools.utilities.idempotency import BasePersistenceLayer, IdempotencyConfig
    from aws_lambda_powertools.utilities.typing import LambdaContext

_logger = logging.getLogger(__name__)

OrderBy = Literal["primary_key", "table", "none"] | Sequence[str]
"""A trigger's `order_by`, in its own words: what must stay in order."""


class HeldBack(Exception):
    """A record was not handed to the function, because an earlier one of its key failed in this batch."""


class ChangeBatchProcessor(BasePartialBatchProcessor):
    """
    Powertools' batch processor for pgbridge's records; `process_partial_response` takes it as well.

    Args:
        model: the row's model. The function then gets an `Event[model]`, each record checked by itself; without a model
            it gets a `ChangeEvent`.
        order_by: as in the trigger's settings. Wider than there is safe, narrower is not.
        raise_on_entire_batch_failure: raise Powertools' `BatchProcessingError` when no record succeeded. Off, unlike
            in Powertools: the answer is exact in that case too, and a batch of one is no special case.
        logger: gets a warning with the traceback for each record that failed. Lambda returns the end of the log with
            the answer, and the dead letter keeps it.
    """

    def __init__(
        self,
        model: Any = None,
        *,
        order_by: OrderBy = "primary_key",
        raise_on_entire_batch_failure: bool = False,
        logger: Any = _logger,
    ) -> None:
        # The event type names the nearest relative; everything that depends on it is overridden here.
        super().__init__(
            event_type=EventType.DynamoDBStreams, raise_on_entire_batch_failure=raise_on_entire_batch_failure
        )
        self._event_model = None if model is None else _event_model(model)
        self._order_by = order_by
        self._logger = logger
        self._order = _Order()

    def _prepare(self) -> None:
        super()._prepare()  # type: ignore[no-untyped-call]  # Powertools annotates most of its methods, not this one
        self._order = _Order()
        for index, record in enumerate(self.records):
            # Without its id a record can't be reported, and would count as delivered.
            if not isinstance(record, Mapping) or not isinstance(record.get("id"), str):
                raise UnexpectedBatchTypeError(
                    f"Records[{index}] is not an event of pgbridge: it has no id; "
                    "is another source invoking this function, or does the trigger use another envelope?"
                )

    def _process_record(self, record: dict[str, Any]) -> Any:
        place = _place(record, self._order_by)
        change: Any = ChangeEvent(record)
        try:
            self._order.check(place)
            record = fetch_claim_check(record)
            change = self._typed(record)
            result = self.handler(change, **self._context_argument())
        except Exception:  # noqa: BLE001  # whatever the function raises fails its record and no other
            return self._fail(change, place)
        return self.success_handler(record=change, result=result)

    async def _async_process_record(self, record: dict[str, Any]) -> Any:
        place = _place(record, self._order_by)
        done = asyncio.get_running_loop().create_future()
        # Powertools starts all records in batch order, and nothing is awaited before this line: each finds the earlier
        # ones of its key in line already.
        for earlier in self._order.enter(place, done):
            await earlier
        change: Any = ChangeEvent(record)
        try:
            self._order.check(place)
            record = await asyncio.to_thread(fetch_claim_check, record) if is_claim_check(record) else record
            change = self._typed(record)
            result = await self.handler(change, **self._context_argument())
        except Exception:  # noqa: BLE001  # as above
            return self._fail(change, place)
        finally:
            done.set_result(None)
        return self.success_handler(record=change, result=result)

    def _typed(self, record: dict[str, Any]) -> Any:
        return ChangeEvent(record) if self._event_model is None else self._event_model.model_validate(record)

    def _context_argument(self) -> dict[str, LambdaContext]:
        return {"lambda_context": self.lambda_context} if self._handler_accepts_lambda_context else {}

    def _fail(self, change: Any, place: _Place) -> Any:
        self._order.fail(place)
        exception = sys.exc_info()
        if isinstance(exception[1], HeldBack):
            self._logger.info("held back %s of %s: %s", change.id, place.table, exception[1])
        else:
            self._logger.warning("failed %s of %s", change.id, place.table, exc_info=exception)
        return self.failure_handler(record=change, exception=exception)

    def _get_messages_to_report(self) -> list[PartialItemFailures]:
        failed = {change.id for change in cast("list[Any]", self.fail_messages)}
        return [{"itemIdentifier": record["id"]} for record in self.records if record["id"] in failed]


@overload
def process_changes(
    event: Mapping[str, Any],
    handler: Callable[Concatenate[ChangeEvent, ...], object],
    *,
    model: None = None,
    context: LambdaContext | None = None,
    order_by: OrderBy = "primary_key",
    persistence_store: BasePersistenceLayer | None = None,
    idempotency: IdempotencyConfig | None = None,
    logger: Any = _logger,
) -> PartialItemFailureResponse: ...


@overload
def process_changes(
    event: Mapping[str, Any],
    handler: Callable[Concatenate[Event[RecordT], ...], object],
    *,
    model: type[RecordT],
    context: LambdaContext | None = None,
    order_by: OrderBy = "primary_key",
    persistence_store: BasePersistenceLayer | None = None,
    idempotency: IdempotencyConfig | None = None,
    logger: Any = _logger,
) -> PartialItemFailureResponse: ...


def process_changes(
    event: Mapping[str, Any],
    handler: Callable[..., object],
    *,
    model: Any = None,
    context: LambdaContext | None = None,
    order_by: OrderBy = "primary_key",
    persistence_store: BasePersistenceLayer | None = None,
    idempotency: IdempotencyConfig | None = None,
    logger: Any = _logger,
) -> PartialItemFailureResponse:
    """
    Hand each record of an invocation to `handler`, and return the function's answer.

    Args:
        event: what Lambda was invoked with.
        handler: called with an `Event[model]`, or a `ChangeEvent` without a model; with `lambda_context` too where it
            has a parameter of that name. Returning settles the record, raising fails it. `async def` is awaited:
            different keys at the same time, records of one key one after the other.
        model: the row's model.
        context: Lambda's, handed on to `handler`, and telling the idempotency layer when the invocation will time out.
        order_by: as in the trigger's settings.
        persistence_store: any persistence layer of Powertools' idempotency; each change then takes effect once
            (`bridge.handlers.idempotency`).
        idempotency: settings for it; by default `change_idempotency_config()`.
        logger: see `ChangeBatchProcessor`.

    Raises:
        UnexpectedBatchTypeError: this is no invocation by pgbridge; nothing was handed over.
    """
    records = event.get("Records")
    if not isinstance(records, list):
        raise UnexpectedBatchTypeError('the invocation has no list "Records"; pgbridge sends {"Records": [event, …]}')
    asynchronous = inspect.iscoroutinefunction(handler)
    if persistence_store is not None:
        from bridge.handlers.idempotency import idempotent_change  # noqa: PLC0415  # imports boto3

        handler = idempotent_change(handler, persistence_store=persistence_store, config=idempotency, context=context)
    processor = ChangeBatchProcessor(model, order_by=order_by, logger=logger)
    with processor(records, handler, context):
        if asynchronous:
            processor.async_process()
        else:
            processor.process()
    return processor.response()


def _event_model(model: Any) -> type[Event[Any]]:
    return model if isinstance(model, type) and issubclass(model, Event) else Event[model]


@dataclass(frozen=True, slots=True)
class _Place:
    """What a record has to stay in order with."""

    table: str
    keys: frozenset[str]
    """Keys within the table, as canonical JSON; two where a change altered the key."""
    whole_table: bool
    """In order with every record of its table: a truncate, an update without a key, `order_by: table`."""


def _place(record: Mapping[str, Any], order_by: OrderBy) -> _Place:
    """As the bridge orders it (`pgoutput/plan.py`), or more widely where an event says less than the bridge knew."""
    metadata: Mapping[str, Any] = record.get("metadata") or {}
    row: Mapping[str, Any] = record.get("record") or {}
    action = record.get("action")
    if action == "message":
        table = f"messages {row.get('prefix')}"
    else:
        table = f"{metadata.get('table_schema')}.{metadata.get('table_name')}"
    if order_by == "none":
        return _Place(table, frozenset(), whole_table=False)
    if order_by == "table" or action in ("truncate", "message"):
        return _Place(table, frozenset(), whole_table=True)
    if order_by == "primary_key":
        keys = [keys for keys in (metadata.get("keys"), metadata.get("old_keys")) if keys]
    elif all(column in row for column in order_by):
        now = {column: row[column] for column in order_by}
        before: Mapping[str, Any] = record.get("changes") or {}
        keys = [now, {column: before.get(column, value) for column, value in now.items()}]
    else:  # the delete of a row of which only the key was sent: it may belong with any other of the table
        keys = []
    # Inserts into a table without a key are in order with its truncates, updates and deletes, but free among
    # themselves: one bad row of an append-only table must not hold back all that come after it.
    free = order_by == "primary_key" and action in ("insert", "read")
    return _Place(table, frozenset(json.dumps(key, sort_keys=True) for key in keys), whole_table=not keys and not free)


class _Order:
    """What failed so far in a batch, and what is still running: both decide whether a record may be handed over."""

    def __init__(self) -> None:
        self._failed: dict[str, _Failed] = {}
        self._running: dict[str, list[tuple[_Place, asyncio.Future[None]]]] = {}

    def check(self, place: _Place) -> None:
        """Raise `HeldBack` if an earlier record that this one must follow has failed."""
        failed = self._failed.get(place.table)
        if failed is None:
            return
        if failed.whole_table or place.whole_table:
            raise HeldBack("an earlier change of the table failed")
        if not failed.keys.isdisjoint(place.keys):
            raise HeldBack("an earlier change of the key failed")

    def fail(self, place: _Place) -> None:
        failed = self._failed.setdefault(place.table, _Failed(set(), whole_table=False))
        failed.keys |= place.keys
        failed.whole_table |= place.whole_table

    def enter(self, place: _Place, done: asyncio.Future[None]) -> list[asyncio.Future[None]]:
        """Get in line; returns what has to be over first."""
        line = self._running.setdefault(place.table, [])
        before = [
            future
            for other, future in line
            if other.whole_table or place.whole_table or not other.keys.isdisjoint(place.keys)
        ]
        line.append((place, done))
        return before


@dataclass(slots=True)
class _Failed:
    """What failed of one table."""

    keys: set[str]
    whole_table: bool
