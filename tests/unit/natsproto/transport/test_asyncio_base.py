"""What both transports promise alike: order, one loss, back-pressure, an end."""

from __future__ import annotations

import asyncio
import os
import random
import socket
from collections.abc import Sequence
from typing import Any

import pytest

from natsproto.errors import StaleConnectionError
from natsproto.testing.listener import reset
from natsproto.transport import TransportKind
from support.transports import Peer, opened


async def test_bytes_both_ways(kind: TransportKind, peer: Peer) -> None:
    transport, receiver, reader, writer = await opened(kind, peer)
    for data in (b"a", bytearray(b"b"), memoryview(b"c"), bytes(100_000)):
        transport.write(data)
    assert await reader.readexactly(100_003) == b"abc" + bytes(100_000)
    writer.write(bytes(range(256)) * 100)
    await receiver.until(lambda: len(receiver.data) == 25_600)
    assert receiver.data == bytes(range(256)) * 100
    assert transport.get_extra_info("peername")[1] == peer.port
    sock = transport.get_extra_info("socket")
    assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
    transport.close()
    await asyncio.wait_for(transport.wait_closed(), 7)
    assert receiver.losses == [None]


@pytest.mark.parametrize("how", ["eof", "reset", "abort", "close", "close twice"])
async def test_lost_exactly_once(kind: TransportKind, peer: Peer, how: str) -> None:
    transport, receiver, _, writer = await opened(kind, peer)
    writer.write(b"last words")
    await receiver.until(lambda: receiver.data == b"last words")
    if how == "eof":
        writer.close()
    elif how == "reset":
        writer.get_extra_info("socket").setsockopt(
            socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00"
        )
        writer.transport.abort()
    elif how == "abort":
        transport.abort()
    else:
        transport.close()
        if how == "close twice":
            transport.close()
            transport.abort()
    await receiver.until(lambda: receiver.losses)
    await asyncio.wait_for(transport.wait_closed(), 7)
    assert len(receiver.losses) == 1
    assert receiver.after == 0
    transport.write(b"into the void")
    with pytest.raises(StaleConnectionError):
        await transport.drain()


async def test_close_sends_what_is_buffered(kind: TransportKind, peer: Peer) -> None:
    transport, _, reader, _ = await opened(kind, peer)
    payload = bytes(20_000_000)
    transport.write(payload)
    transport.close()
    received = 0
    while data := await reader.read(1 << 20):
        received += len(data)
    assert received == len(payload)
    await asyncio.wait_for(transport.wait_closed(), 7)


async def test_parts_keep_their_order(
    kind: TransportKind, peer: Peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel takes all, some or nothing; asyncio has the rest; other writes come between."""
    transport, _, reader, _ = await opened(kind, peer)
    rng = random.Random(1)
    taken: list[int] = []
    real = os.writev

    def some(fd: int, parts: Sequence[Any]) -> int:
        count = rng.choice([0, 1, 3, 5_000, 1 << 30])
        if not count:
            raise BlockingIOError
        taken.append(real(fd, [b"".join(parts)[:count]]))
        return taken[-1]

    monkeypatch.setattr(os, "writev", some)
    sent = bytearray()
    received = bytearray()
    for number in range(300):
        body = rng.randbytes(rng.choice([1, 900, 70_000]))
        parts = (b"<%d " % number, memoryview(body), b">")
        transport.write_parts(parts)
        sent += b"".join(parts)
        if number % 7 == 0:
            transport.write(b"|")
            sent += b"|"
        if number % 3 == 0:
            await asyncio.sleep(0)
        if len(sent) - len(received) > 1 << 20:
            received += await reader.readexactly(len(sent) - len(received))
    received += await reader.readexactly(len(sent) - len(received))
    assert received == sent
    assert len(taken) > 50
    assert len(set(taken)) > 5


async def test_parts_to_a_peer_that_does_not_read(kind: TransportKind, peer: Peer) -> None:
    transport, _, reader, _ = await opened(kind, peer)
    block = bytes(range(256)) * 16_384
    for _ in range(4):
        transport.write_parts((b"a", block, b"z"))
    assert transport.congested
    for _ in range(4):
        assert await reader.readexactly(len(block) + 2) == b"a" + block + b"z"
    await asyncio.wait_for(transport.drain(), 7)


@pytest.mark.parametrize("how", ["close", "abort", "reset"])
async def test_parts_after_the_end_go_nowhere(
    kind: TransportKind, peer: Peer, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A number of a closed file may be another one's by now."""
    transport, receiver, _, writer = await opened(kind, peer)
    if how == "reset":
        reset(writer)
        await receiver.until(lambda: bool(receiver.losses))
    else:
        getattr(transport, how)()
    monkeypatch.setattr(os, "writev", lambda *args: pytest.fail("written"))
    transport.write_parts((b"a", b"b"))
    await asyncio.wait_for(transport.wait_closed(), 7)
    transport.write_parts((b"a", b"b"))


async def test_parts_to_a_socket_that_is_broken(kind: TransportKind, peer: Peer) -> None:
    transport, receiver, _, writer = await opened(kind, peer)
    reset(writer)
    async with asyncio.timeout(5):
        while not receiver.losses:
            transport.write_parts((b"a", bytes(1000)))
            await asyncio.sleep(0)


@pytest.mark.parametrize("wake", ["space", "loss", "abort"])
async def test_drain_always_wakes(kind: TransportKind, peer: Peer, wake: str) -> None:
    transport, _, reader, writer = await opened(kind, peer)
    count = 0
    while not transport.congested:
        transport.write(bytes(1 << 20))
        count += 1
        assert count < 200
    drains = [asyncio.create_task(transport.drain()) for _ in range(3)]
    for _ in range(3):
        await asyncio.sleep(0)
    assert not any(task.done() for task in drains)
    if wake == "space":
        await reader.readexactly(count << 20)
        await asyncio.wait_for(asyncio.gather(*drains), 7)
        assert not transport.congested
    else:
        if wake == "loss":
            writer.transport.abort()
        else:
            transport.abort()
        for result in await asyncio.wait_for(asyncio.gather(*drains, return_exceptions=True), 7):
            assert isinstance(result, StaleConnectionError)
    transport.abort()
    await asyncio.wait_for(transport.wait_closed(), 7)


async def test_cancelled_drain(kind: TransportKind, peer: Peer) -> None:
    transport, _, reader, _ = await opened(kind, peer)
    count = 0
    while not transport.congested:
        transport.write(bytes(1 << 20))
        count += 1
    drain = asyncio.create_task(transport.drain())
    other = asyncio.create_task(transport.drain())
    await asyncio.sleep(0)
    drain.cancel()
    await asyncio.wait([drain])
    await reader.readexactly(count << 20)
    await asyncio.wait_for(other, 7)
    transport.abort()
    await asyncio.wait_for(transport.wait_closed(), 7)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
async def test_a_receiver_that_raises_is_told_of_the_loss(kind: TransportKind, peer: Peer) -> None:
    transport, receiver, _, writer = await opened(kind, peer)
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: None)
    receiver.fail = ValueError("bug")
    writer.write(b"x")
    await receiver.until(lambda: receiver.losses)
    assert receiver.losses == [receiver.fail]
    await asyncio.wait_for(transport.wait_closed(), 7)


async def test_pause_reading(kind: TransportKind, peer: Peer) -> None:
    transport, receiver, _, writer = await opened(kind, peer)
    transport.pause_reading()
    writer.write(b"early")
    await writer.drain()
    for _ in range(20):
        await asyncio.sleep(0)
    assert receiver.data == b""
    transport.abort()
    await asyncio.wait_for(transport.wait_closed(), 7)
