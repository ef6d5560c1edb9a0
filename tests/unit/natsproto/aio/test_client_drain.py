"""How long the end of a client takes at most."""

from __future__ import annotations

from pathlib import Path

import pytest

from natsproto.aio.callbacks import FINISH_TIMEOUT
from natsproto.aio.client import Client
from natsproto.aio.operations import END_TIMEOUT
from natsproto.aio.session import CLOSE_TIMEOUT
from natsproto.errors import RequestTimeoutError
from support.fake_session import FakeServer


async def test_the_steps_of_drain_share_one_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    """A peer that answers nothing uses up the time of the first step; no other one has time of its own."""
    server = FakeServer()
    client = server.client
    client.connection.options.drain_timeout = 0.2
    await client.subscribe("a")
    server.session.pongs = False
    left: list[float] = []
    flush = Client.flush

    async def record(self: Client, timeout: float | None = None) -> None:
        assert timeout is not None
        left.append(timeout)
        await flush(self, timeout)

    monkeypatch.setattr(Client, "flush", record)
    with pytest.raises(RequestTimeoutError):
        await client.drain()
    assert client.is_closed
    assert len(left) == 1
    assert left[0] <= 0.01


async def test_a_connection_that_does_not_come_back() -> None:
    """Nothing is under way, but what the server has sent meanwhile cannot be known."""
    server = FakeServer()
    client = server.client
    client.connection.options.drain_timeout = 0.02
    await client.subscribe("a")
    server.lose()
    with pytest.raises(RequestTimeoutError, match="did not come back"):
        await client.drain()
    assert client.is_closed


def test_what_closing_takes_at_most() -> None:
    total = END_TIMEOUT + CLOSE_TIMEOUT + 2 * FINISH_TIMEOUT
    assert f"at most {total:g} s more" in " ".join(str(Client.drain.__doc__).split())
    page = Path(__file__).parents[4] / "docs" / "client.md"
    if page.exists():
        assert f"at most {total:g} s: {END_TIMEOUT:g} s for" in " ".join(page.read_text().split())
