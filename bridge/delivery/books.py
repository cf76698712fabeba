"""What one trigger has in hand, shared by who sends it (`dispatch.py`) and who parks it in the table (`parking.py`)."""

from __future__ import annotations

from collections.abc import Sequence

from bridge.batching.held import HeldKeys
from bridge.batching.lanes import Lanes
from bridge.change import Event
from bridge.delivery.backlog import EVENT_OVERHEAD_BYTES
from bridge.delivery.decide import NO_CHARGE, Charge
from bridge.progress.tracker import Tracker
from bridge.store.protocol import Parked


class Books:
    """
    Args:
        tracker: what is unsettled, as far as the slot keeps it.
        lanes: what waits to be sent, or sent again.
        held: what waits for a dead letter of its key.
    """

    def __init__(self, tracker: Tracker, lanes: Lanes, held: HeldKeys) -> None:
        self.tracker = tracker
        self.lanes = lanes
        self.held = held
        self.charges: dict[bytes, Charge] = {}
        """By event id, the failed attempts against it."""
        self.buffered_bytes = 0
        """Of events in memory, wherever they are."""
        self.settled_total = 0
        self.newest_settled = b""
        """The id of the newest event that ever settled."""
        self.stopped = False
        """Nothing is begun any more."""
        self._forgiven = (float("inf"), float("-inf"))

    def settle(self, delivered: Sequence[Event], set_aside: Sequence[Event]) -> None:
        """Strike out what is finished with; the tracker hears of it from elsewhere, as a row may stand for an event."""
        settled = [*delivered, *set_aside]
        # Those delivered stand in event order.
        for event in [*delivered[-1:], *set_aside]:
            self.newest_settled = max(self.newest_settled, event.id)
        self.settled_total += len(settled)
        self.buffered_bytes -= sum([len(event.body) for event in settled]) + EVENT_OVERHEAD_BYTES * len(settled)
        if self.charges:
            for event in settled:
                self.charges.pop(event.id, None)

    def charge_of(self, event_id: bytes) -> tuple[int, float]:
        """Attempts and the time of the first failure, as a row keeps them."""
        charge = self.charges.get(event_id, NO_CHARGE)
        return charge.attempts, charge.first_failed_at

    def forgive(self, after: float, until: float) -> None:
        """What failed between these times, in seconds since 1970, was not to blame."""
        self._forgiven = (after, until)
        self.charges = {key: charge for key, charge in self.charges.items() if charge.first_failed_at <= after}

    def charge_again(self, row: Parked) -> None:
        """What a row has kept against its event holds again, unless it was forgiven meanwhile."""
        after, until = self._forgiven
        if row.attempts and not after < row.first_failed_at <= until:
            self.charges.setdefault(row.event.id, Charge(row.attempts, row.first_failed_at))
