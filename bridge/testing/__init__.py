"""
Doubles that keep the same contracts as the real parts, for the tests of pgbridge and of what is built on it.

`ManualClock` is a clock that stands still until moved, `MemoryTarget` a target whose answers are given in advance.
"""

from bridge.testing.clock import ManualClock
from bridge.testing.target import MemoryTarget

__all__ = ["ManualClock", "MemoryTarget"]
