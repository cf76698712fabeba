"""The benchmarks run and count what they should; how fast anything is, is nowhere asserted."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the benchmarks read /proc")


def bench(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "benchmarks", *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )


@pytest.fixture(scope="module")
def drained(tmp_path_factory):
    """One run of each reader over both transports, on a workload of updates."""
    output = tmp_path_factory.mktemp("bench") / "results.json"
    ended = bench("--workload", "W3", "--rows", "10000", "--runs", "1", "--unix", "--output", str(output))
    assert ended.returncode == 0, ended.stderr
    return ended, json.loads(output.read_text())


def test_every_reader_is_measured_beside_pg_recvlogical_over_the_same_transport(drained):
    (result,) = drained[1]["drains"]
    names = [(reader["reader"], reader["transport"]) for reader in result["readers"]]
    kinds = ["recvlogical", "frames", "events", "run-1000", "run-100"]
    assert names == [(kind, transport) for transport in ("tcp", "unix") for kind in kinds]
    for reader in result["readers"]:
        (run,) = reader["runs"]
        assert run["rows_per_second"] > 0
        assert run["cpu_seconds"]["walsender"]["user"] + run["cpu_seconds"]["walsender"]["system"] > 0
        assert run["peak_rss_bytes"] > 1_000_000
        assert (reader["ratio"]["middle"] == 1) is (reader["reader"] == "recvlogical")


def test_batches_have_the_size_that_was_asked_for(drained):
    (result,) = drained[1]["drains"]
    requests = {reader["reader"]: reader["runs"][0]["requests"] for reader in result["readers"]}
    assert 10 <= requests["run-1000"] < requests["run-100"]
    assert requests["run-100"] >= 100


def test_the_table_names_each_reader_and_the_facts_are_kept(drained):
    ended, document = drained
    assert "pg_recvlogical to the null device" in ended.stdout
    assert "pgbridge run, 1000 events a request" in ended.stdout
    assert document["environment"]["postgres"]
    assert document["environment"]["cores"] >= 1


def test_an_unknown_workload_is_refused_in_a_sentence():
    ended = bench("--workload", "W9")
    assert ended.returncode == 2
    assert "W9 is none of W1, W2, W3" in ended.stderr
    assert "Traceback" not in ended.stderr
