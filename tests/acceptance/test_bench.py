"""The benchmarks run and count what they should; how fast anything is, is nowhere asserted."""

import importlib
import json
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

KINDS = ["recvlogical", "events", "run-100", "debezium"]
ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the benchmarks read /proc")


def bench(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "benchmarks", *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )


@pytest.fixture(scope="module")
def drained(tmp_path_factory):
    """One run of each kind of reader over both transports, on a workload of updates."""
    output = tmp_path_factory.mktemp("bench") / "results.json"
    readers = [argument for name in KINDS for argument in ("--only", name)]
    ended = bench("--workload", "W3", "--rows", "10000", "--runs", "1", "--unix", *readers, "--output", str(output))
    assert ended.returncode == 0, ended.stderr
    return ended, json.loads(output.read_text())


@pytest.fixture
def document(monkeypatch):
    monkeypatch.syspath_prepend(ROOT)  # the benchmarks are not installed
    return importlib.import_module("benchmarks.document")


@pytest.fixture
def chart(document):
    return importlib.import_module("benchmarks.chart")


def test_every_reader_is_measured_beside_pg_recvlogical_over_the_same_transport(drained):
    (result,) = drained[1]["drains"]
    names = [(reader["reader"], reader["transport"]) for reader in result["readers"]]
    assert [name for name in names if name[0] != "debezium"] == [
        (kind, transport) for transport in ("tcp", "unix") for kind in KINDS if kind != "debezium"
    ]
    for reader in result["readers"]:
        if "skipped" in reader:
            continue
        (run,) = reader["runs"]
        assert run["rows_per_second"] > 0
        assert run["cpu_seconds"]["walsender"]["user"] + run["cpu_seconds"]["walsender"]["system"] > 0
        assert run["peak_rss_bytes"] > 1_000_000
        assert (run["first_seconds"] is None) or 0 < run["first_seconds"] <= run["seconds"]
        assert (reader["ratio"]["middle"] == 1) is (reader["reader"] == "recvlogical")


def test_batches_have_the_size_that_was_asked_for(drained):
    (result,) = drained[1]["drains"]
    requests = {reader["reader"]: reader["runs"][0]["requests"] for reader in result["readers"] if "runs" in reader}
    assert requests["recvlogical"] is None
    assert 100 <= requests["run-100"] < 1000


def test_the_table_names_each_reader_and_the_facts_are_kept(drained):
    ended, document = drained
    assert "pg_recvlogical to the null device" in ended.stdout
    assert "pgbridge run, 100 events a request" in ended.stdout
    assert document["environment"]["postgres"]
    assert document["environment"]["cores"] >= 1


@pytest.fixture(scope="module")
def smaller(tmp_path_factory):
    """Latency and single calls, a few of each."""
    output = tmp_path_factory.mktemp("bench") / "results.json"
    ended = bench(
        *("--workload", "latency", "--workload", "calls", "--rows", "1000", "--runs", "1", "--output", str(output))
    )
    assert ended.returncode == 0, ended.stderr
    return {figure["title"]: figure for figure in json.loads(output.read_text())["figures"]}


def test_calls_are_measured_beside_the_bare_library(smaller):
    assert smaller["pgbridge run, webhook"]["against"] == "aiohttp alone"
    assert smaller["pgbridge run, Lambda"]["against"] == "boto3 invoke alone"
    for title in ("pgbridge run, webhook", "pgbridge run, Lambda"):
        figure = smaller[title]
        assert figure["ratio"] == pytest.approx(figure["middle"] / smaller[figure["against"]]["middle"])
        assert figure["client_us"] > 0


def test_latency_is_from_commit_to_receipt(smaller):
    for title in ("pgbridge run, batches", "pgbridge run, one event a request"):
        p50, p99, most = (smaller[f"{title}, {name}"]["middle"] for name in ("p50", "p99", "max"))
        assert 0 < p50 <= p99 <= most


def test_debezium_is_skipped_in_words_unless_it_is_asked_for(drained):
    assert "it is measured with --debezium" in " ".join(drained[0].stdout.split())
    (result,) = drained[1]["drains"]
    (debezium,) = (reader for reader in result["readers"] if reader["reader"] == "debezium")
    assert "runs" not in debezium


def test_an_unknown_workload_is_refused_in_a_sentence():
    ended = bench("--workload", "W9")
    assert ended.returncode == 2
    assert "W9 is none of W1, W2, W3" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_the_document_takes_the_figures_between_its_marks(drained, document):
    text = document.DOCUMENT.read_text(encoding="utf-8")
    written = document.replaced(text, document.figures(drained[1]))
    assert written.startswith(text.partition(document.BEGIN)[0])
    assert "| pgbridge run, 100 events a request | unix |" in written
    assert "Skipped: Debezium" in written
    assert document.replaced(written, document.figures(drained[1])) == written


def test_a_document_without_marks_is_refused(document):
    with pytest.raises(ValueError, match="figures: begin"):
        document.replaced("# Performance\n", "")


def test_the_chart_has_a_bar_for_each_reader_of_the_transport(drained, chart):
    svg = ET.fromstring(chart.ratios(drained[1]["drains"]))
    texts = [element.text for element in svg.iter("{http://www.w3.org/2000/svg}text")]
    assert texts.count("pg_recvlogical to the null device") == 1
    assert texts.count("pgbridge run, 100 events a request") == 1
