"""
Source: the only room that opens a replication connection.

Comes in: a DSN, the names of a slot and a publication, positions to confirm. Goes out: the payloads of the copy-both
stream in the order in which the server sent them (`connection.py`), what the server's catalog says (`slot.py`,
`catalog.py`), a publication in step with the triggers (`publication.py`; `push_down.py` says which rows need not be
sent), and what is wrong with a database, each fault with its remedy (`preflight.py`).

Promises: nothing here decides what may be confirmed; a position goes to the server only as `send_status` was told it.
Every failure of the driver leaves this room as a `SourceError` that was chosen by SQLSTATE (`failure.py`), and no
password is in its text. Whatever changes a database is a `Statement` first (`commands.py`), so that what `init` runs
and what it prints for a DBA are the same.
"""
