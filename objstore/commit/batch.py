"""Several messages as one commit: all of them, or none (ADR-50)."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from natsproto._values import seconds
from natsproto.errors import APIError, NatsError, RequestTimeoutError, StaleConnectionError
from natsproto.subjects import secret_name

from ..bucket.bucket import Bucket

if TYPE_CHECKING:
    from natsproto.jetstream.api.models import PubAck
    from natsproto.wire import Msg as WireMsg


MINIMUM = "2.12.0"
"""The first server that supports batches."""

PACE = 8 * 1024 * 1024
"""Bytes after which a response is awaited: the server stages a batch in memory."""


class Batch:
    """One batch of messages for one stream (ADR-50).

    Args:
        bucket: the bucket of the stream.
        timeout: seconds for each response.
    """

    def __init__(self, bucket: Bucket, timeout: float) -> None:
        self._bucket = bucket
        self._timeout = timeout
        self._id = secret_name().encode()
        self._count = 0
        self._unpaced = 0
        self._headers = b""  # of all messages: what is refused may be any of them
        self._epoch = bucket.connection.epoch

    def _header(self, header: bytes) -> bytes:
        self._count += 1
        batch = b"Nats-Batch-Id: %b\r\n" % self._id
        if header not in self._headers:
            self._headers += header + batch
        return header[:-2] + batch + b"Nats-Batch-Sequence: %d\r\n\r\n" % self._count

    def _may_answer(self, msg: WireMsg) -> bool:
        return self._bucket.acks.may_answer(msg.payload, self._headers)

    def _may_end(self, msg: WireMsg) -> bool:
        try:
            ack = self._bucket.acks.parse(msg.payload)
        except NatsError:
            return self._may_answer(msg)
        return ack.batch == self._id.decode() and ack.count == self._count

    async def add(self, subject: bytes, payload: bytes | memoryview, header: bytes) -> None:
        """Stage a message.

        Raises:
            AlreadyStored: the server does not support batches.
            NatsError: the batch has failed; or the network accepts no more (``RequestTimeoutError``).
        """
        client, connection = self._bucket.client, self._bucket.connection
        header = self._header(header)
        connection.check_size(len(header), len(payload))
        self._unpaced += len(payload)
        if self._count == 1 or self._unpaced > PACE:
            self._unpaced = 0
            answer = await client.request_frame(
                subject, payload, header, self._timeout, begins=b"", counts=self._may_answer
            )
            if answer.payload:
                self._bucket.own_ack(answer)  # raises the refusal
                raise AlreadyStored
        else:
            connection.publish(subject, payload, None, header)
            if connection.congested:
                await self._drain()
        if connection.epoch != self._epoch:
            raise StaleConnectionError("the connection was replaced in the middle of a batch")

    async def _drain(self) -> None:
        """Wait until the network accepts more, at most as long as for a response; it might never do so."""
        connection = self._bucket.connection
        try:
            async with asyncio.timeout(self._timeout):
                await connection.drain()
        except TimeoutError:
            connection.probe()
            raise RequestTimeoutError(
                f"the network took no more of a batch within {seconds(self._timeout)} s"
            ) from None

    async def end(self, subject: bytes, payload: bytes, header: bytes) -> PubAck:
        """Commit the batch with its last message."""
        bucket = self._bucket
        header = self._header(header)[:-2] + b"Nats-Batch-Commit: 1\r\n\r\n"
        bucket.connection.check_size(len(header), len(payload))
        answer = await bucket.client.request_frame(
            subject, payload, header, self._timeout, begins=b"", counts=self._may_end
        )
        try:
            return bucket.own_ack(answer)
        except APIError as exc:
            if exc.err_code in FORGOTTEN:
                raise StaleConnectionError(f"the server no longer has this batch: {exc}") from exc
            raise


DISABLED = 10174
"""Error code where the stream allows no batches, or none any more."""

FORGOTTEN = frozenset((10175, 10176, 10201))
"""Error codes for the end of a batch that does not exist, or whose message id exists: a duplicate may already
have ended the batch. The leader knows."""


class AlreadyStored(Exception):
    """The server does not support batches: it has stored the first message as an ordinary one."""
