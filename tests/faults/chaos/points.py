"""
Named points at which a process dies by SIGKILL, put around the methods of bridge/ from outside.

A point dies at its n-th passing, so that the process has done something before.
"""

from __future__ import annotations

import asyncio
import functools
import os
import signal
from collections.abc import Awaitable, Callable
from typing import Any

import psycopg

from bridge.delivery.dispatch import Dispatcher
from bridge.delivery.http import HttpTarget
from bridge.pgoutput.assembler import Assembler
from bridge.pipeline import Pipeline
from bridge.source.connection import ReplicationConnection
from bridge.store.backlog_table import BacklogTable
from bridge.store.postgres import PostgresStore

# How far a save has come when its process dies: sent, or not; committed, or not.
SAVE_SECONDS = 0.002


class Countdown:
    """Dies at the n-th passing."""

    def __init__(self, passings: int) -> None:
        self._left = passings

    def passed(self) -> bool:
        self._left -= 1
        return self._left == 0

    def pass_by(self, *_: object) -> None:
        if self.passed():
            die()


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def before(owner: type, name: str, act: Callable[..., None]) -> None:
    """Act on the arguments at each call, before it."""
    method = getattr(owner, name)

    @functools.wraps(method)
    def wrapped(*arguments: Any, **options: Any) -> Any:
        act(*arguments)
        return method(*arguments, **options)

    setattr(owner, name, wrapped)


def after(owner: type, name: str, act: Callable[..., None]) -> None:
    """Act on the arguments at each call that succeeded, after it."""
    method = getattr(owner, name)

    @functools.wraps(method)
    def wrapped(*arguments: Any, **options: Any) -> Any:
        result = method(*arguments, **options)
        act(*arguments)
        return result

    setattr(owner, name, wrapped)


def after_awaiting(owner: type, name: str, act: Callable[..., None]) -> None:
    """As `after`, of a coroutine."""
    method: Callable[..., Awaitable[Any]] = getattr(owner, name)

    @functools.wraps(method)
    async def wrapped(*arguments: Any, **options: Any) -> Any:
        result = await method(*arguments, **options)
        act(*arguments)
        return result

    setattr(owner, name, wrapped)


def after_decode(count: Countdown) -> None:
    def act(assembler: Assembler, *_: object) -> None:
        if assembler.changes and count.passed():
            die()

    after(Assembler, "consume", act)


def during_save(count: Countdown) -> None:
    """In the middle of the save's round trip."""

    def act(*_: object) -> None:
        if count.passed():
            asyncio.get_running_loop().call_later(SAVE_SECONDS, die)

    before(PostgresStore, "save", act)


def before_last_save(count: Countdown) -> None:
    before(Pipeline, "finish", count.pass_by)


POINTS: dict[str, Callable[[Countdown], None]] = {
    "after decode": after_decode,
    "before the call": lambda count: before(HttpTarget, "deliver", count.pass_by),
    "after the call": lambda count: after_awaiting(HttpTarget, "deliver", count.pass_by),
    "before the checkpoint": lambda count: before(PostgresStore, "save", count.pass_by),
    "during the checkpoint": during_save,
    "after the checkpoint": lambda count: after_awaiting(PostgresStore, "save", count.pass_by),
    "after the status update": lambda count: after(ReplicationConnection, "send_status", count.pass_by),
    # Only saves with letters insert with executemany.
    "during dead-letter insert": lambda count: after_awaiting(psycopg.AsyncCursor, "executemany", count.pass_by),
    "during backlog move": lambda count: after_awaiting(BacklogTable, "park", count.pass_by),
    "during backlog drain": lambda count: after_awaiting(PostgresStore, "read_backlog", count.pass_by),
    "during stop, at work": lambda count: before(Dispatcher, "drain", count.pass_by),
    "during stop, before the last save": before_last_save,
}
"""Puts the point in place."""
