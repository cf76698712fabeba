"""
A steady load: single-row commits at a fixed rate, each waited for.

    python -m benchmarks.writer DSN COMMITS_PER_SECOND COMMITS

Prints one line of JSON: the rate that was reached.
"""

from __future__ import annotations

import json
import sys
import time

import psycopg


def main() -> None:
    dsn, rate, commits = sys.argv[1], float(sys.argv[2]), int(sys.argv[3])
    with psycopg.connect(dsn, autocommit=True) as connection:
        # Off, the walsender would wait for the WAL writer, and every reader with it.
        connection.execute("SET synchronous_commit = on")
        insert = "INSERT INTO bench (id, customer, status, note) VALUES (%s, 1, 'new', 'a note')"
        began = time.monotonic()
        for number in range(commits):
            # By the clock, not by the pause: a late commit does not move the ones after it.
            early = began + number / rate - time.monotonic()
            if early > 0:
                time.sleep(early)
            connection.execute(insert, (number,))
        seconds = time.monotonic() - began
    print(json.dumps({"commits_per_second": commits / seconds}))


if __name__ == "__main__":
    main()
