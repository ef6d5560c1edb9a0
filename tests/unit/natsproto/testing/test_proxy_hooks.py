"""A hook of ``FaultProxy`` that is wrong is told and does no harm: its frame passes, the connection lives."""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

import natsproto
from natsproto.aio.client import Client
from natsproto.server import LocalServer
from natsproto.testing import DROP, Action, FaultProxy, corrupt, cut_after, delay
from natsproto.wire import Msg, Pub
from support.leaks import no_task_left

nothing_left = pytest.fixture(autouse=True)(no_task_left)

SIDES = pytest.mark.parametrize("side", ["to_server", "to_client"])


@asynccontextmanager
async def proxied(server: LocalServer) -> AsyncIterator[tuple[FaultProxy, Client]]:
    async with FaultProxy(server.url) as proxy, natsproto.connect(proxy.url) as nc:
        yield proxy, nc


def is_first(event: object) -> bool:
    return isinstance(event, Msg | Pub) and event.payload == b"1"


async def both_come(nc: Client) -> None:
    sub = await nc.subscribe("t")
    await nc.flush()
    await nc.publish("t", b"1")
    await nc.publish("t", b"2")
    assert [(await sub.next_msg(timeout=10)).data for _ in range(2)] == [b"1", b"2"]
    assert nc.stats.reconnects == 0


def fail(*_: object) -> None:
    pytest.fail("said the test")


def cancelled(*_: object) -> None:
    raise asyncio.CancelledError


async def later(raw: bytes) -> object:
    await asyncio.sleep(0)
    return 1.5


def forever(raw: bytes) -> Any:
    while True:
        yield raw


RETURNS: dict[str, Any] = {
    "True": lambda raw: True,
    "False": lambda raw: False,
    "0": lambda raw: 0,
    "empty str": lambda raw: "",
    "str": lambda raw: "PUB t 1",
    "list of int": lambda raw: [1, 2],
    "list of str": lambda raw: [""],
    "list with an action": lambda raw: [raw, DROP],
    "nested": lambda raw: [[raw]],
    "dict": lambda raw: {raw: raw},
    "set": lambda raw: {raw},
    "range": lambda raw: range(3),
    "generator": forever,
    "a function": lambda raw: corrupt,
    "corrupt(raw)": corrupt,
    "delay(raw)": delay,
    "cut_after(raw)": cut_after,
    "delay('1')": lambda raw: delay("1"),
    "cut_after(True)": lambda raw: cut_after(True),
    "the event": lambda raw: Msg(b"t", b"1"),
    "from a coroutine": later,
}
VALUES: dict[str, Any] = {
    "an action of their own": lambda raw: Action("vanish"),
    "delay(-1)": lambda raw: delay(-1),
    "delay(nan)": lambda raw: delay(math.nan),
    "delay(inf)": lambda raw: delay(math.inf),
    "cut_after(-1)": lambda raw: cut_after(-1),
}
RAISES: dict[str, Any] = {"pytest.fail": fail, "CancelledError": cancelled}
CASES = [
    *((wrong, TypeError) for wrong in RETURNS.values()),
    *((wrong, ValueError) for wrong in VALUES.values()),
    (fail, pytest.fail.Exception),
    (cancelled, RuntimeError),
]


@SIDES
@pytest.mark.parametrize(("wrong", "kind"), CASES, ids=[*RETURNS, *VALUES, *RAISES])
async def test_told_and_harmless(
    new_server: LocalServer, side: str, wrong: Any, kind: type[Exception]
) -> None:
    with pytest.raises(kind):
        async with proxied(new_server) as (proxy, nc):
            setattr(proxy, side, lambda event, raw: wrong(raw) if is_first(event) else None)
            await both_come(nc)
            assert [type(exc) for exc in proxy.errors] == [kind]


@SIDES
async def test_no_hook_at_all(new_server: LocalServer, side: str) -> None:
    """What cannot be called decides nothing, for any frame."""
    with pytest.raises(TypeError):
        async with proxied(new_server) as (proxy, nc):
            setattr(proxy, side, "drop")
            await both_come(nc)
            assert {type(exc) for exc in proxy.errors} == {TypeError}


@SIDES
@pytest.mark.parametrize(
    "right",
    [
        lambda raw: None,
        lambda raw: raw,
        lambda raw: bytearray(raw),
        lambda raw: memoryview(raw),
        lambda raw: memoryview(raw[::-1])[::-1],
        lambda raw: [raw],
        lambda raw: (raw[:3], b"", memoryview(raw)[3:]),
        lambda raw: deque([raw]),
        lambda raw: delay(0),
    ],
)
async def test_right_answers(new_server: LocalServer, side: str, right: Any) -> None:
    async with proxied(new_server) as (proxy, nc):
        setattr(proxy, side, lambda event, raw: right(raw) if is_first(event) else None)
        sub = await nc.subscribe("t")
        await nc.flush()
        await nc.publish("t", b"1")
        assert (await sub.next_msg(timeout=10)).data == b"1"
        assert proxy.errors == []


async def test_closing_while_a_hook_waits(new_server: LocalServer) -> None:
    """A cancellation of the proxy itself is no mistake of the hook."""
    waiting = asyncio.Event()

    async def hook(event: object, raw: bytes) -> None:
        if is_first(event):
            waiting.set()
            await asyncio.Event().wait()

    async with proxied(new_server) as (proxy, nc):
        proxy.to_server = hook
        await nc.publish("t", b"1")
        await asyncio.wait_for(waiting.wait(), 10)
        proxy.cut()
    assert proxy.errors == []


async def test_injected_is_bytes(new_server: LocalServer) -> None:
    async with proxied(new_server) as (proxy, nc):
        sub = await nc.subscribe("t")
        await nc.flush()
        (connection,) = proxy.connections
        for wrong in ("PING", 5, None, [b"PING"]):
            with pytest.raises(TypeError):
                connection.inject("server", wrong)  # type: ignore[arg-type]
        for right in (b"PUB t 1\r\n1\r\n", bytearray(b"PUB t 1\r\n1\r\n"), memoryview(b"PUB t 1\r\n1\r\n")):
            connection.inject("server", right)
            assert (await sub.next_msg(timeout=10)).data == b"1"
