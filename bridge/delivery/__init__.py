"""
Delivery: one `Target` protocol, a few targets.

In comes an `Invocation` (the exact bytes to send and the ids in them); out goes an `Outcome`, a value. A target
makes one call and never retries by itself; what an outcome means for the records is decided elsewhere (`decide.py`).

    target.py, outcome.py   the contract: what goes in, what comes out
    factory.py              settings to a target
    aws_lambda.py, http.py  the targets: what is sent, and what of it is looked up first
    identity.py, aws.py     secrets, tokens and AWS keys: fetched, kept, fetched again when refused
    http_client.py          the only caller: addresses judged, one POST, an `Answer` or a `NoAnswer`
    classify.py             the delivery table; pure, with answer.py, batch_response.py and lambda_errors.py
    signing.py, sigv4.py    signatures over the exact bytes; pure
    addresses.py, retry.py  what is never called, how long to wait; pure
    decide.py, circuit.py   an outcome to a decision; when a target counts as down; pure
    call.py                 one attempt at a batch, of live delivery and of a replay
    dispatch.py, books.py   a trigger's batches, calls and settlements; what it has in hand
    backlog.py, parking.py  what of it is in the table; when it goes there, and how it comes back
    budget.py               the memory of all triggers together
"""
