"""A verbose connection: the server answers each line with +OK, and nothing is any different."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

import natsproto
from natsproto.errors import NoRespondersError, PermissionsViolationError
from natsproto.server import LocalServer
from natsproto.testing import FaultProxy
from natsproto.wire import Err, Event, Ok
from support.calls import Calls


@asynccontextmanager
async def watched(server: LocalServer, seen: list[Event]) -> AsyncIterator[FaultProxy]:
    """A proxy that notes what the server says."""
    async with FaultProxy(server.url) as proxy:
        proxy.to_client = lambda event, raw: seen.append(event)
        yield proxy


async def test_nothing_is_any_different(server: LocalServer, bucket_name: str) -> None:
    seen: list[Event] = []
    async with watched(server, seen) as proxy, natsproto.connect(proxy.url, verbose=True) as nc:
        sub = await nc.subscribe("s.>", max_msgs=102)
        for number in range(100):
            await nc.publish("s.a", b"%d" % number)
        await nc.publish("s.b", b"+OK\r\n", headers={"+OK": "-ERR"})
        await nc.publish("s.b", bytes(100_000))
        received = [msg async for msg in sub]
        assert [msg.data for msg in received[:100]] == [b"%d" % number for number in range(100)]
        assert [len(msg.data) for msg in received[100:]] == [5, 100_000]
        assert nc.stats.in_msgs == 102  # an +OK is none
        with pytest.raises(NoRespondersError):
            await nc.request("nobody")
        await nc.flush()
        assert sum(isinstance(event, Ok) for event in seen) >= 104
        js = nc.jetstream()
        store = await js.create_object_store(bucket=bucket_name)
        try:
            data = bytes(range(256)) * 4096
            await store.put("a", data)
            assert await store.get("a") == data
            assert [info.name for info in await store.list()] == ["a"]
            await store.delete("a")
        finally:
            await js.delete_object_store(bucket_name)
        assert nc.stats.errors == nc.stats.reconnects == 0


async def test_an_error_comes_in_the_place_of_an_ok(server: LocalServer) -> None:
    """It is told as ever, and the answers to the lines around it complete nothing."""
    rights = "permissions { publish: [ok], subscribe: [ok, _INBOX.>] }"
    config = f"authorization {{ users: [ {{ user: u, password: p, {rights} }} ] }}"
    async with LocalServer(binary=server.binary.path, jetstream=False, config=config) as own:
        errors, seen = Calls(), list[Event]()
        async with (
            watched(own, seen) as proxy,
            natsproto.connect(
                proxy.url, user="u", password="p", verbose=True, pedantic=True, error_cb=errors
            ) as nc,
        ):
            sub = await nc.subscribe("ok")
            await asyncio.gather(nc.publish("ok", b"1"), nc.publish("no"), nc.publish("ok", b"2"), nc.flush())
            assert [(await sub.next_msg(timeout=5)).data for _ in range(2)] == [b"1", b"2"]
            assert [type(error) for error in errors.items] == [PermissionsViolationError]
            with pytest.raises(PermissionsViolationError):
                await nc.request("no")
        assert sum(isinstance(event, Err) for event in seen) == 2
