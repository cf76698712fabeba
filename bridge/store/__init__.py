"""
The tables we own: progress and dead letters, in the source database or another one.

Comes in: the watermark of each trigger and the letters that it passes. Goes out: the same after a restart.
Promises: stored positions never move back; a dead letter and the checkpoint that passes it commit in one
transaction; a process that lost its claim can't write (epoch fencing).

`protocol.py` is the contract. `postgres.py` keeps it: it saves progress itself, and leaves the rest to who holds it:

    installation.py     the tables as a whole, made by what `migrations.py` lists
    claim.py            the right to write for a slot
    backlog_table.py    parked changes, in segments (`segments.py`), copied in and read back (`backlog_rows.py`)
    letter_table.py     dead letters; `replay_claim.py` the right to replay those of a trigger
    trigger_notes.py    schema guards and pauses

All of them ask by the queries of `sql/` (`statements.py`) over connections that come back by themselves (`session.py`);
`sqlstate.py` is where the driver's errors become ours. `memory.py` keeps the contract without a database.
"""
