"""Both ends of an open WebSocket, without a network: the transport that is tested, and a peer."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from websockets.client import ClientProtocol
from websockets.server import ServerProtocol
from websockets.uri import WebSocketURI

from natsproto.transport.websocket import MAX_CONTROL, WebSocketTransport


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
    """An open WebSocket: ``client`` is tested, ``peer`` is the other side.

    Attributes:
        answer: to the opening handshake, not yet given to the client unless ``opened``.
        received: what the client has passed on, piece by piece.
    """

    def __init__(self, *, opened: bool = True) -> None:
        self.below = Below()
        self.received: list[bytes] = []
        receiver: Any = SimpleNamespace(data_received=self.received.append)
        protocol = ClientProtocol(WebSocketURI(False, "h", 80, "/", ""), max_size=MAX_CONTROL)
        self.client = WebSocketTransport(receiver, protocol)
        self.client.start(self.below)  # type: ignore[arg-type]
        self.peer = ServerProtocol()
        self.peer.receive_data(b"".join(self.below.written))
        (request,) = self.peer.events_received()
        self.peer.send_response(self.peer.accept(request))  # type: ignore[arg-type]
        self.below.written.clear()
        self.answer = b"".join(self.peer.data_to_send())
        if opened:
            self.client.data_received(self.answer)
            assert self.client.opened.done()

    @property
    def failure(self) -> BaseException | None:
        return self.client._failure

    def send(self) -> None:
        """Give the client what the peer has to send."""
        self.client.data_received(b"".join(self.peer.data_to_send()))
