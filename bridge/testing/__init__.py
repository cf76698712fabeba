"""
Doubles that keep the same contracts as the real parts, for the tests of pgbridge and of what is built on it.

`ManualClock` is a clock that stands still until moved, `MemoryTarget` a target whose answers are given in advance,
`Faults` a plan of what goes wrong at a receiver; `change_event` and `invocation` make what a handler is called with.
"""

from bridge.testing.clock import ManualClock
from bridge.testing.events import change_event, invocation
from bridge.testing.faults import Fault, Faults
from bridge.testing.target import MemoryTarget

__all__ = ["Fault", "Faults", "ManualClock", "MemoryTarget", "change_event", "invocation"]
