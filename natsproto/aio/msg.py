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
"""Beginnings of the reply subjects of JetStream deliveries, and of requests of the server to services."""


class Msg:
    """A message. Everything but the payload is decoded on first use.

    A malformed header block concerns only its message (any peer can send one): :attr:`headers` is ``None``,
    :attr:`raw_header` has the bytes, and the connection stays open.
    """

    __slots__ = ("_client", "_frame", "_headers")

    def __init__(self, frame: WireMsg, client: Client | None) -> None:
        self._frame = frame
        self._client = client
        self._headers: Headers | None = None

    @property
    def subject(self) -> str:
        """The subject; bytes that are not UTF-8 become surrogate escapes."""
        return self._frame.subject.decode("utf-8", "surrogateescape")

    @property
    def reply(self) -> str | None:
        """The subject for an answer, or ``None``."""
        reply = self._frame.reply
        return None if reply is None else reply.decode("utf-8", "surrogateescape")

    @property
    def data(self) -> bytes:
        """The payload."""
        payload = self._frame.payload
        return payload if type(payload) is bytes else bytes(payload)

    @property
    def headers(self) -> Headers | None:
        """The headers, or ``None`` when the message has none or they are malformed."""
        if self._headers is None and self._frame.header is not None:
            try:
                self._headers = parse_headers(self._frame.header).headers
            except NatsError:
                return None
        return self._headers

    @property
    def raw_header(self) -> bytes | None:
        """The header block as received."""
        return self._frame.header

    @property
    def status(self) -> int | None:
        """The status on the header's version line (503 no responders, 100 heartbeat …)."""
        return None if self._frame.header is None else status_of(self._frame.header)

    async def respond(self, data: bytes = b"", *, headers: Headers | dict[str, str] | None = None) -> None:
        """Publish an answer to :attr:`reply`.

        The sender chose that subject, but the answer is published with this client's permissions. So a
        subject of the server itself, such as ``$JS.API.STREAM.PURGE.…``, gets no answer, nor does one below
        an API prefix of this client's JetStream contexts. Exceptions are the subjects of JetStream deliveries
        (``$JS.ACK.…``, ``$JS.FC.…``) and the server's inboxes (``$SYS._INBOX.…``, for services that decide
        who may connect). A service should catch ``NatsError`` around this call and continue with the next
        message: otherwise one such message ends it for everybody.

        Raises:
            NatsError: the message has no reply subject, or was not received by a client.
            BadSubjectError: the reply subject begins with ``$`` or such a prefix, and is not an exception; or
                it cannot be published to (wildcards, empty tokens, not UTF-8, above 4066 bytes).
        """
        reply = self.reply
        if reply is None or self._client is None:
            raise NatsError("the message has no reply subject, so there is nobody to respond to")
        server_own = reply.startswith("$") or any(map(reply.startswith, self._client.api_prefixes))
        if server_own and not reply.startswith(_ANSWERED):
            raise BadSubjectError(
                f"the message asks for an answer on {brief(reply)}, one of the server's own subjects: if "
                "you really want that, call publish(msg.reply, …)"
            )
        await self._client.publish(reply, data, headers=headers)

    def __repr__(self) -> str:
        return f"<Msg {self.subject!r} reply={self.reply!r} {len(self._frame.payload)} bytes>"
