"""
Benchmarks: how fast a backlog drains, beside PostgreSQL's own reader on the same backlog; and what one event costs.

`python -m benchmarks` starts a server of its own, prints a table for each workload, and writes JSON under
`benchmarks/results/`. Each reader is a process of its own with a slot of its own, made before the workload was written:
all of them read the same WAL. They take turns (A B C A B C …), so that what else the machine does falls on all of them.

Rates mean something as ratios to `pg_recvlogical` over the same transport in the same run: the walsender is the limit,
and machines differ. One clock for everybody: a run begins when the server starts to stream (`query_start` of the
walsender) and ends when the last change is where it should be.

    workloads.py   what is in the slot when the readers start
    processes.py   child processes, and what the kernel knows of them: CPU, memory (Linux's /proc)
    walsender.py   the server's side of a run
    readers.py     what is measured: each way to drain a slot
    drain.py, receiver.py, calls.py, debezium.py   run as processes of their own
    latency.py     commit to receipt under a steady load
    results.py, report.py, chart.py   medians, tables, JSON, docs/performance.md
"""
