"""The WebSocket transport over one that never takes anything, or always does."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

websockets = pytest.importorskip("websockets")
from websockets.client import ClientProtocol  # noqa: E402
from websockets.server import ServerProtocol  # noqa: E402
from websockets.uri import WebSocketURI  # noqa: E402

from natsproto.errors import RemoteProtocolError  # noqa: E402
from natsproto.transport import websocket  # noqa: E402
from natsproto.transport.websocket import WebSocketTransport  # noqa: E402

LIMIT = 20


class Below:
    """The transport below."""

    def __init__(self) -> None:
        self.written: list[bytes] = []
        self.congested = False
        self.aborted = False

    def write(self, data: Any) -> None:
        self.written.append(bytes(data))

    def abort(self) -> None:
        self.aborted = True


class Ends:
    """An open WebSocket: ``client`` is tested, ``peer`` is the other side."""

    def __init__(self) -> None:
        self.below = Below()
        self.client = WebSocketTransport(None, ClientProtocol(WebSocketURI(False, "h", 80, "/", "")))  # type: ignore[arg-type]
        self.client.start(self.below)  # type: ignore[arg-type]
        self.peer = ServerProtocol()
        self.peer.receive_data(b"".join(self.below.written))
        (request,) = self.peer.events_received()
        self.peer.send_response(self.peer.accept(request))  # type: ignore[arg-type]
        self.send()
        assert self.client.opened.done()
        self.below.written.clear()

    def send(self) -> None:
        self.client.data_received(b"".join(self.peer.data_to_send()))

    def pings(self, count: int, *, at_once: bool) -> None:
        for _ in range(count):
            self.peer.send_ping(b"x" * 125)
            if not at_once:
                self.send()
        self.send()

    @property
    def pongs(self) -> int:
        frame = 2 + 4 + 125  # head, mask, what was pinged with
        count, rest = divmod(len(b"".join(self.below.written)), frame)
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
    ends.pings(LIMIT, at_once=at_once)
    assert not ends.below.aborted
    assert ends.pongs == LIMIT
    ends.pings(1000, at_once=at_once)
    assert ends.below.aborted
    assert isinstance(ends.client._failure, RemoteProtocolError)
    assert ends.pongs == LIMIT, "nothing more was written"


async def test_answers_to_who_reads_are_without_limit(ends: Ends) -> None:
    ends.pings(5 * LIMIT, at_once=False)
    ends.below.congested = True
    ends.pings(LIMIT, at_once=False)
    ends.below.congested = False
    ends.pings(1, at_once=False)
    ends.below.congested = True
    ends.pings(LIMIT, at_once=False)
    assert ends.pongs == 7 * LIMIT + 1
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
async def test_a_flood_of_frames_with_nothing_in_them(ends: Ends, kind: str, how: str) -> None:
    """What one read brings is not taken apart as a whole: the loop would stand still for seconds."""
    data = FLOODS[kind][: websocket.READ_SIZE]
    seen: list[object] = []
    ends.client._event = seen.append  # type: ignore[method-assign, assignment]
    taken: list[int] = []
    protocol = ends.client._protocol
    receive = protocol.receive_data

    def record(data: memoryview) -> None:
        taken.append(len(data))
        receive(data)

    protocol.receive_data = record
    if how == "data_received":
        ends.client.data_received(data)
    else:
        ends.client.get_buffer(-1)[:] = data
        ends.client.buffer_updated(len(data))
    assert ends.below.aborted
    assert isinstance(ends.client._failure, RemoteProtocolError)
    assert "flood" in str(ends.client._failure)
    assert taken == [websocket.PIECE]
    assert seen == []
    ends.client.data_received(data)
    assert taken == [websocket.PIECE]


async def test_small_frames_that_hold_something(ends: Ends) -> None:
    """A client that was busy finds many of them at once."""
    received: list[bytes] = []
    ends.client._receiver = SimpleNamespace(data_received=received.append)  # type: ignore[assignment]
    count = websocket.READ_SIZE // 8
    ends.client.data_received(b"\x82\x06PING\r\n" * count)
    assert ends.client._failure is None
    assert received == [b"PING\r\n"] * count


async def test_large_frames_in_pieces(ends: Ends) -> None:
    received: list[bytes] = []
    ends.client._receiver = SimpleNamespace(data_received=received.append)  # type: ignore[assignment]
    payload = bytes(range(256)) * 1000
    for _ in range(3):
        ends.peer.send_binary(payload)
    ends.send()
    assert received == [payload] * 3
