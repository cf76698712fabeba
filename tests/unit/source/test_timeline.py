"""Where a promoted server left the timelines before it."""

from __future__ import annotations

from bridge.lsn import LSN
from bridge.source.timeline import branched_at, parse_history
from bridge.store.protocol import SourceIdentity

HISTORY = "1\t0/3000148\tno recovery target specified\n\n2\t1/A0000000\tbefore transaction 751\tat noon\n# a comment\n"


class Server:
    def __init__(self, history: str) -> None:
        self.history = history
        self.asked: list[str] = []

    async def query(self, statement: str) -> list[tuple[str, str]]:
        self.asked.append(statement)
        return [("00000003.history", self.history)]


def known(timeline: int) -> SourceIdentity:
    return SourceIdentity("pgbridge", "7", timeline, "shop")


def test_a_history_names_the_end_of_each_ancestor():
    assert parse_history(HISTORY) == {1: LSN.parse("0/3000148"), 2: LSN.parse("1/A0000000")}


def test_the_first_timeline_has_no_ancestor():
    assert parse_history("") == {}


async def test_the_branch_is_where_the_timeline_that_was_read_ends():
    server = Server(HISTORY)
    assert await branched_at(server, known(1), 3) == LSN.parse("0/3000148")
    assert await branched_at(server, known(2), 3) == LSN.parse("1/A0000000")
    assert server.asked == ["TIMELINE_HISTORY 3"] * 2


async def test_a_server_of_another_branch_shares_nothing():
    assert await branched_at(Server("1\t0/3000148\tno recovery target specified\n"), known(2), 3) == 0


async def test_nobody_is_asked_where_there_was_no_promotion():
    server = Server(HISTORY)
    assert await branched_at(server, None, 3) is None
    assert await branched_at(server, known(3), 3) is None
    assert await branched_at(server, known(4), 3) is None
    assert server.asked == []
