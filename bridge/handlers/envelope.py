"""For Powertools' parser: `@event_parser(model=User, envelope=PgbridgeEnvelope)` hands the function a list of users."""

from __future__ import annotations

from typing import Any

from aws_lambda_powertools.utilities.parser.envelopes.base import BaseEnvelope
from pydantic import TypeAdapter

from bridge.handlers.event import EventBatch


class PgbridgeEnvelope(BaseEnvelope):
    """
    The rows of an invocation, without what is known about the changes; `EventBatch[User]` keeps both.

    One row that does not fit the model fails the invocation, as parsing does with every envelope of Powertools; where
    the others should go on, use `process_changes`.
    """

    def parse(self, data: dict[str, Any] | Any | None, model: Any) -> list[Any]:
        """
        Check the invocation and take out the records, in the order in which they came.

        Raises:
            ValidationError: names the record and the member, never what it held.
        """
        if isinstance(model, TypeAdapter):  # the parser takes adapters as well
            batch = _validate(EventBatch[Any], data)
            return [model.validate_python(event.record) for event in batch.records]
        return [event.record for event in _validate(EventBatch[model], data).records]


def _validate(batch: type[EventBatch[Any]], data: Any) -> EventBatch[Any]:
    return batch.model_validate_json(data) if isinstance(data, (str, bytes)) else batch.model_validate(data)
