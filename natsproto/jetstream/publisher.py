"""Publishing into streams: one message with its acknowledgement, and a window of many.

The window is bounded in bytes: the server queues at most 128 MiB or 100 000 messages a stream and drops
what exceeds it, so a bound in messages alone is no bound. A payload's buffer is held, unchanged, until its
acknowledgement: the window is the replay buffer.
"""

from __future__ import annotations

import asyncio
import re
from functools import lru_cache
from math import inf
from typing import TYPE_CHECKING

from .._values import seconds
from ..aio.client import as_payload
from ..aio.request_mux import ReplySlot
from ..errors import (
    NatsError,
    NoRespondersError,
    RemoteProtocolError,
    RequestTimeoutError,
    StaleConnectionError,
)
from ..headers import status_of
from .api.codec import dumps_str, loads
from .api.errors import api_error
from .api.models import PubAck

if TYPE_CHECKING:
    from ..aio.client import Client
    from ..transport import Buffer
    from ..wire import Msg as WireMsg

DEFAULT_WINDOW = 8 * 1024 * 1024
"""Unacknowledged bytes; more than 16 MiB gains nothing and strains the server's ingest queue."""

MAX_MESSAGES = 4096
"""Unacknowledged messages, for tiny ones."""

ALONE = 2
"""Up to so many open requests nothing is gained by gathering the frames of a whole turn of the loop."""

DEFAULT_PROGRESS = 15.0
"""Seconds without any acknowledgement after which a window gives up."""


_usual_ack = re.compile(
    rb'\{"stream":"([0-9A-Za-z_-]+)", ?"seq": ?([1-9][0-9]{0,17})'
    rb'(?:, ?"domain": ?"([0-9A-Za-z_-]+)")?(, ?"duplicate": ?true)?\}'
).fullmatch
"""What servers write, 2.9 with spaces; everything else is left to the JSON parser."""


def parse_pub_ack(payload: bytes | bytearray | memoryview) -> PubAck:
    """Parse an acknowledgement.

    Raises:
        APIError: the server refused the message.
        RemoteProtocolError: no acknowledgement at all.
    """
    usual = _usual_ack(payload)
    if usual is not None:
        stream, seq, domain, duplicate = usual.groups()
        return PubAck(
            stream.decode(), int(seq), duplicate is not None, None if domain is None else domain.decode()
        )
    return _parse_any_ack(payload)


def _parse_any_ack(payload: bytes | bytearray | memoryview) -> PubAck:
    document = loads(payload)
    error = document.get("error")
    if error is not None:
        raise api_error(error)
    stream, seq = document.get("stream"), document.get("seq")
    if not isinstance(stream, str) or not isinstance(seq, int) or isinstance(seq, bool):
        raise RemoteProtocolError(
            "an answer to a publish is no acknowledgement: is the subject bound to a stream?"
        )
    domain = document.get("domain")
    return PubAck(stream, seq, document.get("duplicate") is True, domain if isinstance(domain, str) else None)


@lru_cache(maxsize=16)
def plain_ack_head(stream: str) -> bytes:
    """An acknowledgement without anything unusual is this, the sequence and a brace."""
    return b'{"stream":%b,"seq":' % dumps_str(stream)


def plain_ack_seq(payload: bytes | bytearray | memoryview, head: bytes) -> int:
    """The sequence in an acknowledgement that has nothing unusual about it, else 0."""
    if type(payload) is bytes and payload.startswith(head) and payload.endswith(b"}"):
        digits = payload[len(head) : -1]
        if digits.isdigit() and len(digits) < 20 and digits[0] != 48:  # JSON has no leading zeros
            return int(digits)
    return 0


class OutOfOrderError(NatsError):
    """Acknowledged sequences did not rise with the order of publishing: the stream's order is not ours."""


class PublishWindow(ReplySlot):
    """Publishes to one subject of one stream, many unacknowledged at a time, in order.

    After the first failure nothing more is sent: :attr:`failure` says why, :meth:`publish` and
    :meth:`settle` raise it, and :attr:`unproven` holds every payload from the first one that is not part
    of the acknowledged, rising prefix. :attr:`copies` has the sequences of messages that were stored more
    often than they were sent. One instance belongs to one task; close it when done.

    Args:
        client: the connection.
        subject: where to publish (checked, bytes).
        stream: the stream whose acknowledgements are expected.
        max_bytes: unacknowledged payload bytes (8 MiB).
        progress_timeout: seconds without an acknowledgement before it fails (15).
        first: index of the first publish (after a repair, indexes go on).
        last_seq: the sequence acknowledged last, which the next ones must exceed.
        header: an encoded header block every message carries.
    """

    __slots__ = (
        "_ack_head",
        "_acked_early",
        "_client",
        "_connection",
        "_inflight",  # indexes whose answer is still to come
        "_inflight_bytes",
        "_loop",
        "_mux",
        "_next_ack",
        "_next_index",
        "_progress",
        "_seen",
        "_waiter",
        "copies",
        "failure",
        "header",
        "last_seq",
        "max_bytes",
        "stream",
        "unproven",
    )

    def __init__(
        self,
        client: Client,
        subject: bytes,
        stream: str,
        *,
        max_bytes: int = DEFAULT_WINDOW,
        progress_timeout: float = DEFAULT_PROGRESS,
        first: int = 0,
        last_seq: int = 0,
        header: bytes = b"",
    ) -> None:
        super().__init__(subject)
        self.stream = stream
        self.header = header
        self.max_bytes = max_bytes
        self.failure: NatsError | None = None
        self.last_seq = last_seq
        self.unproven: dict[int, Buffer] = {}
        self.copies: list[int] = []
        self._client = client
        self._connection = connection = client._connection
        self._ack_head = plain_ack_head(stream)
        self._loop = connection._loop
        self._progress = progress_timeout
        self._next_index = first
        self._next_ack = first
        self._inflight: set[int] = set()
        self._inflight_bytes = 0
        self._acked_early: dict[int, int] = {}
        self._waiter: asyncio.Future[None] | None = None
        self._seen = 0
        self._mux = connection.mux
        self._mux.open(self)

    # -- the publishing task ----------------------------------------------------------------------

    @property
    def acknowledged(self) -> int:
        """The index up to which (exclusive) everything is acknowledged in order."""
        return self._next_ack

    async def publish(self, payload: Buffer) -> None:
        """Send one message; waits while the window is full or the network does not keep up.

        The buffer must not change until it is acknowledged (at the latest when :meth:`settle` returns).

        Raises:
            LocalProtocolError, MaxPayloadError: refused, nothing was sent; the window goes on.
            NatsError: the window has failed, see :attr:`failure`.
        """
        if type(payload) not in (bytes, bytearray) and not (
            type(payload) is memoryview and payload.ndim == payload.itemsize == 1 and payload.c_contiguous
        ):
            payload = as_payload(payload)  # len() is its bytes
        size = len(payload)
        self._client._check_size(len(self.header), size)
        while self._inflight and (
            self._inflight_bytes + size > self.max_bytes or len(self._inflight) >= MAX_MESSAGES
        ):
            if self.failure is not None:
                raise self.failure
            await self._wait()
        if self.failure is not None:
            raise self.failure
        connection = self._connection
        if connection.session is None:
            # Never through the reconnect buffer: what was stored must be looked up first.
            connection.check_open()
            self.failure = StaleConnectionError("not connected")
            raise self.failure
        index = self._next_index
        self._next_index = index + 1
        self.unproven[index] = payload
        self._inflight.add(index)
        self._inflight_bytes += size
        connection.publish(self.subject, payload, b"%b.%d" % (self.inbox, index), self.header)
        if self.deadline == inf:
            self._mux.arm(self, self._progress)
        if connection.congested:
            await connection.drain()

    async def settle(self) -> None:
        """Wait until everything sent is acknowledged.

        Raises:
            NatsError: the window has failed; everything in flight has been answered or given up.
        """
        if len(self._mux) <= ALONE:
            self._connection.flush_now()
        while self._inflight and self.failure is None:
            await self._wait()
        if self.failure is not None:
            raise self.failure

    async def quiesce(self, timeout: float) -> None:
        """After a failure: wait, at most ``timeout`` seconds, for the answers still to come."""
        try:
            async with asyncio.timeout(timeout):
                while self._inflight:
                    await self._wait()
        except TimeoutError:
            pass

    def close(self) -> None:
        """Forget the window; later answers are dropped. Idempotent."""
        self._mux.close(self)
        self._give_up(NatsError("the publish window is closed"))

    def _wait(self) -> asyncio.Future[None]:
        """What to await for the next answer, or failure."""
        self._waiter = waiter = self._loop.create_future()
        return waiter

    def _wake(self) -> None:
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    # -- the reading side -------------------------------------------------------------------------

    def on_reply(self, rest: bytes, msg: WireMsg) -> None:
        if not rest.isdigit():
            return
        index = int(rest) if len(rest) < 20 else -1
        if index not in self._inflight:
            if index < self._next_ack or index in self._acked_early:
                self._note_copy(msg)
            return  # answered already, given up, or never sent
        self._seen += 1
        self._inflight.remove(index)
        self._inflight_bytes -= len(self.unproven[index])
        seq = plain_ack_seq(msg.payload, self._ack_head)
        if not seq:
            try:
                seq = self._seq(msg)
            except NatsError as exc:
                self._fail(exc)
                return
        if index == self._next_ack:
            self._advance(index, seq)
            while self._next_ack in self._acked_early:
                self._advance(self._next_ack, self._acked_early.pop(self._next_ack))
        else:
            self._acked_early[index] = seq
        self._wake()

    def _seq(self, msg: WireMsg) -> int:
        if msg.header is not None and not msg.payload and status_of(msg.header) == 503:
            raise NoRespondersError(
                self.subject.decode("utf-8", "replace"), f"no leader of stream {self.stream}?"
            )
        ack = parse_pub_ack(msg.payload)
        if ack.stream != self.stream:
            raise OutOfOrderError(f"stored in stream {ack.stream!r} instead of {self.stream!r}")
        return ack.seq

    def _note_copy(self, msg: WireMsg) -> None:
        """A second answer to one message: something on the way has doubled it."""
        try:
            ack = parse_pub_ack(msg.payload)
        except NatsError:
            return
        if ack.stream == self.stream and not ack.duplicate:
            self.copies.append(ack.seq)

    def _advance(self, index: int, seq: int) -> None:
        if seq <= self.last_seq:
            self._fail(OutOfOrderError(f"chunk {index} was stored as {seq}, not after {self.last_seq}"))
            return
        self.last_seq = seq
        self._next_ack = index + 1
        del self.unproven[index]

    def on_lost(self, exc: BaseException) -> None:
        # With nothing in flight nothing is unknown: after a reconnect the window goes on.
        if self._inflight or not isinstance(exc, ConnectionError):
            self._give_up(exc if isinstance(exc, NatsError) else NatsError(str(exc)))

    def _give_up(self, exc: NatsError) -> None:
        """Fail, and wait for no answer any more."""
        self._inflight.clear()
        self._inflight_bytes = 0
        self._fail(exc)

    def _fail(self, exc: NatsError) -> None:
        if self.failure is None:
            self.failure = exc
        self._wake()

    def on_timeout(self) -> None:
        if not self._inflight or self.failure is not None:
            return
        if self._seen:
            self._seen = 0
            self._mux.arm(self, self._progress)
            return
        self._give_up(
            RequestTimeoutError(
                f"no acknowledgement from stream {self.stream!r} within {seconds(self._progress)} s"
            )
        )
        self._connection.probe()
