"""A7: a partition drops every packet without a word, then heals."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable

import pytest

import natsproto
from natsproto.aio import liveness as liveness_module
from natsproto.aio.client import Client
from natsproto.server import LocalServer
from natsproto.testing import FaultProxy
from objstore import ObjectStore
from support.calls import Calls
from support.clock import Clock
from support.fake_session import turns
from support.objects import MIB, assert_exact, pattern
from support.partition import partitioned

OLD, NEW = pattern(MIB, 1), pattern(3 * MIB, 2)


class Cut:
    """A client behind a network that can be parted, and another one that is not.

    Attributes:
        lost, back: calls of the client's callbacks.
    """

    def __init__(
        self, near: Client, other: Client, cut: Callable[[], None], heal: Callable[[], None]
    ) -> None:
        self.near = near
        self.other = other
        self.cut = cut
        self.heal = heal
        self.lost = Calls()
        self.back = Calls()


@pytest.fixture(params=["packets", "relay"])
async def parted(request: pytest.FixtureRequest, server: LocalServer) -> AsyncIterator[Cut]:
    """By dropped packets where that can be done; by a relay that is silent everywhere."""
    lost, back = Calls(), Calls()
    options = {
        "reconnect_wait": 0.05,
        "disconnected_cb": lost,
        "reconnected_cb": back,
        "ignore_discovered": True,
    }
    async with contextlib.AsyncExitStack() as stack:
        if request.param == "packets":
            network = stack.enter_context(partitioned())
            own = stack.enter_context(LocalServer(binary=server.binary.path, host=network.host))
            other = await stack.enter_async_context(natsproto.connect(own.url))
            stack.enter_context(network.inside())
            near = await stack.enter_async_context(natsproto.connect(own.url, **options))
            stack.callback(network.heal)
            parted = Cut(near, other, network.cut, network.heal)
        else:
            own = stack.enter_context(LocalServer(binary=server.binary.path))
            proxy = await stack.enter_async_context(FaultProxy(own.url))
            other = await stack.enter_async_context(natsproto.connect(own.url))
            near = await stack.enter_async_context(natsproto.connect(proxy.url, **options))
            stack.callback(proxy.blackhole, False)
            parted = Cut(near, other, proxy.blackhole, lambda: proxy.blackhole(False))
        parted.lost, parted.back = lost, back
        near.connection.options.connect_timeout = 2.0  # of the attempts that are made while it is parted
        yield parted


async def test_a7_noticed_and_mended(parted: Cut) -> None:
    """Within three PINGs; afterwards each message comes once, to the subscription of before."""
    near, other = parted.near, parted.other
    sub = await near.subscribe("a")
    await near.flush()
    clock = Clock()
    for number in range(2):
        parted.cut()
        await turns()  # what came before
        for _ in range(3):
            assert len(parted.lost) == number
            clock.forward(near.connection.options.ping_interval)
            await turns()
        await parted.lost.until(number + 1)
        assert "does not answer PING" in str(near.last_error)
        parted.heal()
        await parted.back.until(number + 1)
        await near.flush()  # the subscription is there again
        for n in range(5):
            await other.publish("a", b"%d %d" % (number, n))
        await other.flush()
        await near.flush()
        got = [(await sub.next_msg(timeout=10)).data for _ in range(5)]
        assert got == [b"%d %d" % (number, n) for n in range(5)]
        assert sub.pending_msgs == 0
    assert len(parted.lost) == len(parted.back) == 2


async def test_a7_what_is_under_way_goes_on(parted: Cut, monkeypatch: pytest.MonkeyPatch) -> None:
    """A put and a read begun before, a watch, a request: finished, or failed, once."""
    monkeypatch.setattr(liveness_module, "PROBE_TIMEOUT", 0.5)
    far = await parted.other.jetstream().create_object_store(bucket="b")
    await far.put("a", OLD)
    store: ObjectStore = await parted.near.jetstream().object_store("b")
    store.bound_bucket.js.timeout = 1.0
    async with store.watch() as watcher, asyncio.timeout(30):
        assert (await anext(watcher)).name == "a"
        async with store.open_reader("a") as reader:
            first = await reader.read(1000)
            parted.cut()
            putting = asyncio.ensure_future(store.put("b", NEW))
            asking = asyncio.ensure_future(store.get_info("a"))
            await parted.lost.until(1)
            await far.put("c", b"meanwhile")
            parted.heal()
            assert first + await reader.read() == OLD
        info = await putting
        assert (await asking).name == "a"
        seen = [await anext(watcher), await anext(watcher)]
        assert [(each.name, each.revision) for each in sorted(seen, key=lambda each: each.name)] == [
            ("b", info.revision),
            ("c", (await far.get_info("c")).revision),
        ]
        await far.put("d", b"the end")
        assert (await anext(watcher)).name == "d", "nothing is told twice"
    assert await far.get("b") == NEW
    await assert_exact(far)
