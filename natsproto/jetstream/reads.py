"""Read single messages of a stream, without a consumer: from the leader, or by direct get (ADR-31)."""

from __future__ import annotations

import asyncio
import base64
import binascii
from collections import deque
from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import TYPE_CHECKING

from .._values import seconds
from ..errors import ConfigError, NatsError, RemoteProtocolError, RequestTimeoutError
from ..subjects import check_subscribe_subject
from .api.codec import MAX_DOCUMENT, dumps, is_number, parse_time
from .api.errors import check_name
from .api.models import StoredMessage
from .direct_get import BatchSlot, header_int, reply_status, status_error, stored_message
from .requests import ApiRequests

if TYPE_CHECKING:
    from ..wire import Msg as WireMsg

BATCH_BYTES = 4 * 1024 * 1024
"""Bytes of one batch read by default; without a limit the server would send 64 MiB unthrottled."""


class MessageReads(ApiRequests):
    """The part of :class:`natsproto.JetStreamContext` that reads and deletes single messages."""

    async def get_message(
        self,
        stream: str,
        *,
        seq: int | None = None,
        last_by_subject: str | None = None,
        next_by_subject: str | None = None,
    ) -> StoredMessage:
        """Read one message from the stream's **leader**: never stale.

        Args:
            seq: its sequence, or with ``next_by_subject`` the lowest one to consider.
            last_by_subject: the newest message of a subject.
            next_by_subject: the first message of a subject (wildcards allowed) from ``seq`` on.

        Raises:
            MessageNotFoundError: there is no such message.
        """
        document = _selector(seq, last_by_subject, next_by_subject)
        suffix = f"STREAM.MSG.GET.{check_name('stream', stream)}"
        answer = await self.request(suffix, document, limit=MAX_DOCUMENT)
        return leader_message(answer)

    async def direct_get(
        self,
        stream: str,
        *,
        seq: int | None = None,
        last_by_subject: str | None = None,
        next_by_subject: str | None = None,
    ) -> StoredMessage:
        """Like :meth:`get_message`, but from any replica: cheaper, and possibly stale with replicas.

        Needs ``allow_direct`` on the stream; nats-server 2.9.

        Raises:
            MessageNotFoundError: there is no such message.
            NoRespondersError: no such stream, or direct get is not allowed.
        """
        subject = self.subject(f"DIRECT.GET.{check_name('stream', stream)}")
        document = _selector(seq, last_by_subject, next_by_subject)
        self.client.connection.check_headers("direct get")
        msg = await self.client.request_frame(subject, dumps(document), b"", self.timeout)
        if msg.header is not None and reply_status(msg) is not None:
            raise status_error(msg.header, subject.decode())
        return stored_message(msg)

    def get_batch(
        self, stream: str, *, subject: str = ">", seq: int = 1, batch: int = 256, max_bytes: int = BATCH_BYTES
    ) -> AsyncGenerator[StoredMessage, None]:
        """Direct get of up to ``batch`` messages of ``subject`` from ``seq`` on (nats-server 2.11).

        Each carries ``num_pending``; before nats-server 2.12 that is one too high. The batch ends after
        ``batch`` messages, after ``max_bytes`` (the last message may exceed it), or when no more match. A
        server older than 2.11 answers with one message without ``num_pending``.

        Raises:
            MessageNotFoundError: no message matches.
            RequestTimeoutError: nothing came for ``timeout``, or a message was lost on the way.
        """
        document = {"seq": seq, "next_by_subj": subject, "batch": batch, "max_bytes": max_bytes}
        only = None if {"*", ">"}.intersection(subject.split(".")) else subject
        return self._batch(stream, document, batch, max_bytes, only)

    def get_last_messages(
        self, stream: str, subjects: Sequence[str], *, up_to_seq: int | None = None, batch: int = 1024
    ) -> AsyncGenerator[StoredMessage, None]:
        """Direct get of the newest message of each subject, at most 1024 (nats-server 2.11).

        Raises:
            APIError: more than 1024 subjects match (413), or the server is older (408).
            RequestTimeoutError: nothing came for ``timeout``, or a message was lost on the way.
        """
        document: dict[str, object] = {"multi_last": list(subjects), "batch": batch}
        if up_to_seq is not None:
            document["up_to_seq"] = up_to_seq
        return self._batch(stream, document, batch)

    async def _batch(
        self,
        stream: str,
        document: Mapping[str, object],
        most: int,
        max_bytes: int | None = None,
        only: str | None = None,
    ) -> AsyncGenerator[StoredMessage, None]:
        loop = asyncio.get_running_loop()
        queue: deque[WireMsg] = deque()
        ended: list[NatsError | None] = []
        waiter: asyncio.Future[None] = loop.create_future()
        before = 0  # sequence of the previous message: each message names it, so a lost one is noticed

        def check(last: int | None) -> None:
            if last is not None and last != before:
                raise RequestTimeoutError(f"a message of a batch of {stream!r} was lost on the way")

        def wake() -> None:
            if not waiter.done():
                waiter.set_result(None)

        def on_message(msg: WireMsg, seq: int | None) -> None:
            queue.append(msg)
            wake()

        def on_done(exc: NatsError | None) -> None:
            ended.append(exc)
            wake()

        subject = self.subject(f"DIRECT.GET.{check_name('stream', stream)}")
        connection = self.client.connection
        connection.check_open()
        connection.check_headers("direct get")
        slot = BatchSlot(subject, on_message, on_done, most=most, max_bytes=max_bytes, only=only)
        mux = connection.mux
        mux.open(slot)
        try:
            connection.publish(subject, dumps(document), slot.inbox)
            while True:
                while queue:
                    message = stored_message(queue.popleft())
                    if message.seq == before:
                        continue  # a duplicate
                    assert message.header is not None
                    check(header_int(message.header, b"Nats-Last-Sequence"))
                    before = message.seq
                    yield message
                    if message.num_pending is None:
                        return  # a server without batches
                if ended:
                    if ended[0] is not None:
                        raise ended[0]
                    check(slot.last)
                    return
                waiter = loop.create_future()
                try:
                    async with asyncio.timeout(self.timeout):
                        await waiter
                except TimeoutError:
                    connection.probe()
                    raise RequestTimeoutError(
                        f"a batch read of {stream!r} stalled for {seconds(self.timeout)} s"
                    ) from None
        finally:
            mux.close(slot)

    async def delete_message(self, stream: str, seq: int, *, erase: bool = False) -> None:
        """Delete one message; ``erase`` overwrites it on disk as well."""
        document = {"seq": seq, "no_erase": not erase}
        await self.request(f"STREAM.MSG.DELETE.{check_name('stream', stream)}", document)


def _selector(seq: int | None, last: str | None, following: str | None) -> dict[str, object]:
    """Return the body of a request for a message; long names go into it, never into the API subject."""
    document: dict[str, object] = {}
    if seq is not None:
        document["seq"] = seq
    if last is not None:
        document["last_by_subj"] = check_subscribe_subject(last).decode()
    if following is not None:
        document["next_by_subj"] = check_subscribe_subject(following).decode()
    if not document or (last is not None and len(document) > 1):
        raise ConfigError("choose one message: seq, last_by_subject, or next_by_subject (with seq)")
    return document


def leader_message(answer: dict[str, object]) -> StoredMessage:
    """Return the message in an answer to ``STREAM.MSG.GET``.

    Raises:
        RemoteProtocolError: it has none, or cannot be parsed.
    """
    message = answer.get("message")
    if not isinstance(message, dict):
        raise RemoteProtocolError("an answer to STREAM.MSG.GET has no message")
    subject, seq = message.get("subject"), message.get("seq")
    if not isinstance(subject, str) or not is_number(seq):
        raise RemoteProtocolError("an answer to STREAM.MSG.GET lacks its subject or sequence")
    try:
        data = base64.b64decode(message.get("data") or "")
        header = base64.b64decode(message.get("hdrs") or "")
    except (binascii.Error, ValueError, TypeError):
        raise RemoteProtocolError("an answer to STREAM.MSG.GET is not base64") from None
    return StoredMessage(subject, seq, data, header or None, parse_time(message.get("time")))
