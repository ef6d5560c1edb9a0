"""Fast-ingest batches (ADR-50, nats-server 2.14): many messages, few acknowledgements, the server's pace."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from ..aio.client import HeadersLike, as_payload
from ..aio.operations import check_loop
from ..aio.options import check_seconds
from ..errors import APIError, ConfigError, NatsError, StaleConnectionError
from ..subjects import check_publish_subject
from .api.acks import AckCheck
from .api.codec import MAX_DOCUMENT
from .api.messages import leader_message
from .api.models import PubAck, StoredMessage
from .api.publish_headers import PublishOptions, publish_header
from .fast_batch import APPEND, COMMIT, COMMIT_EOB, MAX_FLOW, START, Batch, BatchIncompleteError, Sent

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Unpack

    from ..aio.client import Client
    from ..transport import Buffer

__all__ = ["BatchIncompleteError", "FastPublisher"]

FLOW = 100
"""Messages per acknowledgement that are asked for at most, by default."""

FLOW_BYTES = 2 * 1024 * 1024
"""Bytes per acknowledgement, about, by default: the server's queue for a stream takes 128 MiB in all."""

OUTSTANDING_ACKS = 2
"""Acknowledgements that may be due at a time, by default: the server works on one, the next is under way."""

MAX_OUTSTANDING_ACKS = 3

READS = 3
"""Times that the newest message is read: another one may be another stream's, which somebody has had sent."""

COUNTER = b"\r\nNats-Incr:"
"""The header of messages whose payload the server writes (ADR-49)."""


class FastPublisher:
    """One fast-ingest batch, from :meth:`JetStreamContext.fast_publisher`; use it with ``async with``.

    The end of the block commits it. An exception, a lost connection or a program that ends leave the messages
    that were stored: a batch is not atomic. An instance belongs to one task.

    Its end costs a read of one message from the stream's leader, see :meth:`commit`.
    """

    def __init__(
        self,
        client: Client,
        acks: AckCheck,
        check_server: Callable[[], Awaitable[None]],
        request: Callable[..., Awaitable[dict[str, object]]],
        *,
        flow: int | None,
        max_outstanding_acks: int,
        continue_on_gap: bool,
        timeout: float,
    ) -> None:
        if flow is not None and not (type(flow) is int and 0 < flow <= MAX_FLOW):
            raise ConfigError(f"flow is a number of messages from 1 to {MAX_FLOW}, not {flow!r}")
        if type(max_outstanding_acks) is not int or not 0 < max_outstanding_acks <= MAX_OUTSTANDING_ACKS:
            raise ConfigError(f"max_outstanding_acks is 1 to {MAX_OUTSTANDING_ACKS}")
        self._client = client
        self._acks = acks
        self._check_server = check_server
        self._request = request
        self._flow = flow
        self._outstanding = max_outstanding_acks
        self._gap_ok = continue_on_gap
        self._timeout = check_seconds("timeout", timeout)
        self._batch: Batch | None = None
        self._closed = False

    @property
    def sent(self) -> int:
        """How many messages were added so far."""
        return 0 if self._batch is None else self._batch.sent

    @property
    def acknowledged(self) -> int:
        """The sequence in the batch up to which all messages are stored, as the server has said last.

        A hint until :meth:`commit` or :meth:`close` has returned, or the batch was ended by its stream
        (``BatchIncompleteError``, a refused message). Until then these answers name no stream: who sees
        the messages, and may publish to another stream, can have that one send some.

        0 after an end that another publisher's message has caused: then it is not known.

        With ``continue_on_gap``: up to which they are, except for :attr:`lost` and :attr:`refused` ones.
        """
        return 0 if self._batch is None else self._batch.acknowledged

    @property
    def lost(self) -> int:
        """How many messages were lost on the way, with ``continue_on_gap``; another stream can add to it."""
        return 0 if self._batch is None else self._batch.lost

    @property
    def refused(self) -> list[tuple[int, APIError]]:
        """The messages that the stream refused, with ``continue_on_gap``: their sequences in the batch.

        At most 1024. Another stream can add to them, too: see :attr:`acknowledged`.
        """
        return [] if self._batch is None else [*self._batch.refused]

    async def add(
        self,
        subject: str,
        payload: Buffer = b"",
        *,
        headers: HeadersLike | None = None,
        **options: Unpack[PublishOptions],
    ) -> int:
        """Send one message; wait while too many are unacknowledged. Return its sequence in the batch, from 1.

        The first one waits until the server accepts the batch.

        Args:
            subject: one of the stream's.
            payload: any bytes-like object; copied unless it is ``bytes``.
            headers: maps names to one value or several.
            **options: see :class:`natsproto.jetstream.api.publish_headers.PublishOptions`.

        Raises:
            ConfigError, BadSubjectError, LocalProtocolError, MaxPayloadError: refused, nothing was sent; the
                batch stays usable.
            BatchIncompleteError: messages were lost, and so the batch has ended.
            APIError: the stream refuses batches (10205: it needs ``allow_batched``), or it has refused a
                message, which ends the batch.
            NoRespondersError: no stream is bound to the subject, or it has no leader any more.
            RequestTimeoutError, StaleConnectionError: as after the former, messages above
                :attr:`acknowledged` may be stored.
            UnsupportedFeatureError: the server is too old.
            WrongStreamError: another stream has refused the batch, and its own has not answered in time.
        """
        batch = await self._send(subject, payload, headers, options, APPEND)
        seq = batch.sent
        if seq == 1:
            await batch.until(lambda: batch.started)
            if batch.final is not None:
                raise await self._early_end(batch)
        return seq

    async def commit(
        self,
        subject: str,
        payload: Buffer = b"",
        *,
        headers: HeadersLike | None = None,
        **options: Unpack[PublishOptions],
    ) -> PubAck:
        """Send the last message, and wait until all are stored.

        Another publisher of the stream, who sees the messages, can send one of its own as the next one of the
        batch: the server stores that, and not the batch's. So the newest message is read from the leader, and
        compared with the one that was sent. That needs the right to ask for it
        (``$JS.API.STREAM.MSG.GET.<stream>``); without it, or if the message is not there any more, as in a
        stream that removes what was consumed, the server's number of messages is believed.

        It is believed, too, if the other message is a duplicate, which is not stored, and the batch's own has
        a ``msg_id``, or is the same as the one before it.

        Returns:
            The acknowledgement of the last message; its ``count`` is the number of messages.

        Raises:
            NatsError: as :meth:`add`.
            BatchIncompleteError: messages were lost, or another publisher's was stored instead of one.
            WrongStreamError: another stream has stored it, and its own has not answered in time.
        """
        return await self._end(await self._send(subject, payload, headers, options, COMMIT))

    async def close(self) -> PubAck | None:
        """Wait until all messages are stored: a commit without another message. Idempotent.

        Returns:
            The acknowledgement of the last message; ``None`` if there was none.

        Raises:
            NatsError: as :meth:`add`.
        """
        batch = self._batch
        if self._closed or batch is None:
            self._closed = True
            return None if batch is None else batch.final
        await self._ready(batch)
        batch.publish(batch.target, b"", b"", COMMIT_EOB)
        return await self._end(batch)

    async def _end(self, batch: Batch) -> PubAck:
        self._closed = True
        try:
            await batch.until(lambda: False)
        finally:
            batch.close()
        ack = batch.final
        if ack is not None and ack.count == batch.sent and not await self._is_taken(batch):
            return ack
        raise await self._early_end(batch)

    async def _early_end(self, batch: Batch) -> NatsError:
        await self._is_taken(batch)
        return batch.early_end()

    async def _is_taken(self, batch: Batch) -> bool:
        """Find out, once, whether a message that the stream has counted was another publisher's."""
        if batch.taken is None:
            batch.taken = await self._look(batch)
            if batch.taken:
                batch.acknowledged = 0
        return batch.taken

    async def _look(self, batch: Batch) -> bool:
        """Return :meth:`_is_taken`; ``False`` if that cannot be found out."""
        ack = batch.final
        assert ack is not None
        if not ack.count:
            return False
        sent, none_stored = batch.newest()
        if ack.duplicate or not ack.seq:  # none was stored
            return not none_stored
        try:
            for _ in range(READS):
                message = await self._stored({"seq": ack.seq})
                if message.seq == ack.seq and any(_is_stored_as(each, message) for each in sent):
                    return False
            if message.seq != ack.seq or not await self._has_answered(ack):
                return False
            return await self._keeps_subject(ack, message, sent)
        except NatsError:
            return False

    async def _has_answered(self, ack: PubAck) -> bool:
        """Whether the stream that is read is the one that has answered, not one of another domain."""
        try:
            info = await self._request(f"STREAM.INFO.{self._acks.stream}", timeout=self._timeout)
        except NatsError:
            return True
        return info.get("domain") == ack.domain

    async def _keeps_subject(self, ack: PubAck, message: StoredMessage, sent: list[Sent]) -> bool:
        """Whether the stored message has another subject than what was sent because it is another one.

        The stream, or the account, may map subjects. Then none of those that were sent is stored.
        """
        for subject, payload, header in sent:
            if _has_payload(message, payload, header):
                since = max(1, ack.seq + 1 - (ack.count or 0))  # in the time of the batch
                selector = {"seq": since, "next_by_subj": subject.decode()}
                return (await self._stored(selector)).subject == selector["next_by_subj"]
        return True

    async def _stored(self, selector: dict[str, object]) -> StoredMessage:
        suffix = f"STREAM.MSG.GET.{self._acks.stream}"
        return leader_message(
            await self._request(suffix, selector, timeout=self._timeout, limit=MAX_DOCUMENT)
        )

    async def _send(
        self,
        subject: str,
        payload: Buffer,
        headers: HeadersLike | None,
        options: PublishOptions,
        operation: int,
    ) -> Batch:
        connection = self._client.connection
        check_loop(connection.home)
        connection.check_open()
        if self._closed:
            raise ConfigError("the batch is committed")
        checked = check_publish_subject(subject)
        data = payload if type(payload) is bytes else bytes(as_payload(payload))
        header = publish_header(headers, **options) if headers or options else b""
        connection.check_size(len(header), len(data))
        batch = self._batch
        if batch is None:
            if connection.session is None:
                await asyncio.sleep(0)  # whoever begins again at once must let it connect
                raise StaleConnectionError("not connected")
            await self._check_server()
            size = len(header) + len(data)
            flow = self._flow or max(1, min(FLOW, FLOW_BYTES // max(1, size)))
            batch = Batch(self._client, self._acks, flow, self._outstanding, self._gap_ok, self._timeout)
            operation = operation if operation == COMMIT else START
        else:
            await self._ready(batch)
        if connection.session is None:  # never through the reconnect buffer
            batch.fail(StaleConnectionError("not connected"))
            assert batch.failure is not None
            raise batch.failure
        try:
            batch.publish(checked, data, header, operation)
        except NatsError:
            if self._batch is None:
                batch.close()
            raise
        self._batch = batch
        if connection.congested:
            await connection.drain()
        return batch

    async def _ready(self, batch: Batch) -> None:
        """Wait until another message may be sent."""

        def ready() -> bool:
            in_flight = batch.sent - batch.acknowledged
            return batch.started and in_flight < batch.every * self._outstanding

        if not ready():
            await batch.until(ready)
        if batch.failure is not None:
            raise batch.failure
        if batch.final is not None:
            raise await self._early_end(batch)

    async def __aenter__(self) -> FastPublisher:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            await self.close()
        elif self._batch is not None:
            self._closed = True
            self._batch.close()  # the server forgets it after ten seconds

    def __repr__(self) -> str:
        state = "committed" if self._closed else "open"
        return f"<FastPublisher {self._acks.stream!r} {state} {self.acknowledged}/{self.sent}>"


def _is_stored_as(sent: Sent, message: StoredMessage) -> bool:
    subject, payload, header = sent
    return message.subject == subject.decode() and _has_payload(message, payload, header)


def _has_payload(message: StoredMessage, payload: bytes, header: bytes | None) -> bool:
    return message.data == payload or (header is not None and COUNTER in header)
