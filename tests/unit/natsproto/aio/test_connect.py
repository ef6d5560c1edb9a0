"""``connect()``: what it returns, in both ways of using it, and that a failure leaves nothing."""

from __future__ import annotations

import asyncio
import inspect
from typing import Any

import pytest

import natsproto
from natsproto.aio.client import Client
from natsproto.aio.connect import connect
from natsproto.aio.options import Options
from natsproto.errors import ConfigError, NoServersError
from natsproto.testing import ScriptedServer
from natsproto.testing.scripted import ScriptedConnection
from support.leaks import no_task_left
from support.sockets import reserved_port

nothing_left = pytest.fixture(autouse=True)(no_task_left)


async def test_awaited_it_is_a_client() -> None:
    assert natsproto.connect is connect
    async with ScriptedServer() as server:
        nc = await connect(server.url)
        assert type(nc) is Client
        assert nc.is_connected
        await nc.close()


async def test_a_block_ends_with_the_client_closed() -> None:
    async with ScriptedServer() as server:
        async with connect(server.url) as nc:
            assert nc.is_connected
        assert nc.is_closed
        with pytest.raises(ValueError, match="of the block"):
            async with connect(server.url) as other:
                raise ValueError("of the block")
        assert other.is_closed


async def test_nothing_is_done_before_it_is_awaited() -> None:
    """Options are checked at once; the network waits. One call can be awaited again: another client."""
    with pytest.raises(ConfigError):
        connect("http://somewhere")
    async with ScriptedServer() as server:
        connecting = connect(server.url)
        await asyncio.sleep(0)
        assert server.connections == []
        first, second = await connecting, await connecting
        assert first is not second
        assert len(server.connections) == 2
        for each in (first, second):
            await each.close()


async def test_a_failure_leaves_nothing() -> None:
    with reserved_port() as port:
        for way in ("await", "block"):
            with pytest.raises(NoServersError, match=f"127.0.0.1:{port}: connection refused"):
                if way == "await":
                    await connect(f"nats://127.0.0.1:{port}")
                else:
                    async with connect(f"nats://127.0.0.1:{port}"):
                        pytest.fail("connected")


async def test_given_up_it_leaves_nothing() -> None:
    asked = asyncio.Event()

    async def silent(conn: ScriptedConnection) -> None:
        asked.set()
        await conn.expect_eof()

    async with ScriptedServer(silent) as server:
        connecting = asyncio.ensure_future(connect(server.url))
        await asked.wait()
        connecting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await connecting
        await server.finished()


async def test_options_arrive() -> None:
    async with ScriptedServer() as server:
        async with connect(server.url, name="joe", echo=False, pedantic=True, user="u", password="p"):
            document: dict[str, Any] = server.connections[0].connect
        assert (document["name"], document["echo"], document["pedantic"]) == ("joe", False, True)
        assert (document["user"], document["pass"]) == ("u", "p")


def test_every_option_is_there_with_its_default() -> None:
    mine = inspect.signature(connect).parameters
    theirs = inspect.signature(Options).parameters
    assert [*mine] == [*theirs]
    assert {name: each.kind for name, each in mine.items()} == {
        name: each.kind for name, each in theirs.items()
    }
    assert connect.__doc__ is not None
    assert not [name for name in mine if f" {name}" not in connect.__doc__]
