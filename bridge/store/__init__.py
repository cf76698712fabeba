"""
The tables we own: progress and dead letters, in the source database or another one.

Comes in: the watermark of each trigger and the letters that it passes. Goes out: the same after a restart.
Promises: stored positions never move back; a dead letter and the checkpoint that passes it commit in one
transaction; a process that lost its claim can't write (epoch fencing).
"""
