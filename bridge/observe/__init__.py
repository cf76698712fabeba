"""
What can be seen from outside: log events, metrics, health and the status of the service.

Comes in: events named in `log.py`, and a status snapshot (`status.py`) that the service makes when asked. Goes out:
lines on stderr, `/metrics`, `/healthz`. Promise 8 holds throughout: positions, tables, counts and sizes do get here,
row values never.
"""
