"""The streams transport: its reader lets others have their turn."""

from __future__ import annotations

import asyncio

import pytest

from natsproto.transport import open_transport
from natsproto.transport import streams as streams_module
from support.transports import Peer, Recorder


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
