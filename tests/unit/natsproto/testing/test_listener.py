"""The listening end of the proxy and the scripted server: no connection is lost when it closes."""

from __future__ import annotations

import asyncio
import gc
import socket

import pytest

from natsproto.testing.listener import Listener


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"hello")
    await reader.read()


@pytest.mark.parametrize("turns", range(6))
async def test_closed_while_a_connection_comes(turns: int) -> None:
    """In whatever turn of the loop: its socket is closed, nobody has to collect it."""
    listener = Listener("127.0.0.1", 0, serve)
    listener.open()
    with socket.create_connection(("127.0.0.1", listener.port), timeout=10) as client:
        for _ in range(turns):
            await asyncio.sleep(0)
        await listener.close()
        assert listener.tasks == set()
        try:
            assert client.recv(10) in (b"", b"hello")
        except ConnectionResetError:
            pass
    gc.collect()  # an unclosed one is an error now


async def test_shut_and_opened_again() -> None:
    listener = Listener("127.0.0.1", 0, serve)
    for _ in range(2):
        listener.open()
        listener.open()  # as it is
        reader, writer = await asyncio.open_connection("127.0.0.1", listener.port)
        assert await asyncio.wait_for(reader.readexactly(5), 10) == b"hello"
        listener.shut()
        listener.shut()
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", listener.port)
        writer.close()
    await listener.close()
