"""A received message, as the application sees it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .._values import brief
from ..errors import BadSubjectError, NatsError
from ..headers import Headers, parse_headers, status_of

if TYPE_CHECKING:
    from ..wire import Msg as WireMsg
    from .client import Client

_ANSWERED = ("$JS.ACK.", "$JS.FC.", "$SYS._INBOX.")
"""What the reply subjects of JetStream's deliveries, and of what the server asks services, begin with."""


class Msg:
    """A message. Everything but the payload is decoded when it is first asked for.

    A header block that is malformed is a property of this one message (any peer can send one): then
    :attr:`headers` is ``None``, :attr:`raw_header` holds the bytes, and the connection lives on.
    """

    __slots__ = ("_client", "_frame", "_headers")

    def __init__(self, frame: WireMsg, client: Client | None) -> None:
        self._frame = frame
        self._client = client
        self._headers: Headers | None = None

    @property
    def subject(self) -> str:
        """The subject; bytes that are not UTF-8 come as surrogate escapes."""
        return self._frame.subject.decode("utf-8", "surrogateescape")

    @property
    def reply(self) -> str | None:
        """Where an answer is expected, or ``None``."""
        reply = self._frame.reply
        return None if reply is None else reply.decode("utf-8", "surrogateescape")

    @property
    def data(self) -> bytes:
        """The payload."""
        payload = self._frame.payload
        return payload if type(payload) is bytes else bytes(payload)

    @property
    def headers(self) -> Headers | None:
        """The headers, or ``None`` when there are none or they are malformed."""
        if self._headers is None and self._frame.header is not None:
            try:
                self._headers = parse_headers(self._frame.header).headers
            except NatsError:
                return None
        return self._headers

    @property
    def raw_header(self) -> bytes | None:
        """The header block as it came."""
        return self._frame.header

    @property
    def status(self) -> int | None:
        """The inline status of the header's version line (503 no responders, 100 heartbeat …)."""
        return None if self._frame.header is None else status_of(self._frame.header)

    async def respond(self, data: bytes = b"", *, headers: Headers | dict[str, str] | None = None) -> None:
        """Publish an answer to :attr:`reply`.

        Whoever sent the message chose that subject, and it is published to with this client's permissions.
        So a subject of the server's own, such as ``$JS.API.STREAM.PURGE.…``, gets no answer; those that
        deliveries of JetStream have (``$JS.ACK.…``, ``$JS.FC.…``), and the server's own inboxes
        (``$SYS._INBOX.…``, for services that decide who may connect), do. Nor does one below an API prefix
        with which this client has made a JetStream context. A service catches ``NatsError`` around this call
        and goes on with the next message: otherwise one such message ends it for everybody.

        Raises:
            NatsError: the message has no reply subject, or came from no client.
            BadSubjectError: the reply subject begins with ``$`` or such a prefix, and is none of these; or it
                cannot be published to (wildcards, empty tokens, not UTF-8, above 4066 bytes).
        """
        reply = self.reply
        if reply is None or self._client is None:
            raise NatsError("the message has no reply subject, so there is nobody to respond to")
        server_own = reply.startswith("$") or any(map(reply.startswith, self._client.api_prefixes))
        if server_own and not reply.startswith(_ANSWERED):
            raise BadSubjectError(
                f"the message asks for an answer on {brief(reply)}, a subject of the server's own: if "
                "that is really meant, call publish(msg.reply, …)"
            )
        await self._client.publish(reply, data, headers=headers)

    def __repr__(self) -> str:
        return f"<Msg {self.subject!r} reply={self.reply!r} {len(self._frame.payload)} bytes>"
