"""The WebSocket transport over one that never takes anything, or always does."""

from __future__ import annotations

import tracemalloc

import pytest

pytest.importorskip("websockets")

from natsproto.errors import RemoteProtocolError
from natsproto.transport import websocket
from support.websocket import Ends

LIMIT = 20


def ping(ends: Ends, count: int, *, at_once: bool) -> None:
    for _ in range(count):
        ends.peer.send_ping(b"x" * 125)
        if not at_once:
            ends.send()
    ends.send()


def pongs(ends: Ends) -> int:
    frame = 2 + 4 + 125  # head, mask, what was pinged with
    count, rest = divmod(len(b"".join(ends.below.written)), frame)
    assert not rest
    return count


@pytest.fixture
async def ends(monkeypatch: pytest.MonkeyPatch) -> Ends:
    monkeypatch.setattr(websocket, "MAX_UNREAD_PONGS", LIMIT)
    return Ends()


@pytest.mark.parametrize("at_once", [True, False])
async def test_answers_to_who_does_not_read(ends: Ends, at_once: bool) -> None:
    """Only so many are kept; then the connection is given up."""
    ends.below.congested = True
    ping(ends, LIMIT, at_once=at_once)
    assert not ends.below.aborted
    assert pongs(ends) == LIMIT
    ping(ends, 1000, at_once=at_once)
    assert ends.below.aborted
    assert isinstance(ends.failure, RemoteProtocolError)
    assert pongs(ends) == LIMIT, "nothing more was written"


async def test_answers_to_who_reads_are_without_limit(ends: Ends) -> None:
    ping(ends, 5 * LIMIT, at_once=False)
    ends.below.congested = True
    ping(ends, LIMIT, at_once=False)
    ends.below.congested = False
    ping(ends, 1, at_once=False)
    ends.below.congested = True
    ping(ends, LIMIT, at_once=False)
    assert pongs(ends) == 7 * LIMIT + 1
    assert not ends.below.aborted


FLOODS = {
    "ping": b"\x89\x00" * 32_768,
    "pong": b"\x8a\x00" * 32_768,
    "empty": b"\x82\x00" * 32_768,
    "fragments": b"\x02\x00" + b"\x00\x00" * 32_768,
    "byte by byte": b"\x82\x01+\x82\x01O\x82\x01K\x82\x01\r\x82\x01\n" * 5_000,
}


@pytest.mark.parametrize("kind", FLOODS)
@pytest.mark.parametrize("how", ["data_received", "buffer_updated"])
async def test_a_flood_of_frames_with_nothing_in_them(
    ends: Ends, kind: str, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What one read brings is not taken apart as a whole: the loop would stand still for seconds."""
    data = FLOODS[kind][: websocket.READ_SIZE]
    heads: list[int] = []
    taken = ends.client._head_received

    def record() -> None:
        heads.append(len(ends.client._head))
        taken()

    monkeypatch.setattr(ends.client, "_head_received", record)
    if how == "data_received":
        ends.client.data_received(data)
    else:
        ends.client.get_buffer(-1)[:] = data
        ends.client.buffer_updated(len(data))
    assert ends.below.aborted
    assert isinstance(ends.failure, RemoteProtocolError)
    assert "flood" in str(ends.failure)
    assert len(heads) == websocket.MAX_FRAMES + 1
    ends.client.data_received(data)
    assert len(heads) == websocket.MAX_FRAMES + 1


async def test_a_flood_of_lines_in_place_of_a_handshake() -> None:
    ends = Ends(opened=False)
    ends.client.data_received(b"HTTP/1.1 403 No\r\n\r\n" + b"\n" * websocket.READ_SIZE)
    assert isinstance(ends.failure, RemoteProtocolError)
    assert ends.below.aborted


async def test_small_frames_that_hold_something(ends: Ends) -> None:
    """A client that was busy finds many of them at once."""
    count = websocket.READ_SIZE // 8
    ends.client.data_received(b"\x82\x06PING\r\n" * count)
    assert ends.failure is None
    assert b"".join(ends.received) == b"PING\r\n" * count
    cut = b"\x06PING\r\n" + b"\x82\x06PING\r\n" * (count - 1) + b"\x82"
    ends.client.data_received(b"\x82")
    ends.client.data_received(cut)
    assert ends.failure is None
    assert b"".join(ends.received) == b"PING\r\n" * count * 2


async def test_large_frames_in_pieces(ends: Ends) -> None:
    payload = bytes(range(256)) * 1000
    for _ in range(3):
        ends.peer.send_binary(payload)
    ends.send()
    assert b"".join(ends.received) == payload * 3


async def test_a_large_frame_is_passed_on_as_it_comes_and_not_kept(ends: Ends) -> None:
    """Each read is a sign of life, and no limit of the receiver's is passed by what waits here."""
    size, piece = 64 << 20, bytes(websocket.READ_SIZE)
    ends.client.data_received(b"\x82\x7f" + size.to_bytes(8, "big"))
    tracemalloc.start()
    try:
        for _ in range(size // len(piece)):
            ends.client.data_received(piece)
            assert sum(map(len, ends.received)) == len(piece)
            ends.received.clear()
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()
    ends.client.data_received(b"\x82\x01x")
    assert ends.received == [b"x"]
