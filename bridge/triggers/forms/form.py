"""What every form is."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from bridge.change import Event

JSON = "application/json"


@dataclass(frozen=True, slots=True)
class Origin:
    """Who sends: the same for all events of a trigger."""

    trigger: str
    system_identifier: str

    @property
    def prefix(self) -> str:
        """What idempotency keys begin with."""
        return f"{self.system_identifier}-{self.trigger}"

    def idempotency_key(self, event: Event) -> str:
        return f"{self.prefix}-{event.id.decode('ascii')}"

    def uuid(self, *parts: str) -> str:
        """A UUID that stands for these names, the same every time."""
        return str(uuid.uuid5(uuid.NAMESPACE_URL, "/".join(["pgbridge:", self.system_identifier, *parts])))


class Form:
    """
    One form, for one trigger.

    Attributes:
        growth: how much larger than our own an event may get, about; batches are cut by that.
        in_order: whether a handler that reports failures has worked through the batch in order, and names what it has
            not tried as well.
        operations: that can be expressed; None: all.
        content_type: of a call with one event by itself.
        batch_content_type: of a call with a batch.
    """

    growth: ClassVar[float] = 1.2
    in_order: ClassVar[bool] = False
    operations: ClassVar[frozenset[str] | None] = None
    content_type: ClassVar[str] = JSON
    batch_content_type: ClassVar[str] = JSON

    def __init__(self, origin: Origin) -> None:
        self.origin = origin

    def element(self, event: Event, document: bytes) -> bytes:
        """
        One event.

        Args:
            event: what it is about.
            document: its JSON in our own form, complete and transformed.

        Raises:
            UnfitEvent: a transform has made it something that has no such form.
        """
        raise NotImplementedError

    def batch(self, elements: Sequence[bytes]) -> bytes:
        """The body of a call with a batch."""
        return b'{"Records":[%b]}' % b",".join(elements)

    def identifier(self, event: Event) -> str:
        """What a handler calls the record by when it reports a failure."""
        return event.id.decode("ascii")

    def headers(self, event: Event, document: bytes) -> Mapping[str, str]:
        """HTTP headers of a call with one event by itself."""
        return {}
