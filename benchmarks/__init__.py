"""
Benchmarks: how fast a backlog drains, beside PostgreSQL's own reader on the same backlog.

`python -m benchmarks` prints a table and writes JSON under `benchmarks/results/`. Rates are meaningful as ratios to
`pg_recvlogical` in the same run: the limit is the walsender, and machines differ.
"""
