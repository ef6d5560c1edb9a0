"""The seam to the network: both transports keep the same promises."""

from __future__ import annotations

import asyncio
import fcntl
import os
import random
import socket
import sys
import termios
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest

from natsproto.errors import ConfigError, StaleConnectionError
from natsproto.testing.listener import reset
from natsproto.transport import Transport, TransportKind, open_transport
from natsproto.transport import buffered as module
from natsproto.transport import streams as streams_module
from support.leaks import no_task_left

nothing_left = pytest.fixture(autouse=True)(no_task_left)


class Recorder:
    """A receiver that keeps what it gets."""

    def __init__(self, size: int = 100) -> None:
        self.data = b""
        self.pieces: list[int] = []
        self.losses: list[BaseException | None] = []
        self.after = 0
        self.fail: Exception | None = None
        self._buffer = bytearray(size)
        self._changed = asyncio.Event()

    def get_buffer(self, sizehint: int) -> memoryview:
        return memoryview(self._buffer)

    def buffer_updated(self, nbytes: int) -> None:
        self.data_received(bytes(self._buffer[:nbytes]))

    def data_received(self, data: bytes) -> None:
        self.after += bool(self.losses)
        if self.fail is not None:
            raise self.fail
        self.data += data
        self.pieces.append(len(data))
        self._changed.set()

    def connection_lost(self, exc: BaseException | None) -> None:
        self.losses.append(exc)
        self._changed.set()

    async def until(self, condition: object) -> None:
        async with asyncio.timeout(8):
            while not condition():  # type: ignore[operator]
                self._changed.clear()
                await self._changed.wait()


class Peer:
    """The other end, one connection."""

    def __init__(self) -> None:
        self.connected: asyncio.Future[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = (
            asyncio.get_running_loop().create_future()
        )

    async def _handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connected.set_result((reader, writer))

    async def __aenter__(self) -> Peer:
        self.server = await asyncio.start_server(self._handle, "127.0.0.1", 0)
        self.port = self.server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self.server.close()
        _, writer = await self.connected
        writer.transport.abort()


@pytest.fixture(params=["buffered", "streams"])
def kind(request: pytest.FixtureRequest) -> TransportKind:
    return request.param  # type: ignore[no-any-return]


@pytest.fixture
async def peer() -> AsyncIterator[Peer]:
    async with Peer() as one:
        yield one


async def opened(
    kind: TransportKind, peer: Peer, size: int = 100
) -> tuple[Transport, Recorder, asyncio.StreamReader, asyncio.StreamWriter]:
    receiver = Recorder(size)
    transport = await open_transport(kind, receiver, "127.0.0.1", peer.port)
    reader, writer = await peer.connected
    return transport, receiver, reader, writer


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
            await asyncio.sleep(0.01)


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


LARGE = module.LARGE_PLACE + 1


async def arrive(transport: Any, writer: asyncio.StreamWriter, size: int) -> None:
    """Let ``size`` bytes lie in the kernel before the transport looks, then let it look."""
    writer.write(bytes(size))
    await writer.drain()
    sock = transport.get_extra_info("socket")
    unread = bytearray(4)
    async with asyncio.timeout(8):
        while int.from_bytes(unread, sys.byteorder) < size:
            await asyncio.sleep(0)
            fcntl.ioctl(sock.fileno(), termios.FIONREAD, unread)


@pytest.mark.parametrize("act", ["pause", "abort", "close", "nothing"])
@pytest.mark.parametrize("place", [LARGE, LARGE - 1])
async def test_a_turn_of_the_loop_takes_what_is_there(peer: Peer, act: str, place: int) -> None:
    """A bounded part of it, into large places only, and nothing any more once the receiver has said so."""
    transport, receiver, _, writer = await opened("buffered", peer, place)
    transport.pause_reading()
    size = place * (module.READS + 5)
    await arrive(transport, writer, size)
    turns: list[int] = []
    taken = receiver.data_received

    def take(data: bytes) -> None:
        taken(data)
        if len(receiver.pieces) == 1:
            asyncio.get_running_loop().call_soon(lambda: turns.append(len(receiver.data)))
            if act == "pause":
                transport.pause_reading()
            elif act != "nothing":
                getattr(transport, act)()

    receiver.data_received = take  # type: ignore[method-assign]
    link: Any = transport
    link._transport.resume_reading()
    await receiver.until(lambda: receiver.data)
    await asyncio.sleep(0)
    assert turns == [place * (module.READS + 1) if act == "nothing" and place == LARGE else place]
    if act == "nothing":
        await receiver.until(lambda: len(receiver.data) == size)
    transport.abort()
    await asyncio.wait_for(transport.wait_closed(), 7)
    assert (receiver.losses, receiver.after) == ([None], 0)


@pytest.mark.parametrize("how", ["eof", "reset"])
async def test_the_end_right_after_a_full_place(
    peer: Peer, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    transport, receiver, _, writer = await opened("buffered", peer, LARGE)
    transport.pause_reading()
    await arrive(transport, writer, LARGE)
    taken = receiver.data_received

    def take(data: bytes) -> None:
        taken(data)
        writer.get_extra_info("socket").shutdown(socket.SHUT_WR)

    def broken(fd: int, buffers: object) -> int:
        raise ConnectionResetError(
            104, "Connection reset by peer"
        )  # told once; then the stream is at its end

    if how == "reset":
        monkeypatch.setattr(os, "readv", broken)
    receiver.data_received = take  # type: ignore[method-assign]
    link: Any = transport
    link._transport.resume_reading()
    await receiver.until(lambda: receiver.losses)
    assert receiver.pieces == [LARGE]
    assert isinstance(receiver.losses[0], ConnectionResetError if how == "reset" else type(None))
    await asyncio.wait_for(transport.wait_closed(), 7)


async def test_a_reader_lets_others_have_their_turn(peer: Peer, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is there already is not taken in one turn of the loop, when that takes long."""
    monkeypatch.setattr(streams_module, "TURN", 0.0)
    receiver = Recorder()
    transport = await open_transport("streams", receiver, "127.0.0.1", peer.port, read_size=1000)
    _, writer = await peer.connected
    seen: list[int] = []
    taken = receiver.data_received

    def take(data: bytes) -> None:
        asyncio.get_running_loop().call_soon(lambda: seen.append(len(receiver.pieces)))
        taken(data)

    receiver.data_received = take  # type: ignore[method-assign]
    writer.write(bytes(50_000))
    await receiver.until(lambda: len(receiver.data) == 50_000)
    await asyncio.sleep(0)
    assert len(receiver.pieces) >= 50
    assert seen == [*range(1, len(receiver.pieces) + 1)]
    transport.abort()
    await asyncio.wait_for(transport.wait_closed(), 7)


async def test_refused(kind: TransportKind) -> None:
    with pytest.raises(OSError):
        await open_transport(kind, Recorder(), "127.0.0.1", 1)


async def test_unknown_kind() -> None:
    with pytest.raises(ConfigError):
        await open_transport("pigeon", Recorder(), "127.0.0.1", 1)  # type: ignore[arg-type]


async def test_not_connected() -> None:
    transport = module.BufferedTransport(Recorder())
    transport.write(b"nowhere")
    transport.write_parts((b"no", b"where"))
    transport.close()
    transport.abort()
    assert transport.get_extra_info("socket") is None
    with pytest.raises(StaleConnectionError):
        transport.pause_reading()
