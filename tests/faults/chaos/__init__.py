"""
Whether anything is lost: a real PostgreSQL, real `pgbridge run` processes, a receiver that writes down what it took
before it answers, and whatever can go wrong between them.

    workload.py    what is committed meanwhile: 16 writers, COPY, hot rows, changes of key, roll-backs
    truth.py       what was committed, read from a slot of its own by a decoder of its own; shares no code with bridge/
    ledger.py      what arrived, in the order in which it was acknowledged
    reconcile.py   the one against the other: lost, reordered, altered, repeated, confirmed too early
    rig.py         servers, processes and proxies of one run
    watch.py       looks at the slot while it runs
    faults.py      what goes wrong: each a coroutine on the rig
    quiet.py       the same with nothing else committed, for what has to show every time
    outage.py      one of two triggers down for a whole load: throughput, WAL, memory, order
    launcher.py    `pgbridge` with `points.py` (die at a named point) or `lies.py` (a fault planted in our own code)
    __main__.py    `make chaos`

A reconciliation that can't fail shows nothing, so `test_lies.py` plants faults in bridge/ and wants each one caught.
The code under test has no hooks for any of this: the launcher wraps its methods from outside, before it starts.
"""
