"""
pgoutput: the bytes of a replication stream to positioned events. Pure; knows the protocol, not the socket.

Comes in: the payloads of the copy-both stream (`frames.py`), in order, and a few questions answered by the caller:
which triggers want a relation, what its primary key is, what the catalog says about a type. Goes out: an `Event` for
each change and each trigger that wants it, appended to the trigger's inbox, in the stream's order.

How a change goes through:

1. `assembler.py` looks at a frame. It keeps the transaction, the ordinal, and the relations by OID.
2. When a Relation message arrives, each shape that wants it gets a plan (`plan.py`): what becomes of every column, and
   how a type's text becomes JSON (`values.py`, `arrays.py`).
3. A row goes from the frame's bytes to the event's bytes by a program made from the plan (`program.py`), once per
   shape, however many triggers share it: no message object, no object per column but the slice itself. Programs are
   executed (`execution.py`) by an extension module where that was built (`_rows.pyx`), or as generated Python
   (`compiled.py`).
4. Before that, filters refuse what nobody wants (`sieve.py`), most of it at a glance (`glance.py`), with nothing made
   of the row.
5. All else (and a row that these leave alone) goes the readable way: `decoder.py` and `cursor.py` make a message
   (`messages.py`), and the plan writes it out. All ways give the same bytes; tests hold them to it.

Promised:

- Bytes that do not parse raise `MalformedMessage`, messages at the wrong moment `UnexpectedMessage`, with tag, offset
  and LSN and never the content; nothing else is raised for what a server sends.
- The same change has the same id, and as long as catalog answers are the same the same bytes, whenever it is sent
  again.
- Nothing is held: not a transaction, not a row.

Of protocol version 1 everything is read. Not asked for, and refused: binary values, streaming of open transactions,
two-phase commit. What differs by server version:

| | since | here |
|---|---|---|
| option `messages`, logical messages | 14 | always on: they count as changes |
| a detached partition has its own name at once | 15 | before: when the publication is altered, or by a new stream |
| row filters, column lists of publications | 15 | a Relation message holds just the listed columns |
| empty transactions are not sent | 15 | before, a Begin may be followed by its Commit at once |
| option `origin` | 16 | as `source.origin` says; any, as before, delivers changes from elsewhere too |
| failover slots | 17 | nothing to do with the stream |
| generated columns, option of a publication | 18 | columns like others, where published |
"""
