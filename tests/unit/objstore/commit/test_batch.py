"""A batch of messages: no step of it waits for ever."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from natsproto.errors import RequestTimeoutError
from objstore.commit.batch import Batch
from support.fake_session import FakeServer


class Full:
    """A transport that takes nothing more, and has not been lost."""

    congested = True
    taken = None

    async def drain(self) -> None:
        await asyncio.Event().wait()


async def test_a_network_that_takes_nothing_more() -> None:
    server = FakeServer()
    server.session.on_pub = lambda pub: server.reply(pub) if pub.reply else None
    bucket: Any = SimpleNamespace(client=server.client, connection=server.connection)
    batch = Batch(bucket, 0.1)
    await batch.add(b"s.a", b"first", b"NATS/1.0\r\n\r\n")
    server.session.congested = True
    server.session.transport = Full()  # type: ignore[assignment]
    async with asyncio.timeout(0.1 + 5):
        with pytest.raises(RequestTimeoutError, match=r"took no more of a batch within 0\.1 s"):
            await batch.add(b"s.a", b"second", b"NATS/1.0\r\n\r\n")
    await server.client.close()
