"""The buffered transport takes what is there, in bounds, into the buffers that the receiver names."""

from __future__ import annotations

import asyncio
import fcntl
import os
import socket
import sys
import termios
from typing import Any

import pytest

from natsproto.errors import StaleConnectionError
from natsproto.transport import buffered as module
from support.transports import Peer, Recorder, opened

LARGE = module.LARGE_DESTINATION + 1


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


async def test_not_connected() -> None:
    transport = module.BufferedTransport(Recorder())
    transport.write(b"nowhere")
    transport.write_parts((b"no", b"where"))
    transport.close()
    transport.abort()
    assert transport.get_extra_info("socket") is None
    with pytest.raises(StaleConnectionError):
        transport.pause_reading()
