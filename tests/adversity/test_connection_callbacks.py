"""Callbacks that misbehave, close() at bad moments, and cancellation everywhere (rows A14, A15)."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from typing import Any

import pytest

import natsproto
from natsproto import Client
from natsproto.aio import callbacks
from natsproto.aio.callbacks import MAX_UNDER_WAY, Callbacks
from natsproto.errors import PermissionsViolationError
from natsproto.server import LocalServer
from natsproto.testing import ScriptedServer
from natsproto.testing.scripted import ScriptedConnection
from support.calls import Calls
from support.fake_session import turns

BOUND = 10.0
"""Seconds, twice what anything here may take: callbacks that are still running have 2 s."""


async def drops_once(conn: ScriptedConnection) -> None:
    await conn.handshake()
    if conn.number == 0:
        await conn.expect("go")
        return
    await conn.serve()


def raising(*args: object) -> None:
    raise ValueError("from the callback")


async def raising_later(*args: object) -> None:
    raise ValueError("from the callback")


async def cancels_itself(*args: object) -> None:
    task = asyncio.current_task()
    assert task is not None
    task.cancel()
    await asyncio.Event().wait()


async def blocks(*args: object) -> None:
    await asyncio.Event().wait()


@pytest.mark.parametrize("callback", [raising, raising_later, cancels_itself, blocks])
async def test_a14_callbacks_that_misbehave(
    callback: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    async with ScriptedServer(drops_once) as server:
        back = Calls()
        nc = await natsproto.connect(
            server.url, disconnected_cb=callback, error_cb=callback, closed_cb=callback, reconnected_cb=back
        )
        await nc.publish("go")
        await back.until(1)
        nc.connection.report(RuntimeError("reported"))
        await nc.flush()
        async with asyncio.timeout(BOUND):
            await nc.close()
        logged = [record for record in caplog.records if record.levelno >= logging.ERROR]
        assert len(logged) >= 2 if callback in (raising, raising_later) else logged == []


async def test_a_flood_of_errors_runs_only_so_many_callbacks(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rest is left out, with one record; what comes when those have ended is told again."""
    monkeypatch.setattr(callbacks, "MAX_WAITING", 10)
    told: list[str] = []
    go = asyncio.Event()

    async def slow(exc: BaseException) -> None:
        assert isinstance(exc, PermissionsViolationError)
        told.append(exc.subject)
        await go.wait()

    async def script(conn: ScriptedConnection) -> None:
        await conn.handshake()
        for topic in ("first", "second"):
            await conn.expect(topic)
            for n in range(1000):
                await conn.err(f'Permissions Violation for Publish to "{topic}.{n}"')
            request = await conn.expect("done")
            await conn.msg(request.reply.decode())
        await conn.serve()

    async with ScriptedServer(script) as server, natsproto.connect(server.url, error_cb=slow) as nc:
        for topic, records in (("first", 1), ("second", 2)):
            await nc.publish(topic)
            await nc.request("done")
            await asyncio.sleep(0)  # callbacks run a turn later
            assert told == [f"{topic}.{n}" for n in range(MAX_UNDER_WAY)]
            dropped = [record for record in caplog.records if "are dropped" in record.getMessage()]
            assert len(dropped) == records
            assert len(asyncio.all_tasks()) < MAX_UNDER_WAY + 20
            go.set()
            await turns()
            assert told == [f"{topic}.{n}" for n in range(MAX_UNDER_WAY + 10)]
            go.clear()
            told.clear()


async def test_callbacks_that_end_at_once_are_all_told() -> None:
    calls = Callbacks()
    told: list[int] = []

    async def quick(n: int) -> None:
        told.append(n)

    for callback in (told.append, quick):
        for n in range(MAX_UNDER_WAY):
            calls.call_bounded(partial(callback, n))
        await calls.finish()
        for n in range(MAX_UNDER_WAY, 2 * MAX_UNDER_WAY):
            calls.call_bounded(partial(callback, n))
        await calls.finish()
        assert told == list(range(2 * MAX_UNDER_WAY))
        told.clear()


@pytest.mark.parametrize("where", ["disconnected_cb", "reconnected_cb", "error_cb", "closed_cb"])
@pytest.mark.parametrize("how", ["close", "drain", "close in a subtask"])
async def test_a14_close_inside_of_a_callback(where: str, how: str) -> None:
    clients: list[Client] = []
    done = asyncio.Event()

    async def callback(*args: object) -> None:
        if how == "close in a subtask":
            await asyncio.gather(clients[0].close(), return_exceptions=True)
        else:
            await getattr(clients[0], how)()
        done.set()

    async with ScriptedServer(drops_once) as server:
        options: dict[str, Any] = {where: callback}
        nc = await natsproto.connect(server.url, drain_timeout=BOUND / 2, **options)
        clients.append(nc)
        await nc.subscribe("x")
        if where == "error_cb":
            nc.connection.report(RuntimeError("reported"))
        elif where == "closed_cb":
            await nc.close()
        else:
            await nc.publish("go")
        async with asyncio.timeout(BOUND):
            await done.wait()
        assert nc.is_closed
        async with asyncio.timeout(BOUND):
            await nc.close()


async def test_a14_concurrent_closes(server: LocalServer) -> None:
    nc = await natsproto.connect(server.url)
    await nc.subscribe("x")
    async with asyncio.timeout(BOUND):
        await asyncio.gather(nc.close(), nc.close(), nc.drain(), nc.close())
    assert nc.is_closed


async def test_a_closed_client_has_run_its_callbacks(server: LocalServer) -> None:
    closed: list[str] = []

    async def callback() -> None:
        closed.append("begun")
        await asyncio.sleep(0)
        closed.append("done")

    nc = await natsproto.connect(server.url, closed_cb=callback)
    await nc.close()
    assert closed == ["begun", "done"]


async def test_connect_both_ways(server: LocalServer) -> None:
    nc = await natsproto.connect(server.url)
    async with nc as same:
        assert same is nc
    assert nc.is_closed
    async with natsproto.connect(server.url) as other:
        assert other.is_connected
    assert other.is_closed
    with pytest.raises(ZeroDivisionError):
        async with natsproto.connect(server.url) as third:
            raise ZeroDivisionError
    assert third.is_closed
    waiting = natsproto.connect(server.url)
    first, second = await waiting, await waiting
    assert first is not second
    await first.close()
    await second.close()


# -- cancellation ------------------------------------------------------------------------------------


async def cancel_after(work: Coroutine[Any, Any, Any], steps: int) -> bool:
    """Let ``work`` run for so many turns of the loop, then cancel it; returns whether it had ended before."""
    task = asyncio.ensure_future(work)
    for _ in range(steps):
        await asyncio.sleep(0)
        if task.done():
            break
    finished = task.done()
    task.cancel()
    async with asyncio.timeout(BOUND):
        await asyncio.wait([task])
    if not task.cancelled():
        task.exception()
    return finished


async def check_usable(nc: Client) -> None:
    """The connection works, at a frame boundary, with nothing left over."""
    async with asyncio.timeout(BOUND):
        sub = await nc.subscribe("check")
        await nc.publish("check", b"intact")
        assert (await sub.next_msg()).data == b"intact"
        await sub.unsubscribe()
        await nc.flush()
    connection = nc.connection
    assert [
        handler.subject for handler in connection.handlers.values() if handler is not connection._mux
    ] == [b"echo"]
    assert connection._mux is None or len(connection._mux) == 0
    assert connection.session is not None
    assert not [waiter for waiter in connection.session._pongs if waiter is not None]


async def _subscribed(nc: Client) -> None:
    async with await nc.subscribe("tmp", max_msgs=2) as sub:
        await nc.publish("tmp")
        await sub.next_msg()
        await nc.publish("tmp")
        async for _ in sub:
            pass


async def _drained(nc: Client) -> None:
    sub = await nc.subscribe("tmp")
    try:
        await nc.publish("tmp")
        await sub.drain(1)
    finally:
        await sub.unsubscribe()


OPERATIONS: dict[str, Callable[[Client], Awaitable[Any]]] = {
    "publish": lambda nc: nc.publish("a", b"x" * 500_000),
    "request": lambda nc: nc.request("echo", b"x" * 50_000),
    "request nobody": lambda nc: nc.request("nobody"),
    "flush": lambda nc: nc.flush(),
    "subscription": _subscribed,
    "drained subscription": _drained,
}


@pytest.mark.parametrize("name", OPERATIONS)
async def test_a15_cancelled_at_every_step(new_server: LocalServer, name: str) -> None:
    async with natsproto.connect(new_server.url) as nc:
        echo = await nc.subscribe("echo")

        async def serve() -> None:
            async for msg in echo:
                await msg.respond(msg.data)

        serving = asyncio.create_task(serve())
        steps = 0
        while steps < 60:
            finished = await cancel_after(_run(OPERATIONS[name], nc), steps)
            await check_usable(nc)
            steps += 1
            if finished:
                break
        await echo.unsubscribe()
        await serving


async def _run(operation: Callable[[Client], Awaitable[Any]], nc: Client) -> None:
    await operation(nc)


@pytest.mark.parametrize("name", ["connect", "close", "drain"])
async def test_a15_ends_cancelled_at_every_step(new_server: LocalServer, name: str) -> None:
    before = (await asyncio.to_thread(new_server.connz))["num_connections"]
    for steps in range(40):
        clients: list[Client] = []

        async def work(clients: list[Client] = clients) -> None:
            nc = await natsproto.connect(new_server.url)
            clients.append(nc)
            await nc.subscribe("x")
            await nc.publish("x")

        if name == "connect":
            finished = await cancel_after(work(), steps)
        else:
            await work()
            finished = await cancel_after(getattr(clients[0], name)(), steps)
        for nc in clients:
            async with asyncio.timeout(BOUND):
                await nc.close()
            assert nc.is_closed
        if finished:
            break
    async with asyncio.timeout(BOUND):
        while (await asyncio.to_thread(new_server.connz))["num_connections"] > before:
            pass


async def test_a15_cancelled_while_the_network_is_full() -> None:
    """A publish that waits for room has its frame out whole; cancelling it tears nothing."""
    go = asyncio.Event()

    async def script(conn: ScriptedConnection) -> None:
        await conn.handshake()
        await go.wait()
        total = 0
        while total < count:
            event = await conn.expect("bulk", strict=True)
            assert len(event.payload) == 1 << 20
            total += 1
        await conn.serve()

    count = 0
    async with ScriptedServer(script) as server:  # noqa: SIM117
        async with natsproto.connect(server.url, request_timeout=BOUND) as nc:
            payload = bytes(1 << 20)
            while True:
                count += 1
                task = asyncio.create_task(nc.publish("bulk", payload))
                for _ in range(3):
                    await asyncio.sleep(0)
                if not task.done():
                    break
                assert count < 100
            for _ in range(3):
                count += 1
                await cancel_after(nc.publish("bulk", payload), 2)
            task.cancel()
            await asyncio.wait([task])
            go.set()
            await nc.flush()


@pytest.mark.parametrize("ends", [True, False])
async def test_no_waiting_call_outlives_the_client(ends: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that wait have their turn while there is time; none begins when it is over."""
    monkeypatch.setattr(callbacks, "FINISH_TIMEOUT", BOUND if ends else 0.2)
    told = 0

    async def call() -> None:
        nonlocal told
        told += 1
        await (asyncio.sleep(0) if ends else asyncio.Event().wait())

    calls = Callbacks()
    for _ in range(500):
        calls.call_bounded(call)
    await calls.finish()
    await asyncio.sleep(0)
    assert told == (500 if ends else MAX_UNDER_WAY)
    assert asyncio.all_tasks() == {asyncio.current_task()}
