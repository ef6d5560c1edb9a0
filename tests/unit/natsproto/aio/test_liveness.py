"""Whether a session is given up: bytes that come, and bytes that are taken."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from natsproto.aio.liveness import Liveness
from natsproto.errors import StaleConnectionError


class Session:
    """A session whose PINGs are counted; the test says what comes and what is taken."""

    def __init__(self) -> None:
        self.server = SimpleNamespace(url="nats://h:1")
        self.reads = 0
        self.pings = 0
        self.transport: Any = SimpleNamespace(congested=False, taken=0)
        self.lost: BaseException | None = None

    def ping(self, waiter: object) -> None:
        self.pings += 1

    def fail(self, exc: BaseException) -> None:
        self.lost = exc


class Watched:
    def __init__(self) -> None:
        self.session = Session()
        self.liveness = Liveness(self.session, interval=3600, misses=2)  # type: ignore[arg-type]

    def look(self, *, came: bool, taken: int | None = None) -> None:
        """The next PING is due; ``taken``: senders wait, and so much has been acknowledged so far."""
        self.session.reads += came
        self.session.transport.congested = taken is not None
        self.session.transport.taken = taken
        self.liveness._ping_timer.cancel()
        self.liveness._ping_due()


@pytest.fixture
async def watched() -> Any:
    watched = Watched()
    yield watched
    watched.liveness.stop()


async def test_silence(watched: Watched) -> None:
    watched.look(came=True)
    watched.look(came=False)
    assert watched.session.lost is None
    watched.look(came=False)
    assert isinstance(watched.session.lost, StaleConnectionError)
    assert watched.session.lost.silent
    assert watched.session.pings == 2


async def test_bytes_that_come_are_no_life_while_nothing_is_taken(watched: Watched) -> None:
    for _ in range(2):
        watched.look(came=True, taken=1000)
    assert watched.session.lost is None
    watched.look(came=True, taken=1000)
    assert isinstance(watched.session.lost, StaleConnectionError)
    assert watched.session.lost.silent
    assert "takes nothing" in str(watched.session.lost)


async def test_slow_is_not_stuck(watched: Watched) -> None:
    for n in range(20):
        watched.look(came=True, taken=1000 + n // 2)  # something, every other time
    for _ in range(20):  # nobody waits
        watched.look(came=True)
    watched.look(came=True, taken=990)
    watched.look(came=True, taken=990)
    watched.look(came=True)
    watched.look(came=True, taken=990)
    assert watched.session.lost is None


async def test_where_the_system_does_not_tell(watched: Watched) -> None:
    watched.session.transport = SimpleNamespace(congested=True, taken=None)
    for _ in range(20):
        watched.session.reads += 1
        watched.liveness._ping_timer.cancel()
        watched.liveness._ping_due()
    assert watched.session.lost is None
