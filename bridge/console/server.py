"""Opening and closing the port."""

from __future__ import annotations

import os
from typing import Self

from aiohttp import web

from bridge.config import Address
from bridge.errors import ConfigError

CLOSE_SECONDS = 2.0
"""How long an open request may hold up the end of the process."""


class AdminServer:
    """A listening admin application; made by `start`."""

    def __init__(self, runner: web.AppRunner, address: Address) -> None:
        self._runner = runner
        self.address = address
        """Where it listens, with the port that was given where 0 was asked for."""

    @classmethod
    async def start(cls, app: web.Application, address: Address) -> Self:
        """
        Listen.

        Raises:
            ConfigError: the address is taken, is not this machine's, or needs rights.
        """
        runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=CLOSE_SECONDS)
        await runner.setup()
        try:
            await web.TCPSite(runner, address.host, address.port).start()
        except OSError as error:
            await runner.cleanup()
            reason = os.strerror(error.errno) if error.errno and error.errno > 0 else "no such address"
            raise ConfigError(
                f"admin.listen is {address.host}:{address.port}, which can't be opened: {reason}",
                remedy="choose another address or port, or null for no admin port",
            ) from error
        host, port = runner.addresses[0][:2]
        return cls(runner, Address(host, port))

    @property
    def url(self) -> str:
        """Of the operator's page."""
        host = f"[{self.address.host}]" if ":" in self.address.host else self.address.host
        return f"http://{host}:{self.address.port}/"

    async def close(self) -> None:
        """Stop listening; requests under way get a moment to end."""
        await self._runner.cleanup()
