"""
Outer forms other than our own: an event as other systems would have written it. Pure.

Comes in: an event and its complete JSON. Goes out: the same change in the words of Sequin, Debezium, CloudEvents, or as
a record of SQS, Kinesis or DynamoDB. Values are taken over byte for byte, without reading them, except where the form
has another notation for them (DynamoDB's attribute values).

What is stored of an event (dead letters, backlog) is always our own form. So a form depends on nothing but the event
and the trigger: sent again, the same event gives the same bytes.

Each form says what a handler calls a record by in `batchItemFailures`, where that is not the event's id.
"""

from bridge.triggers.forms.aws import DynamoDb, Kinesis, SqsFifo
from bridge.triggers.forms.cloudevents import BinaryCloudEvents, CloudEvents
from bridge.triggers.forms.debezium import Debezium
from bridge.triggers.forms.form import Form, Origin
from bridge.triggers.forms.members import UnfitEvent
from bridge.triggers.forms.sequin import Sequin

FORMS: dict[str, type[Form]] = {
    "sequin": Sequin,
    "debezium": Debezium,
    "cloudevents": CloudEvents,
    "cloudevents_binary": BinaryCloudEvents,
    "sqs_fifo": SqsFifo,
    "kinesis": Kinesis,
    "dynamodb": DynamoDb,
}
"""By the name that the settings use; `pgbridge` is none of them."""

__all__ = [
    "FORMS",
    "BinaryCloudEvents",
    "CloudEvents",
    "Debezium",
    "DynamoDb",
    "Form",
    "Kinesis",
    "Origin",
    "Sequin",
    "SqsFifo",
    "UnfitEvent",
]
