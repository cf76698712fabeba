"""
CloudEvents 1.0 (JSON event format; HTTP protocol binding), with our whole event as `data`.

| attribute | |
|---|---|
| id, source | the event's id; `/pgbridge/<cluster>/<database>`: together unique, and the same on every attempt |
| type | `pgbridge.insert`, … |
| subject | `schema.table`, or the prefix of a logical message |
| time | of the commit |
| sequence | the event's id again: sorts in commit order (extension "sequence") |
| partitionkey | table and key of the row (extension "partitioning") |

A single event goes in structured mode, a batch, which only exists where batches were asked for, in batched mode, as a
JSON array. In binary mode the attributes are HTTP headers, and the body is our event.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Final
from urllib.parse import quote

import msgspec

from bridge.change import Event
from bridge.triggers.forms.form import Form
from bridge.triggers.forms.members import dump, scalar_text, take_apart

# "Header values" of the HTTP binding: what is not printable ASCII, and space, quote and percent, is percent-encoded.
_PLAIN: Final = "".join(chr(code) for code in range(0x21, 0x7F) if chr(code) not in '"%')


class CloudEvents(Form):
    """A handler names a failed record by its `id`."""

    content_type: ClassVar[str] = "application/cloudevents+json"
    batch_content_type: ClassVar[str] = "application/cloudevents-batch+json"

    def element(self, event: Event, document: bytes) -> bytes:
        attributes = self._attributes(event, document)
        return dump({**attributes, "datacontenttype": "application/json", "data": msgspec.Raw(document)})

    def batch(self, elements: Sequence[bytes]) -> bytes:
        return b"[%b]" % b",".join(elements)

    def _attributes(self, event: Event, document: bytes) -> dict[str, Any]:
        parts = take_apart(document)
        database = parts.text("database") or ""
        attributes = {
            "specversion": "1.0",
            "id": self.identifier(event),
            "source": f"/pgbridge/{self.origin.system_identifier}/{quote(database, safe='')}",
            "type": f"pgbridge.{parts.action}",
            "subject": event.table,
            "sequence": self.identifier(event),
        }
        time = parts.text("commit_timestamp")
        if time is not None:
            attributes["time"] = time
        if parts.keys:
            values = ",".join(quote(scalar_text(value), safe="") for value in parts.keys.values())
            attributes["partitionkey"] = f"{event.table}/{values}"
        return attributes


class BinaryCloudEvents(CloudEvents):
    """One event by itself: its attributes in headers, and the body is our own form."""

    content_type: ClassVar[str] = "application/json"

    def element(self, event: Event, document: bytes) -> bytes:
        take_apart(document)
        return document

    def headers(self, event: Event, document: bytes) -> Mapping[str, str]:
        attributes = self._attributes(event, document)
        return {f"ce-{name}": quote(value, safe=_PLAIN) for name, value in attributes.items()}
