"""
Delivery: one `Target` protocol, a few targets.

In comes an `Invocation` (the exact bytes to send and the ids in them); out goes an `Outcome`, a value. A target
makes one call and never retries by itself; what an outcome means for the records is decided elsewhere (`batching`).
"""
