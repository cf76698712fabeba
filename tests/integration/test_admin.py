"""The admin port over real HTTP: who may ask, what is answered, and the operator's page in a browser."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

import aiohttp
import pytest
import pytest_asyncio
from prometheus_client.parser import text_string_to_metric_families

from bridge.config import AdminSettings
from bridge.console import Actions, AdminServer, build_admin
from bridge.errors import ConfigError, StoreError
from bridge.lsn import LSN
from bridge.observe.metrics import Metrics
from bridge.observe.status import ServiceState, ServiceStatus, SlotStatus, TriggerMode, TriggerState, TriggerStatus
from bridge.secret import SecretResolver
from bridge.store.memory import MemoryStore
from bridge.store.protocol import DeadLetter, SourceIdentity

NOW = 1_790_000_000.0
EVENT = b'{"id":"0000000001A2B3C0-0000000003","record":{"id":9007199254740993,"balance":"12.50"}}'

STATUS = ServiceStatus(
    ServiceState.STREAMING,
    version="0.1.0",
    started_at=NOW - 60,
    slot=SlotStatus("pgbridge", wal_status="reserved", retained_bytes=4096),
    received_lsn=LSN.parse("16/B374D900"),
    confirmed_lsn=LSN.parse("16/B374D848"),
    last_message_at=NOW - 1,
    polled_changes=7,
    triggers=(
        TriggerStatus("email", "lambda:welcome", delivered=5, lag_seconds=0.5, dead_letters=0),
        TriggerStatus("hook", "https://api.example.com", TriggerState.PAUSED, "HTTP 401; check auth", dead_letters=2),
        TriggerStatus("off", "lambda:off", TriggerState.DISABLED),
    ),
)


def letter(ordinal: int, **changes: object) -> DeadLetter:
    failed = datetime(2026, 11, 22, 8, ordinal, tzinfo=UTC)
    defaults = {
        "trigger": "hook",
        "event_id": f"0000000001A2B3C0-{ordinal:010d}",
        "table": "shop.orders",
        "event": EVENT,
        "error": "HTTP 422",
        "detail": "total must be positive",
        "status": 422,
        "attempts": 3,
        "first_failed_at": failed,
        "last_failed_at": failed,
        "request_id": "r-1",
        "log_tail": "END",
    }
    return DeadLetter(**{**defaults, **changes})


class Bench:
    """One admin server, what stands behind it, and a client."""

    def __init__(self) -> None:
        self.status = STATUS
        self.store = MemoryStore()
        self.called: list[tuple[str, object]] = []
        self.replay_failure: str | None = None
        self.actions = Actions(
            pause=lambda name: self.called.append(("pause", name)),
            resume=self._resume,
            replay=self._replay,
        )
        self.url = ""
        self.session: aiohttp.ClientSession

    async def _resume(self, name: str) -> None:
        self.called.append(("resume", name))

    async def _replay(self, number: int) -> str | None:
        self.called.append(("replay", number))
        if self.replay_failure is None:
            await self.store.discard_letters([number])
        return self.replay_failure

    async def get(self, path: str, **options: object):
        return await self._ask("GET", path, **options)

    async def post(self, path: str, **options: object):
        return await self._ask("POST", path, **options)

    async def _ask(self, method: str, path: str, **options: object):
        async with self.session.request(method, self.url.rstrip("/") + path, **options) as response:
            body = await response.read()
            is_json = response.content_type == "application/json"
            return response, (json.loads(body) if is_json else body)


@asynccontextmanager
async def admin(bench: Bench | None = None, *, secrets: SecretResolver | None = None, **settings: object):
    bench = bench or Bench()
    configured = AdminSettings(**{"listen": "127.0.0.1:0", **settings})
    await bench.store.claim(SourceIdentity("pgbridge", "7", 1, "shop"))
    await bench.store.save(
        LSN(1),
        {},
        [letter(1), letter(2, error="HTTP 500", status=500), letter(3, trigger="email", table="public.users")],
    )
    app = build_admin(
        configured,
        snapshot=lambda: bench.status,
        metrics=Metrics(lambda: bench.status),
        store=bench.store,
        slot="pgbridge",
        secrets=secrets or SecretResolver(),
        actions=bench.actions,
        now=lambda: NOW,
    )
    server = await AdminServer.start(app, configured.address)
    async with aiohttp.ClientSession() as bench.session:
        bench.url = server.url
        try:
            yield bench
        finally:
            await server.close()


class TestHealth:
    async def test_a_streaming_process_is_alive_and_ready(self):
        async with admin() as bench:
            for path in ("/healthz", "/readyz"):
                response, body = await bench.get(path)
                assert (response.status, body) == (200, {"ok": True})

    async def test_a_lost_slot_fails_both_and_says_why(self):
        async with admin() as bench:
            bench.status = dataclasses.replace(STATUS, slot=SlotStatus("pgbridge", wal_status="lost"))
            for path in ("/healthz", "/readyz"):
                response, body = await bench.get(path)
                assert response.status == 503
                assert "slot pgbridge is lost" in body["reasons"][0]

    async def test_a_process_that_stands_by_is_alive_but_not_ready(self):
        async with admin() as bench:
            bench.status = dataclasses.replace(STATUS, state=ServiceState.STANDING_BY, reason="slot in use by pid 7")
            assert (await bench.get("/healthz"))[0].status == 200
            response, body = await bench.get("/readyz")
            assert (response.status, body["reasons"]) == (503, ["standing by: slot in use by pid 7"])

    async def test_a_process_that_delivers_nothing_pauses_and_resumes_nothing(self):
        for state in (ServiceState.STARTING, ServiceState.STANDING_BY):
            async with admin() as bench:
                bench.status = dataclasses.replace(STATUS, state=state)
                for action in ("pause", "resume"):
                    response, body = await bench.post(f"/api/triggers/email/{action}")
                    assert response.status == 409
                    assert "at the one that reads the slot" in body["error"]
                assert bench.called == []

    async def test_paused_triggers_do_not_fail_it(self):
        async with admin() as bench:
            assert bench.status.triggers[1].state is TriggerState.PAUSED
            assert (await bench.get("/readyz"))[0].status == 200

    async def test_without_the_token_it_answers_but_gives_no_reasons(self):
        async with admin(token="t0ken") as bench:
            bench.status = dataclasses.replace(STATUS, state=ServiceState.STOPPED, reason="slot lost")
            response, body = await bench.get("/healthz")
            assert (response.status, body) == (503, {"ok": False})
            response, body = await bench.get("/healthz", headers={"Authorization": "Bearer t0ken"})
            assert body["reasons"] == ["stopped: slot lost"]


class TestWhoMayAsk:
    async def test_a_name_that_was_rebound_to_loopback_is_refused(self):
        async with admin() as bench:
            for host in (
                "evil.example.com",
                "evil.example.com:8765",
                "127.0.0.1.evil.example.com",
                "localhost.evil.com",
            ):
                for path in ("/api/status", "/", "/metrics", "/healthz"):
                    response, _ = await bench.get(path, headers={"Host": host})
                    assert response.status == 421, (host, path)

    async def test_this_machine_under_any_of_its_names_is_answered(self):
        async with admin() as bench:
            for host in ("localhost", "localhost:9999", "127.0.0.1:1", "[::1]:8765", "127.8.8.8"):
                assert (await bench.get("/api/status", headers={"Host": host}))[0].status == 200

    @pytest.mark.parametrize(
        "headers",
        [
            {"Origin": "https://evil.example.com"},
            {"Origin": "null"},
            {"Origin": "http://localhost:1"},
            {"Sec-Fetch-Site": "cross-site"},
            {"Sec-Fetch-Site": "same-site"},
        ],
    )
    async def test_a_page_of_another_origin_can_change_nothing(self, headers):
        async with admin() as bench:
            for path in ("/api/triggers/email/pause", "/api/dead-letters/1/discard", "/api/dead-letters/1/replay"):
                assert (await bench.post(path, headers=headers))[0].status == 403
            assert bench.called == []
            assert (await bench.get("/api/dead-letters"))[1]["total"] == 3

    async def test_the_page_itself_and_plain_clients_can(self):
        async with admin() as bench:
            origin = bench.url.rstrip("/")
            for headers in ({}, {"Origin": origin, "Sec-Fetch-Site": "same-origin"}):
                assert (await bench.post("/api/triggers/email/pause", headers=headers))[0].status == 200

    @pytest.mark.parametrize(
        "header", [None, "Bearer wrong", "Bearer", "Basic t0ken", "Bearer t0ken2", "t0ken", "Bearer \u00e9"]
    )
    async def test_with_a_token_nothing_but_the_token_opens(self, header):
        async with admin(token="t0ken") as bench:
            headers = {} if header is None else {"Authorization": header}
            for path in ("/api/status", "/metrics", "/api/dead-letters", "/api/dead-letters/1", "/nope"):
                response, body = await bench.get(path, headers=headers)
                assert response.status == 401
                assert response.headers["WWW-Authenticate"].startswith("Bearer")
                assert "hook" not in json.dumps(body)
            assert (await bench.post("/api/dead-letters/1/discard", headers=headers))[0].status == 401

    async def test_the_token_opens_under_any_host_name(self):
        async with admin(token="t0ken") as bench:
            headers = {"Authorization": "Bearer t0ken", "Host": "pgbridge.internal"}
            assert (await bench.get("/api/status", headers=headers))[0].status == 200
            assert (await bench.get("/", headers={"Host": "pgbridge.internal"}))[0].status == 200

    async def test_a_rotated_token_is_taken_up(self, tmp_path):
        (tmp_path / "token").write_text("old")
        async with admin(token=f"file:{tmp_path}/token") as bench:
            assert (await bench.get("/api/status", headers={"Authorization": "Bearer old"}))[0].status == 200
            (tmp_path / "token").write_text("new")
            assert (await bench.get("/api/status", headers={"Authorization": "Bearer new"}))[0].status == 200
            assert (await bench.get("/api/status", headers={"Authorization": "Bearer old"}))[0].status == 401

    async def test_wrong_tokens_do_not_make_us_ask_for_the_right_one_each_time(self, tmp_path):
        class Counting(SecretResolver):
            fresh = 0

            async def fetch(self, secret, *, fresh=False):
                self.fresh += fresh
                return await super().fetch(secret, fresh=fresh)

        (tmp_path / "token").write_text("right")
        secrets = Counting()
        async with admin(token=f"file:{tmp_path}/token", secrets=secrets) as bench:
            for _ in range(5):
                assert (await bench.get("/api/status", headers={"Authorization": "Bearer wrong"}))[0].status == 401
            assert secrets.fresh == 1

    def test_listening_beyond_this_machine_takes_a_token(self):
        with pytest.raises(ValueError, match=r"it is required because admin\.listen is 0\.0\.0\.0:0"):
            AdminSettings(listen="0.0.0.0:0")
        unchecked = AdminSettings.model_construct(listen="0.0.0.0:0", token=None)
        with pytest.raises(ConfigError, match=r"admin\.token is not set"):
            build_admin(
                unchecked,
                snapshot=lambda: STATUS,
                metrics=Metrics(),
                store=MemoryStore(),
                slot="s",
                secrets=SecretResolver(),
            )


class TestAnswers:
    async def test_the_status_is_the_snapshot(self):
        async with admin() as bench:
            _, body = await bench.get("/api/status")
            assert ServiceStatus.from_json(body) == STATUS
            assert body["received_lsn"] == "16/B374D900"
            assert body["health"] == {"live": True, "ready": True, "reasons": []}
            assert body["actions"] == {"pause": True, "resume": True, "replay": True, "discard": True}

    async def test_metrics_are_in_the_format_that_prometheus_reads(self):
        async with admin() as bench:
            response, body = await bench.get("/metrics")
            assert response.headers["Content-Type"].startswith("text/plain; version=0.0.4")
            families = {family.name: family for family in text_string_to_metric_families(body.decode())}
            samples = {(s.name, s.labels.get("trigger")): s.value for f in families.values() for s in f.samples}
            assert samples["pgbridge_invoked_events_total", "email"] == 5
            assert samples["pgbridge_trigger_paused", "hook"] == 1
            assert samples["pgbridge_iterator_age_seconds", "email"] == 0.5
            assert samples["pgbridge_confirmed_lsn", None] == LSN.parse("16/B374D848")

    async def test_every_answer_carries_the_security_headers(self):
        async with admin() as bench:
            for path in ("/", "/api/status", "/nope", "/api/dead-letters/99", "/console.js"):
                response, _ = await bench.get(path)
                assert "default-src 'none'" in response.headers["Content-Security-Policy"]
                assert "unsafe" not in response.headers["Content-Security-Policy"]
                assert response.headers["X-Content-Type-Options"] == "nosniff"
                assert response.headers["X-Frame-Options"] == "DENY"
                assert response.headers["Server"] == "pgbridge"
                assert response.headers["Cache-Control"] in ("no-store", "no-cache")

    async def test_what_is_not_there_is_json_too(self):
        async with admin() as bench:
            response, body = await bench.get("/nope")
            assert (response.status, set(body)) == (404, {"error"})
            response, body = await bench.post("/api/status")
            assert response.status == 405
            assert "GET" in response.headers["Allow"]

    async def test_a_store_that_is_down_is_said_in_a_sentence(self):
        bench = Bench()
        async with admin(bench):

            async def down(*_arguments, **_options):
                raise StoreError("the store does not answer")

            bench.store.letters = down
            response, body = await bench.get("/api/dead-letters/1")
            assert (response.status, body) == (503, {"error": "the store does not answer"})

    async def test_a_bug_shows_no_details(self, monkeypatch):
        bench = Bench()
        async with admin(bench):

            async def broken(*_arguments, **_options):
                raise RuntimeError("row value: hunter2")

            logged = []
            monkeypatch.setattr(
                "bridge.console.app.log.exception", lambda event, **fields: logged.append((event, fields))
            )
            bench.store.letters = broken
            response, body = await bench.get("/api/dead-letters/1")
            assert (response.status, body) == (500, {"error": "an internal error; the log has more"})
            assert logged == [("admin request", {"path": "/api/dead-letters/1"})]


class TestDeadLetters:
    async def test_the_list_has_what_the_command_prints_and_no_row(self):
        async with admin() as bench:
            response, body = await bench.get("/api/dead-letters")
            assert response.status == 200
            assert [item["event_id"][-1] for item in body["letters"]] == ["1", "2", "3"]
            assert set(body["letters"][0]) == {
                "id", "trigger", "event_id", "table", "error", "status", "attempts",
                "first_failed_at", "last_failed_at", "request_id", "log_tail",
            }  # fmt: skip
            assert (body["total"], body["more"], body["by_trigger"]) == (3, False, {"hook": 2, "email": 1})
            assert "12.50" not in json.dumps(body)

    @pytest.mark.parametrize(
        ("query", "ordinals"),
        [
            ("trigger=email", ["3"]),
            ("error=http 5", ["2"]),
            ("table=shop.orders", ["1", "2"]),
            ("since=2026-11-22T08:02:00Z", ["2", "3"]),
            ("since=2026-11-22T08:02:00", ["2", "3"]),
            ("trigger=&error=", ["1", "2", "3"]),
            ("trigger=none", []),
        ],
    )
    async def test_they_can_be_chosen(self, query, ordinals):
        async with admin() as bench:
            _, body = await bench.get(f"/api/dead-letters?{query}")
            assert [item["event_id"][-1] for item in body["letters"]] == ordinals
            assert body["total"] == len(ordinals)

    async def test_a_long_list_is_cut_and_says_so(self):
        async with admin() as bench:
            _, body = await bench.get("/api/dead-letters?limit=2")
            assert (len(body["letters"]), body["more"], body["total"]) == (2, True, 3)

    @pytest.mark.parametrize("query", ["limit=0", "limit=501", "limit=x", "since=yesterday", "nope=1"])
    async def test_a_wrong_choice_is_refused(self, query):
        async with admin() as bench:
            response, body = await bench.get(f"/api/dead-letters?{query}")
            assert response.status == 400
            assert query.split("=")[0] in body["error"]

    async def test_letters_of_another_slot_are_not_shown(self):
        bench = Bench()
        async with admin(bench):
            other = MemoryStore(bench.store.tables)
            await other.claim(SourceIdentity("other", "7", 1, "shop"))
            await other.save(LSN(1), {}, [letter(9)])
            _, body = await bench.get("/api/dead-letters")
            assert body["total"] == 3
            assert (await bench.get("/api/dead-letters/4"))[0].status == 404
            assert (await bench.post("/api/dead-letters/4/discard"))[0].status == 404

    async def test_one_is_shown_whole_with_the_bytes_of_its_event(self):
        async with admin() as bench:
            _, body = await bench.get("/api/dead-letters/1")
            assert (body["event"]["record"]["balance"], body["detail"]) == ("12.50", "total must be positive")
            async with bench.session.get(bench.url + "api/dead-letters/1/event") as response:
                assert await response.read() == EVENT

    async def test_a_replayed_one_is_gone(self):
        async with admin() as bench:
            response, body = await bench.post("/api/dead-letters/1/replay")
            assert (response.status, body) == (200, {"delivered": True, "error": None})
            assert bench.called == [("replay", 1)]
            assert (await bench.get("/api/dead-letters"))[1]["total"] == 2

    async def test_one_whose_replay_fails_stays_and_says_why(self):
        async with admin() as bench:
            bench.replay_failure = "HTTP 422 again"
            _, body = await bench.post("/api/dead-letters/1/replay")
            assert body == {"delivered": False, "error": "HTTP 422 again"}
            assert (await bench.get("/api/dead-letters"))[1]["total"] == 3

    async def test_a_discarded_one_is_gone(self):
        async with admin() as bench:
            assert (await bench.post("/api/dead-letters/2/discard"))[1] == {"discarded": 1}
            assert (await bench.get("/api/dead-letters/2"))[0].status == 404
            assert (await bench.post("/api/dead-letters/2/discard"))[0].status == 404


class TestTriggers:
    async def test_they_are_paused_and_resumed(self):
        async with admin() as bench:
            assert (await bench.post("/api/triggers/email/pause"))[0].status == 200
            assert (await bench.post("/api/triggers/hook/resume"))[0].status == 200
            assert bench.called == [("pause", "email"), ("resume", "hook")]

    async def test_an_unknown_or_disabled_one_is_refused(self):
        async with admin() as bench:
            assert (await bench.post("/api/triggers/nope/pause"))[0].status == 404
            response, body = await bench.post("/api/triggers/off/resume")
            assert response.status == 409
            assert "enabled: true" in body["error"]
            assert bench.called == []

    async def test_what_the_process_can_not_do_is_said_and_not_offered(self):
        bench = Bench()
        bench.actions = Actions()
        async with admin(bench):
            for path in ("/api/triggers/email/pause", "/api/triggers/email/resume", "/api/dead-letters/1/replay"):
                assert (await bench.post(path))[0].status == 501
            _, body = await bench.get("/api/status")
            assert body["actions"] == {"pause": False, "resume": False, "replay": False, "discard": True}


class TestThePort:
    async def test_an_address_in_use_is_a_config_error_that_names_the_setting(self):
        async with admin() as bench:
            port = bench.url.rstrip("/").rpartition(":")[2]
            with pytest.raises(ConfigError, match=rf"admin.listen is 127.0.0.1:{port}, .*Address already in use"):
                async with admin(listen=f"127.0.0.1:{port}"):
                    pytest.fail("two servers on one port")

    async def test_it_listens_on_ipv6_loopback(self):
        async with admin(listen="[::1]:0") as bench:
            assert bench.url.startswith("http://[::1]:")
            assert (await bench.get("/healthz"))[0].status == 200


class TestThePage:
    async def test_it_comes_whole_from_this_port(self):
        async with admin() as bench:
            _, page = await bench.get("/")
            text = page.decode()
            assert not re.search(r"(?:src|href)=\"(?:https?:)?//", text)
            assert not re.search(r"<style|style=|onclick=|<script>", text)
            for name in re.findall(r"(?:src|href)=\"([^\"#]+)\"", text):
                response, _ = await bench.get(f"/{name}")
                assert response.status == 200, name

    async def test_unchanged_files_are_not_sent_again(self):
        async with admin() as bench:
            response, _ = await bench.get("/console.js")
            again, body = await bench.get("/console.js", headers={"If-None-Match": response.headers["ETag"]})
            assert (again.status, body) == (304, b"")

    def test_its_files_are_packaged(self):
        configured = Path("pyproject.toml").read_text()
        assert "console/static/*" in configured


CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = [
    "--no-sandbox",  # as root
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
]


@pytest_asyncio.fixture(scope="class", loop_scope="class")
async def browser():
    if CHROMIUM is None:
        pytest.skip("this machine has no Chromium")
    playwright = pytest.importorskip("playwright.async_api", reason="playwright is not installed")
    async with playwright.async_playwright() as tools:
        launched = await tools.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield launched
        await launched.close()


@asynccontextmanager
async def opened(browser, **context: object):
    """A fresh page, with what it complained about in `problems`."""
    made = await browser.new_context(**context)
    page = await made.new_page()
    page.problems = []
    page.on("pageerror", lambda error: page.problems.append(str(error)))
    page.on("console", lambda said: page.problems.append(said.text) if said.type in ("error", "warning") else None)
    yield page
    await made.close()


@pytest.mark.asyncio(loop_scope="class")
class TestInABrowser:
    async def test_an_operator_sees_the_state_and_acts_on_it(self, browser):
        async with admin() as bench, opened(browser) as page:
            await page.goto(bench.url)
            await page.get_by_text("streaming", exact=True).wait_for()
            await page.get_by_text("HTTP 401; check auth").wait_for()
            await page.get_by_role("button", name="Pause email").click()
            await page.get_by_text("email is paused; its changes wait.").wait_for()
            assert bench.called == [("pause", "email")]
            await page.get_by_role("button", name="Show dead letter 1").click()
            dialog = page.get_by_role("dialog", name="Dead letter 1")
            await dialog.get_by_text("2026-11-22 08:01:00Z").first.wait_for()
            # Past 2^53: a page that parsed it would show …992.
            await dialog.get_by_text("9007199254740993").wait_for()
            await dialog.get_by_role("button", name="Close").click()
            await page.get_by_role("button", name="Replay dead letter 1").click()
            await page.get_by_text("was delivered to hook").wait_for()
            await page.get_by_role("button", name="Discard dead letter 2").click()
            await page.get_by_role("dialog").get_by_role("button", name="Discard").click()
            await page.get_by_text("Dead letter 2 was discarded.").wait_for()
            assert (await bench.get("/api/dead-letters"))[1]["total"] == 1
            assert page.problems == []

    async def test_a_discard_that_is_not_confirmed_does_nothing(self, browser):
        async with admin() as bench, opened(browser) as page:
            await page.goto(bench.url)
            await page.get_by_role("button", name="Discard dead letter 2").click()
            await page.get_by_role("dialog").get_by_role("button", name="Cancel").click()
            await page.get_by_role("dialog").wait_for(state="hidden")
            assert (await bench.get("/api/dead-letters"))[1]["total"] == 3

    async def test_text_from_a_target_is_never_markup(self, browser):
        bench = Bench()
        async with admin(bench), opened(browser) as page:
            evil = "<img src=x onerror=alert(1)><script>alert(2)</script>"
            await bench.store.save(
                LSN(2), {}, [letter(4, error=evil, detail=evil, event=json.dumps({"x": evil}).encode())]
            )
            page.on("dialog", lambda dialog: page.problems.append(dialog.message))
            await page.goto(bench.url)
            await page.get_by_text(evil).first.wait_for()
            await page.get_by_role("button", name="Show dead letter 4").click()
            await page.get_by_role("dialog").get_by_text(evil).first.wait_for()
            assert await page.locator("img").count() == 1  # the logo
            assert page.problems == []

    async def test_the_token_is_asked_for_and_remembered(self, browser):
        async with admin(token="t0ken") as bench, opened(browser) as page:
            await page.goto(bench.url)
            await page.get_by_label("Token", exact=True).fill("wrong")
            await page.get_by_role("button", name="Open").click()
            await page.get_by_text("The token was not accepted.").wait_for()
            await page.get_by_label("Token", exact=True).fill("t0ken")
            await page.get_by_role("button", name="Open").click()
            await page.get_by_text("welcome", exact=False).first.wait_for()
            await page.reload()
            await page.get_by_text("streaming", exact=True).wait_for()

    async def test_a_process_that_is_gone_is_said_and_found_again(self, browser):
        bench = Bench()
        async with opened(browser) as page:
            async with admin(bench):
                port = bench.url.rstrip("/").rpartition(":")[2]
                await page.goto(bench.url)
                await page.get_by_text("streaming", exact=True).wait_for()
            await page.get_by_text("pgbridge does not answer.", exact=False).wait_for()
            again = Bench()
            async with admin(again, listen=f"127.0.0.1:{port}"):
                await page.get_by_text("streaming", exact=True).wait_for()

    async def test_a_trigger_that_delivers_from_the_backlog_says_how_much_waits_there(self, browser):
        bench = Bench()
        late = TriggerStatus(
            "late", "lambda:late", mode=TriggerMode.BACKLOG, backlog_events=5_000_000, backlog_bytes=7 << 30
        )
        bench.status = dataclasses.replace(STATUS, triggers=(late,))
        async with admin(bench), opened(browser) as page:
            await page.goto(bench.url)
            row = page.get_by_role("row").filter(has_text="lambda:late")
            await row.get_by_text("5,000,000").wait_for()
            await row.get_by_text("7.0 GiB").wait_for()
            await row.get_by_text("Delivers from the backlog table", exact=False).wait_for()

    async def test_of_many_triggers_those_that_need_attention_are_one_click_away(self, browser):
        bench = Bench()
        well = [TriggerStatus(f"well-{number}", "lambda:well", dead_letters=0) for number in range(58)]
        ill = [
            TriggerStatus("halted", "lambda:halted", TriggerState.PAUSED, "HTTP 410", dead_letters=0),
            TriggerStatus("losing", "lambda:losing", dead_letters=4),
        ]
        bench.status = dataclasses.replace(STATUS, triggers=(*well, *ill))
        async with admin(bench), opened(browser) as page:
            await page.goto(bench.url)
            await page.get_by_text("59 running, 1 paused").wait_for()
            rows = page.locator("#triggers tbody tr")
            assert await rows.count() == 60
            await page.get_by_role("button", name="Show the 2 that need attention").click()
            assert [await row.locator(".name").inner_text() for row in await rows.all()] == ["halted", "losing"]
            await page.get_by_role("button", name="Show all 60").click()
            assert await rows.count() == 60

    async def test_a_process_that_stands_by_offers_no_pause_and_says_what_its_triggers_do(self, browser):
        bench = Bench()
        bench.status = dataclasses.replace(STATUS, state=ServiceState.STANDING_BY)
        async with admin(bench), opened(browser) as page:
            await page.goto(bench.url)
            await page.get_by_text("1 standing by, 1 paused, 1 disabled").wait_for()
            assert await page.get_by_role("button", name="Pause email").count() == 0
            assert await page.get_by_role("button", name="Resume hook").count() == 0

    async def test_the_keyboard_keeps_its_place_over_an_action(self, browser):
        bench = Bench()
        bench.replay_failure = "HTTP 500"
        async with admin(bench), opened(browser) as page:
            await page.goto(bench.url)
            for name, said in (
                ("Replay dead letter 1", "It stays a dead letter: HTTP 500"),
                ("Pause email", "email is paused; its changes wait."),
            ):
                button = page.get_by_role("button", name=name)
                await button.focus()
                await page.keyboard.press("Enter")
                await page.get_by_text(said).wait_for()
                await page.wait_for_function(
                    "name => document.activeElement.getAttribute('aria-label') === name", arg=name
                )

    async def test_a_lost_slot_stands_out(self, browser):
        bench = Bench()
        bench.status = dataclasses.replace(STATUS, slot=SlotStatus("pgbridge", wal_status="lost"))
        async with admin(bench), opened(browser) as page:
            await page.goto(bench.url)
            for words in ("WAL lost", "the server has removed it"):
                assert await page.get_by_text(words, exact=True).get_attribute("data-tone") == "bad"

    async def test_what_makes_the_slot_keep_its_wal_is_named(self, browser):
        bench = Bench()
        held = SlotStatus("pgbridge", wal_status="extended", retained_bytes=9 << 30, held_by="server process 7")
        bench.status = dataclasses.replace(STATUS, slot=held)
        async with admin(bench), opened(browser) as page:
            await page.goto(bench.url)
            await page.get_by_text("from the oldest open transaction on: server process 7", exact=True).wait_for()

    async def test_a_long_name_leaves_room_for_the_reason(self, browser):
        bench = Bench()
        async with admin(bench), opened(browser, viewport={"width": 1280, "height": 800}) as page:
            name = "n" * 64
            await bench.store.save(LSN(2), {}, [letter(4, trigger=name, table=f"{name}.{name}", error="HTTP 400")])
            await page.goto(bench.url)
            box = await page.locator("td").filter(has_text="HTTP 400").bounding_box()
            assert box["width"] > 200
            assert await page.evaluate("document.documentElement.scrollWidth") == 1280

    async def test_a_long_list_names_the_command_that_replays_what_is_chosen(self, browser):
        bench = Bench()
        async with admin(bench), opened(browser) as page:
            await bench.store.save(LSN(2), {}, [letter(ordinal) for ordinal in range(4, 60)])
            await page.goto(bench.url)
            await page.get_by_text("The oldest 50 of 59. For many at once: pgbridge dlq replay --all").wait_for()
            await page.get_by_label("Trigger", exact=True).select_option("hook")
            await page.get_by_label("Error contains").fill("HTTP")
            await page.get_by_text("pgbridge dlq replay --trigger hook --error 'HTTP'", exact=False).wait_for()

    @pytest.mark.parametrize("scheme", ["light", "dark"])
    @pytest.mark.parametrize("width", [360, 800, 1280])
    async def test_it_fits_the_screen(self, browser, scheme, width):
        async with (
            admin() as bench,
            opened(browser, viewport={"width": width, "height": 800}, color_scheme=scheme) as page,
        ):
            await page.goto(bench.url)
            await page.get_by_role("button", name="Show dead letter 1").wait_for()
            assert await page.evaluate("document.documentElement.scrollWidth") == width
            assert page.problems == []
