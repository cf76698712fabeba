"""
What a Lambda function imports; needs Powertools for AWS Lambda and pydantic, and nothing else of this package.

Comes in: what a trigger invokes a function with, `{"Records": [event, …]}`. Goes out: the answer that settles each
record by itself, `{"batchItemFailures": [{"itemIdentifier": id}, …]}`.

    from bridge.handlers import Event, process_changes

    class User(BaseModel):
        id: int
        name: str

    def greet(event: Event[User]) -> None:
        print(f"Hello {event.record.name}")

    def lambda_handler(event, context):
        return process_changes(event, greet, model=User, context=context)

- `Event`, `Metadata`, `EventBatch`: the event as pydantic models, typed by the row's model.
- `ChangeEvent`, `ChangeMetadata`, `ChangeEventBatch`: the same as Powertools data classes, which check nothing.
- `PgbridgeEnvelope`: for Powertools' parser, from the invocation to a list of row models.
- `process_changes`, `ChangeBatchProcessor`: a function called per record, its failures caught, each key kept in order.
- `fetch_claim_checks`: events too large for a call, fetched from S3; the batch processor does it by itself.
- `bridge.handlers.idempotency`: each change takes effect once, with any Powertools persistence layer. A module of its
  own, because Powertools' idempotency imports boto3.

Promises: nothing is kept between invocations (a module-level processor is as good as a fresh one); after a record of a
key failed, no later record of that key in the batch is handed to the function; no row value appears in the repr or the
validation errors of what is defined here.
"""

from bridge.handlers.batch import ChangeBatchProcessor, HeldBack, process_changes
from bridge.handlers.claim_check import ClaimCheckMismatch, fetch_claim_check, fetch_claim_checks
from bridge.handlers.data_classes import ChangeEvent, ChangeEventBatch, ChangeMetadata
from bridge.handlers.envelope import PgbridgeEnvelope
from bridge.handlers.event import Action, Event, EventBatch, Metadata

__all__ = [
    "Action",
    "ChangeBatchProcessor",
    "ChangeEvent",
    "ChangeEventBatch",
    "ChangeMetadata",
    "ClaimCheckMismatch",
    "Event",
    "EventBatch",
    "HeldBack",
    "Metadata",
    "PgbridgeEnvelope",
    "fetch_claim_check",
    "fetch_claim_checks",
    "process_changes",
]
