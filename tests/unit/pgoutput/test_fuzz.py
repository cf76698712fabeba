"""The fuzz target beside it: a few rounds in every run, a minute of them in the long form (`-m long`)."""

from __future__ import annotations

import importlib.util
import random
import sys
from pathlib import Path

import pytest


def _fuzz():
    spec = importlib.util.spec_from_file_location("fuzz", Path(__file__).with_name("fuzz.py"))
    module = importlib.util.module_from_spec(spec)
    sys.modules["fuzz"] = module
    spec.loader.exec_module(module)
    return module


fuzz = _fuzz()


def test_damaged_streams_end_in_protocol_errors_alone_and_both_ways_agree():
    endings = list(fuzz.rounds(1, most=1500))
    # A target that rejects everything, or nothing, would test nothing.
    assert 150 < sum(ending is None for ending in endings) < 1000


def test_undamaged_streams_are_read_to_their_end():
    for stream in fuzz.streams():
        events, ending = fuzz.read(stream, list(stream.frames), fuzz.GENERATED, fuzz.SHAPES)
        assert ending is None
        assert events


@pytest.mark.long
@pytest.mark.timeout(180)
def test_a_minute_of_damaged_streams():
    seed = random.SystemRandom().randrange(1 << 32)
    print(f"seed {seed}")
    assert sum(1 for _ in fuzz.rounds(seed, seconds=60)) > 1000
