"""One of two triggers is down for a whole load. The figures of a large one: `make chaos ARGS='--outage 500000'`."""

from __future__ import annotations

import pytest
from chaos import outage


@pytest.mark.long
@pytest.mark.timeout(1800)
async def test_an_outage_fills_neither_the_slot_nor_the_memory_and_everything_arrives_in_order(tmp_path):
    figures = await outage.measure(120_000, 4000, tmp_path)
    beside = figures["beside"]
    assert beside.most_unconfirmed_bytes <= outage.AFTER_WAL_BYTES + outage.SEGMENT_BYTES
    assert beside.most_retained_bytes <= outage.AFTER_WAL_BYTES + outage.SEGMENT_BYTES or not beside.restart_follows
    assert beside.most_rss_bytes < outage.MOST_RSS_BYTES
