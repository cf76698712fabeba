"""The process as `pgbridge run` starts it: the service, and the admin port that shows it and takes orders."""

from __future__ import annotations

import structlog

from bridge.config import Settings
from bridge.console.app import Actions, build_admin
from bridge.console.server import AdminServer
from bridge.observe import log as events
from bridge.service import Service

log = structlog.get_logger("pgbridge.service")


async def serve(settings: Settings) -> None:
    """
    Run the service with its admin port until SIGTERM, or until an error ends it.

    Raises:
        BridgeError: what ended it.
    """
    service = Service(settings)
    admin = await _open_admin(service)
    try:
        await service.run()
    finally:
        if admin is not None:
            await admin.close()


async def _open_admin(service: Service) -> AdminServer | None:
    settings = service.settings
    if settings.admin.address is None:
        return None
    app = build_admin(
        settings.admin,
        snapshot=service.snapshot,
        metrics=service.metrics,
        store=service.store,
        slot=settings.source.slot,
        secrets=service.secrets,
        actions=Actions(
            pause=service.by_hand.pause, resume=service.by_hand.resume, replay=service.by_hand.replay_letter
        ),
        now=service.clock.now,
    )
    server = await AdminServer.start(app, settings.admin.address)
    log.info(events.ADMIN_LISTENING, url=server.url)
    return server
