"""
Messages to positioned events, as they come; no transaction is held whole.

The order that a stream keeps, and that is checked here:

    outside a transaction   Begin; Relation, Type; a non-transactional Message
    inside                  Origin, Relation, Type, Insert, Update, Delete, Truncate, a transactional Message; Commit

Every change of a transaction has an ordinal, counted from 0 before any filter: rows whether or not anybody wants
them, each relation of a Truncate, transactional messages. A resend is the same sequence, since the server replays the
WAL with the catalog (and publication) of that time; so the numbers are the same, as long as the stream is asked for
with the same options. (Turning `messages` off, or other publications on, would number old transactions anew.)

A non-transactional message belongs to no transaction, and has a position of its own: `(lsn - 1, 0)`. Its LSN is where
its record ends, and may be where a commit record starts; the byte before is inside its own record, where nothing else
starts, so no other position is the same, and it sorts after every commit before it and before every one after it. Its
event's `commit_lsn` is that number, `commit_timestamp` and `transaction_id` are null, for there is no such thing.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from bridge.change import Event, Position, Transaction
from bridge.errors import InvariantBroken, MalformedMessage, ProtocolError, UnexpectedMessage
from bridge.lsn import LSN
from bridge.pgoutput import context
from bridge.pgoutput.decoder import decode
from bridge.pgoutput.execution import DEFAULT, Execution
from bridge.pgoutput.frames import XLOG_DATA, Keepalive, XLogData, decode_frame, to_unix_seconds
from bridge.pgoutput.logical import encode_message, stamp_outside
from bridge.pgoutput.lookup import Lacks, Lookup, lacks_nothing, lookup_for
from bridge.pgoutput.messages import (
    Begin,
    Commit,
    Delete,
    Insert,
    LogicalMessage,
    Origin,
    RelationMessage,
    Truncate,
    TupleData,
    TypeMessage,
    Update,
)
from bridge.pgoutput.plan import KeyLayout, Plan, Stamp, make_stamp
from bridge.pgoutput.program import GAVE_UP, KINDS, OPERATIONS, ROW_KEY, RowEncoder, compilable, row_key
from bridge.pgoutput.schema_guard import SchemaGuard
from bridge.pgoutput.schema_version import Description, RelationHistory
from bridge.pgoutput.sieve import Sieve, matches_message
from bridge.pgoutput.values import TypeCatalog, ValueType, no_catalog, resolve
from bridge.triggers.selection import Selection
from bridge.triggers.shape import Shape

PrimaryKeys = Callable[[int], tuple[str, ...] | None]
"""Relation OID to the names of its primary key's columns; None where there is none or it is not known."""


@dataclass(frozen=True, slots=True)
class Route:
    """
    One trigger's interest in one relation, or in one prefix of logical messages.

    `inbox` must stay the same list: events are appended in stream order, the owner empties it in place.
    """

    trigger: str
    shape: Shape
    operations: frozenset[str]
    """Of insert, update, delete, truncate. A message route needs none."""
    inbox: list[Event] = field(repr=False)
    received: Position
    """Changes at or below it are passed over for this trigger: settled, or in hand already."""
    selection: Selection | None = None
    """Which of these changes it takes; None: all."""
    guard: SchemaGuard | None = field(default=None, repr=False)
    """For a trigger that stops when a relation is described differently; None: it takes any description."""


def no_primary_keys(_oid: int) -> tuple[str, ...] | None:
    """Knows none: under FULL whole tables stay in order, and `keys` is empty."""
    return None


# What encodes a row, and the inboxes that its event goes to. The encoder returns None where it has appended by itself.
_Writer = tuple[Callable[[bytes, int, Stamp], Event | None], tuple[list[Event], ...]]

_NO_WRITERS: Final[dict[bytes, _Writer]] = {}

# XLogData around a Begin (start LSN, …, final LSN, commit time, xid), around a Commit (start LSN, …, commit LSN, end
# LSN, commit time).
_BEGIN: Final = struct.Struct(">xQ16xxQqI")
_COMMIT: Final = struct.Struct(">xQ16xxxQQq")

_KNOWN_WAYS: Final = 1024
"""Of how many sets of triggers that a kind of row went to is known how it goes to them."""

_NO_STAMP: Final[Stamp] = (Transaction(0, 0, 0.0, 0), b"", b"", b"")


class _CatalogTooOldError(Exception):
    """Ends the loop over the frames before a Relation message that can't be planned yet."""

    def __init__(self, frame: bytes) -> None:
        super().__init__()
        self.frame = frame


@dataclass(slots=True)
class _Group:
    """The routes of one shape that want an operation of a relation."""

    plan: Plan
    routes: tuple[Route, ...]
    execution: Execution
    encoders: dict[bytes, RowEncoder] = field(default_factory=dict)

    def encoder(self, kind: bytes) -> RowEncoder:
        """Compiled when the first such row comes: most tables never see every kind."""
        encode = self.encoders.get(kind)
        if encode is None:
            encode = self.encoders[kind] = self.execution.compile_row(self.plan, kind)
        return encode


_Chosen = list[tuple[_Group, tuple[Route, ...]]]
"""Who gets a change."""


@dataclass(slots=True)
class _Wanted:
    """One operation of a relation, or several of the same triggers: who wants it."""

    groups: tuple[_Group, ...] = ()
    sieve: Sieve | None = None
    """The filters of those that have one."""
    unfiltered: dict[int, tuple[Route, ...]] = field(default_factory=dict)
    """By a group's index, its routes without a filter."""
    filtered: dict[str, tuple[int, Route]] = field(default_factory=dict)
    """By trigger, the routes with one, and their group's index."""

    def chosen(self, passed: Sequence[str]) -> _Chosen:
        """Where a change goes that the filters of these triggers let pass."""
        if self.sieve is None:
            return [(group, group.routes) for group in self.groups]
        routes = dict(self.unfiltered)
        for trigger in passed:
            index, route = self.filtered[trigger]
            routes[index] = (*routes.get(index, ()), route)
        return [(self.groups[index], each) for index, each in routes.items()]


@dataclass(slots=True)
class _Version:
    """A relation as the last Relation message (and the catalog) described it."""

    message: RelationMessage
    primary_key: tuple[str, ...] | None
    types: tuple[ValueType, ...]
    wanted: dict[str, _Wanted]
    """By operation."""
    # There may be thousands of versions: a set of its own costs each of them more than all else that stands here.
    barriers: frozenset[str] = frozenset()
    """Triggers whose next event of this relation is a barrier, for their older ones carry keys of another make."""
    news: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """Triggers that stop before their next event of this relation, and what they stop for."""
    fast: tuple[bytes, ...] = ()
    """Kinds of rows that have come, and take the fast way as far as there is one."""
    stops: bool = False
    """Whether some trigger is known to have stopped before an event of this relation that is yet to come again."""

    def is_quiet_for(self, route: Route) -> bool:
        """Whether none of the trigger's next events of this relation is made a barrier."""
        return not (
            route.trigger in self.barriers or route.trigger in self.news or (self.stops and route.guard is not None)
        )


class Assembler:
    """
    Copy-both payloads in, events in the inboxes of the routes out.

    After an error the stream is over: what was appended before it holds, and a new stream needs a new assembler.

    Attributes:
        transaction: the open one.
        received_end_lsn: where everything received so far ends: `end_lsn` of the last Commit, or the LSN of a later
            non-transactional message; at first the start.
        server_wal_end: newest of the keepalives'.
        reply_requested: set by a keepalive, cleared by the owner.
        relation_versions: how many different descriptions of relations came, the first of each included.
        ignored_contexts: messages with the prefix of a context that were none.
        last_ignored_context: why the newest of them was left out.
        history: what the relations that somebody wants were last, and what changed of them.
        lookup: what `consume` stopped for, until it goes on.
        execution: how rows are written.
    """

    def __init__(
        self,
        *,
        database: str,
        system_identifier: str,
        start_lsn: int,
        routes: Callable[[RelationMessage], Sequence[Route]],
        message_routes: Callable[[str], Sequence[Route]],
        excluded_schemas: frozenset[str] = frozenset(),
        primary_keys: PrimaryKeys = no_primary_keys,
        types: TypeCatalog = no_catalog,
        lacks: Lacks = lacks_nothing,
        key_layouts: MutableMapping[tuple[str, int], KeyLayout] | None = None,
        history: RelationHistory | None = None,
        execution: Execution = DEFAULT,
    ) -> None:
        """
        Args:
            database: stands in each event's metadata.
            system_identifier: of the source's cluster.
            start_lsn: where the stream starts; everything before it was received.
            routes: asked once per relation version.
            message_routes: asked for each logical message, by its prefix.
            excluded_schemas: relations in them get no routes (our own tables); their changes still count.
            primary_keys: names keys where the replica identity doesn't (FULL, NOTHING). Asked when a relation is
                described, and by `refresh`.
            types: `pg_type`, for types that are not built in: tells domains and arrays apart. Asked at the same times.
            lacks: whether these two are too old to answer for a relation; then `consume` stops before it.
            key_layouts: by (trigger, relation OID), what the keys of its events were made of last. Hand the same
                mapping to the assembler of the next stream while events of this one are still undelivered; then a
                changed layout is noticed there too.
            history: of the streams before this one.
            execution: how rows are to be written.
        """
        self.database = database
        self.system_identifier = system_identifier
        self.transaction: Transaction | None = None
        self.received_end_lsn = start_lsn
        self.server_wal_end = 0
        self.reply_requested = False
        self.relation_versions = 0
        self.ignored_contexts = 0
        self.last_ignored_context = ""
        self.history = RelationHistory() if history is None else history
        self.lookup: Lookup | None = None

        self._ask_routes = routes
        self._ask_message_routes = message_routes
        self._excluded_schemas = excluded_schemas
        self._primary_keys = primary_keys
        self._catalog = types
        self._lacks = lacks
        self._key_layouts = {} if key_layouts is None else key_layouts
        self.execution = execution

        self._refused: dict[str, int] = {}  # by filters of relations that were described anew, and of messages
        self._announced: dict[int, TypeMessage] = {}
        self._relations: dict[int, _Version] = {}
        self._writers: dict[bytes, _Writer] = {}
        self._careful: dict[bytes, _Writer] = {}  # the same rows, but each route is asked what it has received
        self._ready = _NO_WRITERS  # one of these two while a transaction is open
        self._skip_until = 0  # the newest commit LSN that some route has received already
        self._ordinal = 0
        self._counted = 0
        self._stamp = _NO_STAMP
        self._context: context.Members = {}
        self._stamp_before_context = _NO_STAMP  # of the transaction that the context is of
        reader = execution.reader
        self._loop = self._consume if reader is None else reader(self, _NO_WRITERS).consume

    @property
    def changes(self) -> int:
        """Changes received so far, wanted or not, as they are counted by ordinals."""
        return self._counted + self._ordinal

    @property
    def filtered(self) -> Mapping[str, int]:
        """By trigger, changes that its filter refused; they are settled."""
        refused = dict(self._refused)
        for version in self._relations.values():
            _add_refused(version, refused)
        return refused

    @property
    def relations(self) -> Mapping[int, RelationMessage]:
        """By OID, the relations as they were last described."""
        return {oid: version.message for oid, version in self._relations.items()}

    def consume(self, frames: Iterable[memoryview | bytes]) -> Sequence[memoryview | bytes]:
        """
        Take copy-both payloads (XLogData and keepalives) in order, and append their events to the inboxes.

        Returns:
            The frames that were not taken, mostly none. The first of them describes a relation of which the catalog
            lacks what `lookup` says; hand them in again when it was read, or when `lacks` will be content without.

        Raises:
            MalformedMessage: bytes that do not parse.
            UnexpectedMessage: a message at a moment when it can't be.
        """
        self.lookup = None
        frames = iter(frames)
        try:
            self._loop(frames)
        except _CatalogTooOldError as stop:
            return [stop.frame, *frames]
        return ()

    def _consume(self, frames: Iterable[memoryview | bytes]) -> None:
        """The loop over the frames; `Reader` in `_rows.pyx` is the same in compiled code, over the same attributes."""
        # Rows come first and fast: whatever is no row of a known relation inside a transaction misses in `ready`.
        ordinal, stamp, ready = self._ordinal, self._stamp, self._ready.get
        try:
            for frame in frames:
                payload = frame if type(frame) is bytes else frame.tobytes()  # type: ignore[union-attr] # not bytes
                writer = ready(payload[ROW_KEY])
                if writer is not None and payload[0] == XLOG_DATA:
                    encode, inboxes = writer
                    try:
                        event = encode(payload, ordinal, stamp)
                    except GAVE_UP:
                        self._ordinal = ordinal
                        self._write_plainly(payload)
                    else:
                        for inbox in inboxes:
                            inbox.append(event)  # type: ignore[arg-type] # with inboxes there is an event
                    ordinal += 1
                else:
                    self._ordinal = ordinal
                    self._take(payload)
                    ordinal, stamp, ready = self._ordinal, self._stamp, self._ready.get
        finally:
            self._ordinal = ordinal

    def refresh(self) -> None:
        """Ask `primary_keys` and `types` again, and plan anew the relations whose answers have changed."""
        for version in list(self._relations.values()):
            self._describe(version.message)

    # One message, the readable way

    def _take(self, payload: bytes) -> None:
        # Small transactions are common, so their two messages are read at once where they have the manual's form.
        size = len(payload)
        if size == _BEGIN.size and payload[:26:25] == b"wB":
            self._begin(*_BEGIN.unpack(payload))
            return
        if size == _COMMIT.size and payload[:26:25] == b"wC" and not payload[26]:
            self._commit(*_COMMIT.unpack(payload))
            return
        if self._made_fast(payload):
            self._consume((payload,))
            return
        frame = decode_frame(payload)
        if isinstance(frame, Keepalive):
            self.server_wal_end = max(self.server_wal_end, frame.wal_end)
            self.reply_requested |= frame.reply_requested
            return
        message = decode(frame.data, frame.start)
        match message:
            case Begin() | Commit():
                raise InvariantBroken("a well-formed Begin or Commit was not read at once", position=frame.start)
            case Insert() | Update() | Delete():
                self._need_transaction(frame)
                self._row(message, frame)
                self._ordinal += 1
            case RelationMessage():
                self._need_catalog(message, payload)
                self._describe(message)
            case TypeMessage():
                self._announced[message.oid] = message
            case Truncate():
                self._need_transaction(frame)
                self._truncate(message, frame)
            case LogicalMessage():
                self._logical_message(message, frame)
            case Origin():
                self._need_transaction(frame)

    def _begin(self, start: int, final_lsn: int, committed_at: int, xid: int) -> None:
        if self.transaction is not None:
            raise UnexpectedMessage("a Begin inside a transaction", tag=ord("B"), offset=0, position=LSN(start))
        self.transaction = Transaction(final_lsn, self.received_end_lsn, to_unix_seconds(committed_at), xid)
        try:
            self._stamp = make_stamp(self.transaction, committed_at)
        except OverflowError as error:
            what = "a commit time outside of the years 1 to 9999"
            raise MalformedMessage(what, tag=ord("B"), offset=9, position=LSN(start)) from error
        self._ordinal = 0
        self._ready = self._careful if final_lsn <= self._skip_until else self._writers

    def _commit(self, start: int, commit_lsn: int, end_lsn: int, _committed_at: int) -> None:
        transaction = self.transaction
        if transaction is None:
            what = "a Commit outside of a transaction"
        elif commit_lsn != transaction.commit_lsn:
            what = f"a Commit at {LSN(commit_lsn)} of a transaction begun for {LSN(transaction.commit_lsn)}"
        elif end_lsn <= commit_lsn:
            what = f"a Commit that ends at {LSN(end_lsn)}, not past {LSN(commit_lsn)}"
        else:
            self.transaction = None
            self.received_end_lsn = max(self.received_end_lsn, end_lsn)
            self._counted += self._ordinal
            self._ordinal = 0
            self._ready = _NO_WRITERS
            return
        raise UnexpectedMessage(what, tag=ord("C"), offset=0, position=LSN(start))

    def _need_transaction(self, frame: XLogData) -> Transaction:
        if self.transaction is None:
            raise _unexpected("a change outside of a transaction", frame)
        return self.transaction

    # Relations

    def _need_catalog(self, message: RelationMessage, payload: bytes) -> None:
        """Raises _CatalogTooOldError, having changed nothing but `lookup`."""
        if self.transaction is None:
            return  # the server describes a relation just before a row of it
        lookup = lookup_for(message, self._announced, self.transaction.xid)
        if lookup is None or not self._lacks(lookup):
            return
        if message.namespace not in self._excluded_schemas and self._ask_routes(message):
            self.lookup = lookup
            raise _CatalogTooOldError(payload)

    def _describe(self, message: RelationMessage) -> None:
        primary_key = self._primary_keys(message.oid) if message.replica_identity in "fn" else None
        types = tuple(resolve(column.type_oid, self._announced, self._catalog) for column in message.columns)
        before = self._relations.get(message.oid)
        if before is not None and (before.message, before.primary_key, before.types) == (message, primary_key, types):
            return
        if before is None or before.message != message:
            self.relation_versions += 1
        excluded = message.namespace in self._excluded_schemas
        routes = () if excluded else tuple(self._ask_routes(message))
        if routes and (before is None or before.message != message):
            self._note_description(message)
        version = _Version(message, primary_key, types, self._group(message, primary_key, routes))
        if before is not None:
            self._forget_writers(before.message)
            _add_refused(before, self._refused)
            version.barriers |= before.barriers
        self._relations[message.oid] = version
        self._note_layouts(version)
        self._ask_guards(version, before, routes)
        self._note_received(routes)

    def _group(
        self, message: RelationMessage, primary_key: tuple[str, ...] | None, routes: Sequence[Route]
    ) -> dict[str, _Wanted]:
        plans: dict[Shape, Plan] = {}
        for route in routes:
            if route.shape not in plans:
                plans[route.shape] = Plan(
                    message,
                    route.shape,
                    database=self.database,
                    primary_key=primary_key,
                    announced=self._announced,
                    catalog=self._catalog,
                )
        by_triggers: dict[tuple[str, ...], _Wanted] = {}  # most want every operation
        wanted = {}
        for operation in ("insert", "update", "delete", "truncate"):
            wanting = [route for route in routes if operation in route.operations]
            triggers = tuple(route.trigger for route in wanting)
            if triggers not in by_triggers:
                shapes = dict.fromkeys(route.shape for route in wanting)
                groups = tuple(
                    _Group(
                        plans[shape],
                        tuple(route for route in wanting if route.shape == shape),
                        execution=self.execution,
                    )
                    for shape in shapes
                )
                by_triggers[triggers] = self._filtered(message, primary_key, groups)
            wanted[operation] = by_triggers[triggers]
        return wanted

    def _filtered(
        self, message: RelationMessage, primary_key: tuple[str, ...] | None, groups: tuple[_Group, ...]
    ) -> _Wanted:
        """The same groups with the filters of their routes."""
        selections = {
            route.trigger: route.selection for group in groups for route in group.routes if route.selection is not None
        }
        if not selections:
            return _Wanted(groups)
        unfiltered = {
            index: routes
            for index, group in enumerate(groups)
            if (routes := tuple(route for route in group.routes if route.selection is None))
        }
        filtered = {
            route.trigger: (index, route)
            for index, group in enumerate(groups)
            for route in group.routes
            if route.selection is not None
        }
        sieve = Sieve(
            message,
            selections,
            database=self.database,
            execution=self.execution,
            primary_key=primary_key,
            announced=self._announced,
            catalog=self._catalog,
        )
        return _Wanted(groups, sieve, unfiltered, filtered)

    def _note_description(self, message: RelationMessage) -> None:
        transaction = self.transaction
        if transaction is not None:  # the server describes a relation just before a row of it
            position = Position(LSN(transaction.commit_lsn), self._ordinal)
            self.history.note(Description.of(message, self._announced), position, transaction.committed_at)

    def _ask_guards(self, version: _Version, before: _Version | None, routes: Sequence[Route]) -> None:
        guards = {route.trigger: route.guard for route in routes if route.guard is not None}
        if not guards:
            return
        version.stops = any(guard.has_stop_in(version.message.oid) for guard in guards.values())
        if self.transaction is None:  # described again by `refresh`
            version.news = before.news if before is not None else {}
            return
        description = Description.of(version.message, self._announced)
        position = Position(LSN(self.transaction.commit_lsn), self._ordinal)
        for trigger, guard in guards.items():
            if what := guard.differs(description, position):
                version.news[trigger] = what

    def _note_layouts(self, version: _Version) -> None:
        for wanted in version.wanted.values():
            for group in wanted.groups:
                layout = group.plan.key_layout
                for route in group.routes:
                    known = self._key_layouts.setdefault((route.trigger, version.message.oid), layout)
                    if known != layout:
                        self._key_layouts[route.trigger, version.message.oid] = layout
                        if layout.ordered:
                            version.barriers |= {route.trigger}

    def _note_received(self, routes: Sequence[Route]) -> None:
        for route in routes:
            self._skip_until = max(self._skip_until, route.received.commit_lsn)
        if self.transaction is not None and self.transaction.commit_lsn <= self._skip_until:
            self._ready = self._careful

    def _forget_writers(self, message: RelationMessage) -> None:
        for kind in KINDS:
            key = row_key(kind, message.oid, len(message.columns))
            self._writers.pop(key, None)
            self._careful.pop(key, None)

    def _made_fast(self, payload: bytes) -> bool:
        """Whether this row, the first of its kind, has a fast way now: of many tables, most see few kinds or none."""
        kind = payload[ROW_KEY][:1] + payload[ROW_KEY][5:6]
        if kind not in KINDS:
            return False
        version = self._relations.get(int.from_bytes(payload[ROW_KEY][1:5]))
        if version is None or kind in version.fast:
            return False
        version.fast = (*version.fast, kind)
        self._install(version, kind)
        return payload[ROW_KEY] in self._ready and payload[0] == XLOG_DATA

    def _install(self, version: _Version, kind: bytes) -> None:
        """Let the rows of one kind take the fast way, as far as there is one."""
        wanted = version.wanted[OPERATIONS[kind[:1]]]
        groups = wanted.groups
        plans = [group.plan for group in groups] + ([] if wanted.sieve is None else [wanted.sieve.plan])
        if not all(compilable(plan, kind) for plan in plans):
            return
        key = row_key(kind, version.message.oid, len(version.message.columns))
        if not groups:
            self._writers[key] = self._careful[key] = (self.execution.step_over_row, ())
            return
        self._writers[key] = self._careful[key] = (self._distributor(version, wanted, kind), ())
        routes = groups[0].routes
        if len(groups) > 1 or wanted.sieve is not None or not all(map(version.is_quiet_for, routes)):
            return
        inboxes = tuple(route.inbox for route in routes)
        group = groups[0]

        def first(payload: bytes, ordinal: int, stamp: Stamp) -> Event:
            encode = group.encoder(kind)
            self._writers[key] = (encode, inboxes)
            return encode(payload, ordinal, stamp)

        self._writers[key] = (first, inboxes)

    def _distributor(self, version: _Version, wanted: _Wanted, kind: bytes) -> Callable[[bytes, int, Stamp], None]:
        """For rows that several shapes, filters, barriers or positions already received make more than an append."""
        sieve = wanted.sieve
        # By triggers that pass: what writes the events, and the inboxes that they go to. Only where an append is all
        # there is to do; a route that is quiet stays so until its relation is described anew.
        straight: dict[tuple[str, ...], tuple[tuple[RowEncoder, tuple[list[Event], ...]], ...]] = {}

        def distribute(payload: bytes, ordinal: int, stamp: Stamp) -> None:
            passed = () if sieve is None else sieve.sift(kind, payload, ordinal, stamp)
            if stamp[0].commit_lsn > self._skip_until:
                ways = straight.get(passed)
                if ways is not None:
                    if ways:
                        made = [(encode(payload, ordinal, stamp), inboxes) for encode, inboxes in ways]
                        for event, inboxes in made:
                            for inbox in inboxes:
                                inbox.append(event)
                    if sieve is not None:
                        sieve.count(passed)
                    return
            chosen = wanted.chosen(passed)
            if len(straight) < _KNOWN_WAYS and all(
                version.is_quiet_for(route) for _, routes in chosen for route in routes
            ):
                straight[passed] = tuple(
                    (group.encoder(kind), tuple(route.inbox for route in routes)) for group, routes in chosen
                )
            left = self._unreceived(chosen, stamp[0], ordinal)
            if left:
                self._distribute(
                    version, [(group.encoder(kind)(payload, ordinal, stamp), routes) for group, routes in left]
                )
            elif sieve is None:  # which else has looked at the whole of the row
                self.execution.step_over_row(payload, ordinal, stamp)
            self._count(wanted, passed, stamp[0], ordinal)

        return distribute

    def _unreceived(self, chosen: _Chosen, transaction: Transaction, ordinal: int) -> _Chosen:
        if transaction.commit_lsn > self._skip_until:
            return chosen
        position = (transaction.commit_lsn, ordinal)
        left = [(group, tuple(route for route in routes if route.received < position)) for group, routes in chosen]
        return [(group, routes) for group, routes in left if routes]

    def _count(self, wanted: _Wanted, passed: Sequence[str], transaction: Transaction, ordinal: int) -> None:
        """What the filters said, once everything else about the change has gone well."""
        sieve = wanted.sieve
        if sieve is None:
            return
        sieve.count(passed)
        if transaction.commit_lsn <= self._skip_until:
            position = (transaction.commit_lsn, ordinal)
            for trigger in wanted.filtered.keys() - set(passed):
                if wanted.filtered[trigger][1].received >= position:
                    sieve.passed[trigger] += 1  # it was counted when it was received

    def _distribute(self, version: _Version | None, made: Sequence[tuple[Event, tuple[Route, ...]]]) -> None:
        for event, routes in made:
            for route in routes:
                if version is None or version.is_quiet_for(route) or not self._is_barrier(version, route, event):
                    route.inbox.append(event)
                else:
                    route.inbox.append(event._replace(barrier=True))
                    for kind in version.fast:
                        self._install(version, kind)

    def _is_barrier(self, version: _Version, route: Route, event: Event) -> bool:
        """Whether a trigger's older events are of another make, or it stops here, now or since an earlier stream."""
        other_make = route.trigger in version.barriers
        version.barriers -= {route.trigger}
        what = version.news.pop(route.trigger, None)
        if route.guard is None:
            return other_make
        if what is not None:
            route.guard.stop_before(event.position, Description.of(version.message, self._announced), what)
        return other_make or event.id in route.guard.stops

    # Changes, the plain way

    def _write_plainly(self, payload: bytes) -> None:
        """The fast way gave up on a row: make its event, or the exact error."""
        frame = decode_frame(payload)
        if not isinstance(frame, XLogData):  # rows stand in XLogData alone
            raise InvariantBroken("a keepalive was taken for a row")
        message = decode(frame.data, frame.start)
        if not isinstance(message, Insert | Update | Delete):
            raise InvariantBroken(f"a {type(message).__name__} was taken for a row", position=frame.start)
        self._row(message, frame)

    def _row(self, message: Insert | Update | Delete, frame: XLogData) -> None:
        version = self._version(message.relation_oid, frame)
        for values in _tuples(message):
            if len(values) != len(version.message.columns):
                raise _unexpected(
                    f"a row of {len(values)} columns; the relation has {len(version.message.columns)}",
                    frame,
                    version.message.qualified_name,
                )
        transaction = self._need_transaction(frame)
        wanted = version.wanted[OPERATIONS[frame.data[:1]]]
        passed: Sequence[str] = ()
        try:
            if wanted.sieve is not None:
                passed = wanted.sieve.sift_plainly(message, self._ordinal, self._stamp)
            made = [
                (group.plan.encode(message, self._ordinal, self._stamp), routes)
                for group, routes in self._unreceived(wanted.chosen(passed), transaction, self._ordinal)
            ]
        except MalformedMessage as error:  # a value's; it does not know where it stood
            raise _malformed(error.message, frame, version.message.qualified_name) from error
        self._distribute(version, made)
        self._count(wanted, passed, transaction, self._ordinal)

    def _truncate(self, message: Truncate, frame: XLogData) -> None:
        transaction = self._need_transaction(frame)
        for version in [self._version(oid, frame) for oid in message.relation_oids]:
            wanted = version.wanted["truncate"]
            passed: Sequence[str] = ()
            if wanted.sieve is not None:
                passed = wanted.sieve.sift_truncate(message.options, self._ordinal, self._stamp)
            made = [
                (group.plan.encode_truncate(message.options, self._ordinal, self._stamp), routes)
                for group, routes in self._unreceived(wanted.chosen(passed), transaction, self._ordinal)
            ]
            self._distribute(version, made)
            self._count(wanted, passed, transaction, self._ordinal)
            self._ordinal += 1

    def _version(self, oid: int, frame: XLogData) -> _Version:
        version = self._relations.get(oid)
        if version is None:
            raise _unexpected(f"a change of relation {oid}, which was not described", frame)
        return version

    def _logical_message(self, message: LogicalMessage, frame: XLogData) -> None:
        if message.transactional:
            transaction, stamp = self._need_transaction(frame), self._stamp
        elif self.transaction is not None:
            raise _unexpected("a non-transactional message inside a transaction", frame)
        elif not message.lsn:
            raise _malformed("a message that ends at 0/0", frame)
        else:
            transaction = Transaction(
                message.lsn - 1, self.received_end_lsn, to_unix_seconds(frame.server_clock), xid=0
            )
            stamp = stamp_outside(transaction)
        for route in self._ask_message_routes(message.prefix):
            if route.received >= (transaction.commit_lsn, self._ordinal):
                continue
            event = encode_message(message, self.database, route.shape, self._ordinal, stamp)
            matcher = None if route.selection is None else route.selection.matcher
            if matcher is None or matches_message(matcher, event):
                self._distribute(None, [(event, (route,))])
            else:
                self._refused[route.trigger] = self._refused.get(route.trigger, 0) + 1
        if message.prefix == context.PREFIX:
            self._take_context(message)
        if message.transactional:
            self._ordinal += 1
        else:
            self._counted += 1
            self.received_end_lsn = max(self.received_end_lsn, message.lsn)

    def _take_context(self, message: LogicalMessage) -> None:
        """From here on the transaction's events carry it."""
        if not message.transactional:
            self._ignore_context("it was sent outside of a transaction")
            return
        before = self._stamp_before_context
        known = self._context if before[0] is self.transaction else {}
        try:
            members = known | context.parse(message.content)
            written = context.write(members)
        except context.ContextRefusedError as error:
            self._ignore_context(str(error))
            return
        if before[0] is not self.transaction:
            self._stamp_before_context = self._stamp
        self._context = members
        self._stamp = context.with_context(self._stamp_before_context, written)

    def _ignore_context(self, reason: str) -> None:
        self.ignored_contexts += 1
        self.last_ignored_context = reason


def _add_refused(version: _Version, total: dict[str, int]) -> None:
    sieves = {id(wanted.sieve): wanted.sieve for wanted in version.wanted.values()}  # operations may share one
    for sieve in sieves.values():
        if sieve is not None:
            for trigger, refused in sieve.refused():
                if refused:
                    total[trigger] = total.get(trigger, 0) + refused


def _tuples(message: Insert | Update | Delete) -> list[TupleData]:
    found: list[TupleData | None]
    match message:
        case Insert():
            found = [message.new]
        case Update():
            found = [message.key, message.old, message.new]
        case Delete():
            found = [message.key, message.old]
    return [values for values in found if values is not None]


def _unexpected(what: str, frame: XLogData, table: str | None = None) -> ProtocolError:
    return UnexpectedMessage(what, tag=frame.data[0], offset=0, position=frame.start, table=table)


def _malformed(what: str, frame: XLogData, table: str | None = None) -> ProtocolError:
    return MalformedMessage(what, tag=frame.data[0], offset=0, position=frame.start, table=table)
