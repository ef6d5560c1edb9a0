"""A delivered message and its acknowledgement."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..aio.msg import Msg
from ..aio.operations import check_loop
from ..errors import ConfigError
from ..headers import Headers
from .api.acks import Delivery
from .api.codec import dumps

if TYPE_CHECKING:
    from ..aio.client import Client
    from ..wire import Msg as WireMsg


MAX_DELAY = 1_000_000_000
"""Seconds of the longest delay of a redelivery: 31 years, which servers can count in nanoseconds."""


class JetStreamMsg:
    """A message of a pull or push consumer. Acknowledge it, or it is delivered again after ``ack_wait``.

    The words are those of ADR-15. All but :meth:`ack_sync` return when the word is queued.

    Attributes:
        metadata: its position in stream and consumer.
        frame: the message as received, for layers built on this client.
    """

    __slots__ = ("_client", "_msg", "frame", "metadata")

    def __init__(self, frame: WireMsg, client: Client, metadata: Delivery) -> None:
        self.frame: WireMsg = frame
        self._msg = Msg(frame, client)
        self._client = client
        self.metadata: Delivery = metadata

    @property
    def subject(self) -> str:
        """The subject the message was published on."""
        return self._msg.subject

    @property
    def data(self) -> bytes:
        """The payload."""
        return self._msg.data

    @property
    def headers(self) -> Headers | None:
        """The headers, or ``None``."""
        return self._msg.headers

    @property
    def seq(self) -> int:
        """The stream sequence."""
        return self.metadata.stream_seq

    async def ack(self) -> None:
        """Acknowledge the message as processed, without waiting; see :meth:`ack_sync`."""
        await self._send(b"+ACK")

    async def ack_sync(self, timeout: float | None = None) -> None:
        """Acknowledge the message as processed, and wait until the server confirms that.

        The confirmation is an empty message. A fellow client of the account that sees the acknowledgement,
        and may report progress to a consumer of its own, can have the server send one.
        """
        await self._client.request_frame(
            self._reply(), b"+ACK", b"", timeout, begins=b"", counts=lambda msg: not msg.payload
        )

    async def nak(self, delay: float | None = None) -> None:
        """Ask for the message again, now or after ``delay`` seconds.

        Raises:
            ConfigError: a delay that is negative, or no number of seconds that can be sent.
        """
        if delay is None:
            await self._send(b"-NAK")
            return
        if not isinstance(delay, int | float) or not 0 <= delay <= MAX_DELAY:
            raise ConfigError(f"a delay is 0 to {MAX_DELAY} seconds")
        await self._send(b"-NAK " + dumps({"delay": int(delay * 1e9)}))

    async def in_progress(self) -> None:
        """Report that the message is still being processed: restarts ``ack_wait``."""
        await self._send(b"+WPI")

    async def term(self, reason: str | None = None) -> None:
        """Ask that the message is never delivered again.

        Args:
            reason: for the advisory that the server publishes; nats-server 2.10.4. Older servers do not know
                a word with a reason. So a server that announces no API level (before 2.12) gets the plain
                word, too, and publishes a second advisory.

        Raises:
            ConfigError: an empty reason.
            MaxPayloadError: it is too long.
        """
        if reason is None:
            await self._send(b"+TERM")
            return
        if not isinstance(reason, str) or not reason.strip():
            raise ConfigError("a reason is a str that is not empty")
        word = b"+TERM " + reason.encode("utf-8", "backslashreplace")
        connection = self._client.connection
        connection.check_size(0, len(word))
        await self._send(word)
        if "api_lvl" not in connection.info:
            await self._send(b"+TERM")

    def _reply(self) -> bytes:
        reply = self.frame.reply
        assert reply is not None  # parse_ack_subject() has parsed it
        return reply

    async def _send(self, word: bytes) -> None:
        connection = self._client.connection
        check_loop(connection.home)
        connection.publish(self._reply(), word)
        if connection.congested:
            await connection.drain()

    def __repr__(self) -> str:
        return f"<JetStreamMsg {self.subject!r} seq={self.seq}>"
