"""Connection strings: read, completed, never told."""

from __future__ import annotations

from pathlib import Path

import pytest

from bridge import dsn as dsns
from bridge.errors import ConfigError


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    for name in ("PGSSLMODE", "PGREQUIRESSL", "PGSERVICE", "PGHOST", "PGHOSTADDR", "PGOPTIONS", "PGSSLROOTCERT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))


def complete(dsn: str, **options: str) -> dict[str, str]:
    return dsns.complete(dsn, application_name="test", options=options)


@pytest.mark.parametrize("dsn", ["hunter2", "password=hunter2 x", "postgresql://u:p@h:hunter2/d", "nonsense=hunter2"])
def test_error_quotes_nothing_of_the_dsn(dsn: str):
    with pytest.raises(ConfigError) as caught:
        complete(dsn)
    assert "hunter2" not in str(caught.value)
    assert caught.value.__context__ is None or caught.value.__suppress_context__


def test_error_names_the_setting():
    with pytest.raises(ConfigError, match=r"store\.dsn"):
        dsns.complete("nonsense", application_name="x", setting="store.dsn")


@pytest.mark.parametrize(
    "dsn",
    [
        "",
        "host=/var/run/postgresql",
        "host=@abstract",
        "postgresql://localhost/d",
        "postgresql://127.0.0.1/d",
        "postgresql://[::1]/d",
        "host=db.example.com hostaddr=127.0.0.1",
        "postgresql://localhost,127.0.0.2/d",
    ],
)
def test_this_machine_needs_no_certificate(dsn: str):
    assert "sslmode" not in complete(dsn)


@pytest.mark.parametrize(
    "dsn", ["postgresql://db.example.com/d", "postgresql://10.0.0.5/d", "postgresql://localhost,db/d"]
)
def test_any_other_server_has_to_show_one(dsn: str):
    parameters = complete(dsn)
    assert parameters["sslmode"] == "verify-full"
    assert parameters["sslrootcert"] == "system" or Path(parameters["sslrootcert"]).exists()


@pytest.mark.parametrize("mode", ["disable", "require", "prefer"])
def test_word_of_the_dsn_on_tls_is_the_last(mode: str):
    parameters = complete(f"postgresql://db.example.com/d?sslmode={mode}")
    assert parameters["sslmode"] == mode
    assert "sslrootcert" not in parameters


def test_word_of_the_environment_on_tls_counts(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PGSSLMODE", "disable")
    assert "sslmode" not in complete("postgresql://db.example.com/d")


def test_host_of_the_environment_counts(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PGHOST", "db.example.com")
    assert complete("dbname=d")["sslmode"] == "verify-full"


def test_verification_that_was_asked_for_finds_the_systems_authorities():
    assert "sslrootcert" in complete("postgresql://db.example.com/d?sslmode=verify-full")


def test_certificate_of_the_user_is_kept(tmp_path: Path):
    assert complete("postgresql://db/d?sslrootcert=/x.pem")["sslrootcert"] == "/x.pem"
    (tmp_path / ".postgresql").mkdir()
    (tmp_path / ".postgresql" / "root.crt").touch()
    assert "sslrootcert" not in complete("postgresql://db/d")


def test_service_may_say_it_all():
    assert "sslmode" not in complete("service=shop")


def test_link_that_dies_is_found_within_half_a_minute():
    parameters = complete("postgresql://localhost/d")
    idle = int(parameters["keepalives_idle"])
    assert idle + int(parameters["keepalives_interval"]) * int(parameters["keepalives_count"]) <= 30
    assert int(parameters["tcp_user_timeout"]) <= 30_000


def test_liveness_of_the_dsn_wins():
    parameters = complete("postgresql://localhost/d?keepalives_idle=99&tcp_user_timeout=0&keepalives=0")
    assert (parameters["keepalives_idle"], parameters["tcp_user_timeout"], parameters["keepalives"]) == ("99", "0", "0")


def test_pinned_settings_come_after_those_of_the_dsn():
    parameters = complete("host=localhost options='-c datestyle=German -c work_mem=1MB'", datestyle="ISO, MDY")
    assert parameters["options"] == "-c datestyle=German -c work_mem=1MB -c datestyle=ISO,\\ MDY"


def test_pinned_settings_come_after_those_of_the_environment(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PGOPTIONS", "-c work_mem=1MB")
    assert complete("host=localhost", timezone="UTC")["options"] == "-c work_mem=1MB -c timezone=UTC"


def test_application_name_of_the_dsn_stays():
    parameters = complete("host=localhost application_name=mine")
    assert (parameters["application_name"], parameters["fallback_application_name"]) == ("mine", "test")
