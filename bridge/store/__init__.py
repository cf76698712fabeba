"""
The tables we own: progress and dead letters, in the source database or another one.

Comes in: the watermark of each trigger and the letters that it passes. Goes out: the same after a restart.
Promises: stored positions never move back; a dead letter and the checkpoint that passes it commit in one
transaction; a process that lost its claim can't write (epoch fencing).

`protocol.py` is the contract. `postgres.py` keeps it with the queries of `sql/` (`statements.py`), the tables that
`migrations.py` makes, and connections that come back by themselves (`session.py`); `sqlstate.py` is where the driver's
errors become ours. `memory.py` keeps it without a database.
"""
