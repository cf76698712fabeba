"""Trace headers in the forms that W3C and X-Ray define."""

from __future__ import annotations

import random
import re

from bridge.delivery.tracing import trace_headers


def test_both_headers_name_one_trace():
    w3c, xray = trace_headers(1_700_000_000.9, random.Random(1).getrandbits)
    match = re.fullmatch(r"00-([0-9a-f]{32})-([0-9a-f]{16})-01", w3c)
    other = re.fullmatch(r"Root=1-([0-9a-f]{8})-([0-9a-f]{24});Parent=([0-9a-f]{16})", xray)
    assert match[1] == other[1] + other[2]
    assert match[2] == other[3]
    assert int(other[1], 16) == 1_700_000_000


def test_an_id_of_zeros_is_none_and_so_never_sent():
    assert trace_headers(0.0, lambda bits: 0)[0].split("-")[2] == "0000000000000001"
