"""The admin application: routes, and what each answers."""

from __future__ import annotations

import hashlib
import inspect
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Final

import orjson
import structlog
from aiohttp import hdrs, web
from aiohttp.typedefs import Handler

from bridge.config import AdminSettings
from bridge.console.guard import OPEN_PATHS, Guard
from bridge.errors import BridgeError
from bridge.observe import log as events
from bridge.observe.health import Health, judge
from bridge.observe.metrics import CONTENT_TYPE, Metrics
from bridge.observe.status import ServiceState, ServiceStatus, TriggerState
from bridge.secret import SecretResolver
from bridge.store.letter_json import outline
from bridge.store.protocol import DeadLetter, LetterFilter, Store

log = structlog.get_logger("pgbridge.console")

DEFAULT_LETTERS: Final = 50
MOST_LETTERS: Final = 500

_STATIC: Final = Path(__file__).parent / "static"
_FILES: Final = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/console.css": ("console.css", "text/css; charset=utf-8"),
    "/console.js": ("console.js", "text/javascript; charset=utf-8"),
    "/favicon.svg": ("favicon.svg", "image/svg+xml"),
}

_HEADERS: Final = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Server": "pgbridge",
}


@dataclass(frozen=True, slots=True)
class Actions:
    """
    What an operator may do; what is None is answered with 501 and not offered by the page.

    Attributes:
        pause: stop sending for a trigger, by its name.
        resume: send again.
        replay: send one dead letter again, by its id; None once it is delivered and gone, else why it stays.
    """

    pause: Callable[[str], Awaitable[None] | None] | None = None
    resume: Callable[[str], Awaitable[None] | None] | None = None
    replay: Callable[[int], Awaitable[str | None]] | None = None


@dataclass(frozen=True, slots=True)
class _Admin:
    guard: Guard
    snapshot: Callable[[], ServiceStatus]
    metrics: Metrics
    store: Store
    slot: str
    actions: Actions
    now: Callable[[], float]


_ADMIN: Final = web.AppKey("admin", _Admin)


def build_admin(
    settings: AdminSettings,
    *,
    snapshot: Callable[[], ServiceStatus],
    metrics: Metrics,
    store: Store,
    slot: str,
    secrets: SecretResolver,
    actions: Actions | None = None,
    now: Callable[[], float] = time.time,
) -> web.Application:
    """
    The admin application of one process.

    Args:
        settings: where it will listen, and the token.
        snapshot: the service at this moment.
        metrics: what `/metrics` shows.
        store: where dead letters are.
        slot: whose dead letters are shown.
        secrets: reads the token.
        actions: what an operator may do.
        now: wall clock, seconds since 1970.

    Raises:
        ConfigError: it would listen beyond this machine without a token.
    """
    app = web.Application(middlewares=[_answer], client_max_size=1024)
    app[_ADMIN] = _Admin(Guard(settings, secrets), snapshot, metrics, store, slot, actions or Actions(), now)
    for path, (name, content_type) in _FILES.items():
        app.router.add_get(path, partial(_file, (_STATIC / name).read_bytes(), content_type))
    app.router.add_get("/healthz", partial(_health, lambda health: health.not_live))
    app.router.add_get("/readyz", partial(_health, lambda health: health.not_ready))
    app.router.add_get("/metrics", _metrics)
    app.router.add_get("/api/status", _status)
    app.router.add_get("/api/dead-letters", _letters)
    app.router.add_get(r"/api/dead-letters/{id:\d{1,18}}", _letter)
    app.router.add_get(r"/api/dead-letters/{id:\d{1,18}}/event", _event)
    app.router.add_post(r"/api/dead-letters/{id:\d{1,18}}/replay", _replay)
    app.router.add_post(r"/api/dead-letters/{id:\d{1,18}}/discard", _discard)
    app.router.add_post("/api/triggers/{name}/pause", _pause)
    app.router.add_post("/api/triggers/{name}/resume", _resume)
    return app


@web.middleware
async def _answer(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Guard every request, and give every answer the same headers and every failure the same form."""
    admin = request.app[_ADMIN]
    response: web.StreamResponse
    try:
        admin.guard.check(request)
        if request.path not in OPEN_PATHS and request.path not in _FILES and not await admin.guard.knows(request):
            response = _json({"error": "this needs the token of admin.token"}, status=401)
            response.headers[hdrs.WWW_AUTHENTICATE] = 'Bearer realm="pgbridge"'
        else:
            response = await handler(request)
    except web.HTTPException as error:
        response = _json({"error": error.text or error.reason}, status=error.status)
        if hdrs.ALLOW in error.headers:
            response.headers[hdrs.ALLOW] = error.headers[hdrs.ALLOW]
    except BridgeError as error:
        response = _json({"error": str(error)}, status=503)
    except Exception:
        log.exception(events.ADMIN_REQUEST, path=request.path)
        response = _json({"error": "an internal error; the log has more"}, status=500)
    response.headers.update(_HEADERS)
    response.headers.setdefault(hdrs.CACHE_CONTROL, "no-store")
    return response


def _json(document: Any, *, status: int = 200) -> web.Response:
    return web.Response(
        body=orjson.dumps(document, option=orjson.OPT_UTC_Z), status=status, content_type="application/json"
    )


async def _file(content: bytes, content_type: str, request: web.Request) -> web.Response:
    tag = f'"{hashlib.sha256(content).hexdigest()[:16]}"'
    headers = {hdrs.CACHE_CONTROL: "no-cache", hdrs.ETAG: tag}
    if request.headers.get(hdrs.IF_NONE_MATCH) == tag:
        return web.Response(status=304, headers=headers)
    return web.Response(body=content, headers={hdrs.CONTENT_TYPE: content_type, **headers})


async def _health(against: Callable[[Health], tuple[str, ...]], request: web.Request) -> web.Response:
    admin = request.app[_ADMIN]
    reasons = against(judge(admin.snapshot(), admin.now()))
    document: dict[str, Any] = {"ok": not reasons}
    if reasons and await admin.guard.knows(request):
        document["reasons"] = reasons
    return _json(document, status=503 if reasons else 200)


async def _metrics(request: web.Request) -> web.Response:
    return web.Response(body=request.app[_ADMIN].metrics.render(), headers={hdrs.CONTENT_TYPE: CONTENT_TYPE})


async def _status(request: web.Request) -> web.Response:
    admin = request.app[_ADMIN]
    status = admin.snapshot()
    health = judge(status, admin.now())
    actions = admin.actions
    return _json(
        {
            **status.to_json(),
            "now": admin.now(),
            "health": {"live": health.live, "ready": health.ready, "reasons": health.not_ready},
            "actions": {
                "pause": actions.pause is not None,
                "resume": actions.resume is not None,
                "replay": actions.replay is not None,
                "discard": True,
            },
        }
    )


async def _letters(request: web.Request) -> web.Response:
    admin = request.app[_ADMIN]
    where, limit = _letter_filter(request.query, admin.slot)
    letters: list[DeadLetter] = []
    # Without the events, which may be megabytes each.
    iterator = admin.store.iterate_letters(where, whole=False)
    async for letter in iterator:
        letters.append(letter)
        if len(letters) > limit:
            break
    if (close := getattr(iterator, "aclose", None)) is not None:
        await close()  # now, not when the garbage collector comes by: it holds a cursor
    counts = await admin.store.count_letters(where)
    return _json(
        {
            "letters": [outline(letter) for letter in letters[:limit]],
            "more": len(letters) > limit,
            "total": sum(counts.values()),
            "by_trigger": dict(counts),
        }
    )


def _letter_filter(query: Mapping[str, str], slot: str) -> tuple[LetterFilter, int]:
    unknown = sorted(set(query) - {"trigger", "table", "error", "since", "limit"})
    if unknown:
        raise web.HTTPBadRequest(text=f"{unknown[0]!r} is no filter; there are trigger, table, error, since and limit")
    since: datetime | None = None
    if query.get("since"):
        try:
            since = datetime.fromisoformat(query["since"])
        except ValueError:
            raise web.HTTPBadRequest(text="since must be a time such as 2026-11-22T08:00:00Z") from None
        since = since.replace(tzinfo=since.tzinfo or UTC)
    limit = query.get("limit", str(DEFAULT_LETTERS))
    if not limit.isascii() or not limit.isdigit() or not 1 <= int(limit) <= MOST_LETTERS:
        raise web.HTTPBadRequest(text=f"limit must be a whole number from 1 to {MOST_LETTERS}")
    where = LetterFilter(
        slot=slot,
        trigger=query.get("trigger") or None,
        table=query.get("table") or None,
        since=since,
        error=query.get("error") or None,
    )
    return where, int(limit)


async def _letter(request: web.Request) -> web.Response:
    letter = await _found(request)
    return _json({**outline(letter), "detail": letter.detail, "event": orjson.Fragment(letter.event)})


async def _event(request: web.Request) -> web.Response:
    """The event's own bytes, for those whose JSON parser rounds large numbers: browsers."""
    letter = await _found(request)
    return web.Response(body=letter.event, content_type="application/json")


async def _found(request: web.Request) -> DeadLetter:
    admin = request.app[_ADMIN]
    number = int(request.match_info["id"])
    found = await admin.store.letters(LetterFilter(slot=admin.slot, ids=[number]), limit=1)
    if not found:
        raise web.HTTPNotFound(text=f"there is no dead letter {number}; it may have been replayed or discarded")
    return found[0]


async def _replay(request: web.Request) -> web.Response:
    action = request.app[_ADMIN].actions.replay
    if action is None:
        raise web.HTTPNotImplemented(text="this process can't replay; use pgbridge dlq replay")
    letter = await _found(request)
    assert letter.id is not None  # noqa: S101 - a stored letter has one
    failure = await action(letter.id)
    log.info(events.ADMIN_REQUEST, action="replay", letter=letter.id, trigger=letter.trigger, delivered=failure is None)
    return _json({"delivered": failure is None, "error": failure})


async def _discard(request: web.Request) -> web.Response:
    letter = await _found(request)
    assert letter.id is not None  # noqa: S101 - as above
    discarded = await request.app[_ADMIN].store.discard_letters([letter.id])
    log.info(events.ADMIN_REQUEST, action="discard", letter=letter.id, trigger=letter.trigger, event_id=letter.event_id)
    return _json({"discarded": discarded})


async def _pause(request: web.Request) -> web.Response:
    return await _on_trigger(request, "pause", request.app[_ADMIN].actions.pause)


async def _resume(request: web.Request) -> web.Response:
    return await _on_trigger(request, "resume", request.app[_ADMIN].actions.resume)


async def _on_trigger(
    request: web.Request, name: str, action: Callable[[str], Awaitable[None] | None] | None
) -> web.Response:
    if action is None:
        raise web.HTTPNotImplemented(text=f"this process can't {name} triggers")
    wanted = request.match_info["name"]
    service = request.app[_ADMIN].snapshot()
    status = next((trigger for trigger in service.triggers if trigger.name == wanted), None)
    if status is None:
        raise web.HTTPNotFound(text=f"there is no trigger {wanted[:80]!r}")
    if status.state is TriggerState.DISABLED:
        raise web.HTTPConflict(text=f"trigger {wanted} is disabled by its settings; set enabled: true and restart")
    if service.state in {ServiceState.STARTING, ServiceState.STANDING_BY}:
        words = service.state.value.replace("_", " ")
        raise web.HTTPConflict(text=f"this process is {words}; {name} the trigger at the one that reads the slot")
    answer = action(wanted)
    if inspect.isawaitable(answer):
        await answer
    log.info(events.ADMIN_REQUEST, action=name, trigger=wanted)
    return _json({"trigger": wanted, "action": name})
