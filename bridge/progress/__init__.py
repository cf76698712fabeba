"""
Progress: what may be confirmed, and when. Pure.

Comes in: the events admitted and settled by each trigger, the stream's own positions. Goes out: each trigger's
checkpoint, the one LSN that may be confirmed for all of them, and the status update that is due.

Promises kept here: nothing is confirmed until every change at or below it is settled (1); neither position moves back
(2); what is confirmed is an `end_lsn`, or a keepalive's `wal_end` while nothing at all is open (3).
"""
