"""
The outer form of what is sent.

An event's body is shared by all triggers of one shape, so it stops before the two members that differ by trigger; the
envelope adds this tail and closes the object: `…"trigger":"t","idempotency_key":"…"}}`. Then, where the trigger says
so, its transform is asked, and the event is put into another form (`forms`).
"""

from __future__ import annotations

import hashlib
import operator
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, repeat
from typing import overload

import msgspec
import orjson

from bridge.change import Event
from bridge.triggers.forms import Form
from bridge.triggers.forms.form import JSON
from bridge.triggers.transform import Transform, TransformFailed

# An event is a tuple: its members without a step of Python's for each.
_id = operator.itemgetter(0)
_body = operator.itemgetter(7)


@dataclass(frozen=True, slots=True)
class Content:
    """What one call carries, beside its body."""

    content_type: str = JSON
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)


PLAIN = Content()


@dataclass(frozen=True, slots=True)
class Unsent:
    """Of the events of a batch, those that are not to be sent."""

    dropped: Sequence[Event] = ()
    """The transform wants none of it."""
    failed: Sequence[tuple[Event, TransformFailed]] = ()


ALL_SENT = Unsent()


class EventIds(Sequence[str]):
    """The ids of events as text, made when somebody looks at one: after a call that went well, nobody does."""

    __slots__ = ("_events", "_texts")

    def __init__(self, events: Sequence[Event]) -> None:
        self._events = events
        self._texts: list[str] | None = None

    def __len__(self) -> int:
        return len(self._events)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        if self._texts is None:
            self._texts = b",".join(map(_id, self._events)).decode("ascii").split(",")
        return self._texts[index]

    def __repr__(self) -> str:
        return f"EventIds({list(self)})"


class Envelope:
    """
    The envelope of one trigger: `{"Records": [event, …]}`, or one event by itself, unless it has another form.

    Args:
        trigger: its name.
        system_identifier: of the source's cluster.
        form: another form; None for our own.
        transform: asked for each event before it is put into its form.
    """

    def __init__(
        self,
        trigger: str,
        system_identifier: str,
        *,
        form: Form | None = None,
        transform: Transform | None = None,
    ) -> None:
        self._tail = b'"trigger":%b,"idempotency_key":"%b-%b-' % (
            orjson.dumps(trigger),
            system_identifier.encode("ascii"),
            trigger.encode("ascii"),
        )
        self._prefix = f"{system_identifier}-{trigger}"
        self.event_overhead_bytes = len(self._tail) + len("0000000001A2B3C0-0000000003") + len('"}},')
        self._form = form
        self._transform = transform
        self._as_it_is = form is None and transform is None
        self._ready: dict[bytes, tuple[bytes, bytes]] = {}
        """By event id, what `prepare` made of those that are about to be sent: transformed, and in the form."""

    @property
    def growth(self) -> float:
        """How much larger an event may be sent than it is."""
        return 1.0 if self._form is None else self._form.growth

    @property
    def in_order(self) -> bool:
        """Whether failures are reported by one who has stopped at the first."""
        return self._form is not None and self._form.in_order

    # Our own form: what is stored, too

    def event(self, event: Event) -> bytes:
        """One event in our own form, complete and not transformed."""
        return b'%b%b%b"}}' % (event.body, self._tail, event.id)

    # What is sent

    def prepare(self, events: Iterable[Event]) -> Unsent:
        """Ask the transform, and say which events are not to be sent. The others are held until they are."""
        if self._as_it_is:
            return ALL_SENT
        dropped: list[Event] = []
        failed: list[tuple[Event, TransformFailed]] = []
        for event in events:
            if event.id in self._ready:
                continue
            try:
                document: bytes | None = self.event(event)
                if self._transform is not None and document is not None:
                    document = self._transform.apply(document)
                if document is None:
                    dropped.append(event)
                    continue
                element = document if self._form is None else self._form.element(event, document)
            except TransformFailed as error:
                failed.append((event, error))
            except (msgspec.MsgspecError, ValueError, RecursionError) as error:
                what = f"the event can't be put into its envelope: {type(error).__name__}"
                failed.append((event, TransformFailed(what, str(error))))
            else:
                self._ready[event.id] = document, element
        if not dropped and not failed:
            return ALL_SENT
        return Unsent(dropped, failed)

    def single(self, events: Sequence[Event]) -> bytes:
        """The body of a call that carries one event by itself; call `prepare` before."""
        (event,) = events
        return self.event(event) if self._as_it_is else self._ready[event.id][1]

    def records(self, events: Sequence[Event]) -> bytes:
        """The body of a call that carries a batch, which is never empty; call `prepare` before."""
        if self._as_it_is:
            # Joined from the parts as they are: putting each event together first would copy all of it twice more.
            each = zip(map(_body, events), repeat(self._tail), map(_id, events), repeat(b'"}},'), strict=False)
            parts = [b'{"Records":[', *chain.from_iterable(each)]
            parts[-1] = b'"}}]}'
            return b"".join(parts)
        elements = [self._ready[event.id][1] for event in events]
        return b'{"Records":[%b]}' % b",".join(elements) if self._form is None else self._form.batch(elements)

    def content(self, events: Sequence[Event], *, batched: bool) -> Content:
        """What goes with that body."""
        form = self._form
        if form is None:
            return PLAIN
        if batched:
            return Content(form.batch_content_type)
        return Content(form.content_type, form.headers(events[0], self._ready[events[0].id][0]))

    def sent(self, events: Iterable[Event]) -> None:
        """What `prepare` held for these is not needed any more."""
        for event in events if self._ready else ():
            self._ready.pop(event.id, None)

    def identifiers(self, events: Sequence[Event]) -> Sequence[str]:
        """What the receiver calls each event by."""
        if self._form is None:
            return EventIds(events)
        return [self._form.identifier(event) for event in events]

    def message_id(self, events: Sequence[Event]) -> str:
        """Names the content of a call for its receiver: the same events have the same name on every attempt."""
        if len(events) == 1:
            return f"{self._prefix}-{events[0].id.decode('ascii')}"
        digest = hashlib.sha256(b",".join(map(_id, events))).hexdigest()[:32]
        return f"{self._prefix}-{len(events)}-{digest}"
