"""
Triggers: which changes, and in what shape. Pure.

Comes in: a trigger's settings. Goes out: whether a table and an operation are wanted (`tables.py`), whether an event
matches the filter patterns (`filter`), which columns stand in it and what orders it (`shape.py`), and the outer
form of what is sent (`envelope.py`).
"""
