"""
Batching: from events in commit order to batches that may be in flight at once. Pure.

Comes in: one trigger's events, and what became of each batch. Goes out: the next batch to send, or the time from which
there will be one.

Promises kept here: events of one ordering key are in one batch at a time, in commit order (4); a key that fails holds
back only itself; a batch window closes by count, bytes or age, and a window of 0 is always closed.
"""
