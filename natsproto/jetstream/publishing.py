"""Publish to streams and wait until the messages are stored."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from ..aio.client import HeadersLike, as_payload
from ..errors import NoRespondersError
from ..headers import Headers, encode_headers
from ..subjects import check_publish_subject
from .api.acks import ANY_DOMAIN, AckCheck, parse_pub_ack
from .api.errors import check_name
from .api.models import PubAck
from .publisher import DEFAULT_PROGRESS, DEFAULT_WINDOW, PublishWindow
from .requests import ApiRequests

if TYPE_CHECKING:
    from ..transport import Buffer
    from ..wire import Msg as WireMsg

PUBLISH_RETRIES = 2
"""Attempts after the first one, for a publish that found no responders (ADR-22)."""

PUBLISH_RETRY_WAIT = 0.25
"""Seconds between them."""


class Publishing(ApiRequests):
    """The part of :class:`natsproto.JetStreamContext` that publishes."""

    async def publish(
        self,
        subject: str,
        payload: Buffer = b"",
        *,
        headers: HeadersLike | None = None,
        timeout: float | None = None,
        stream: str | None = None,
        msg_id: str | None = None,
        expected_last_seq: int | None = None,
        expected_last_subject_seq: int | None = None,
    ) -> PubAck:
        """Publish and wait until the message is stored.

        After "no responders" (no stream there, or no leader at the moment) it is tried twice more, 250 ms
        apart (ADR-22); nothing else is retried, because the first attempt may have been stored.

        Args:
            stream: the server refuses the message if another stream is bound to the subject.
            msg_id: the stream does not store a second message with this id within its duplicate window.
            expected_last_seq, expected_last_subject_seq: compare-and-set on stream or subject.

        Raises:
            WrongLastSequenceError, StorageFullError, StreamSealedError, APIError: refused.
            RequestTimeoutError, StaleConnectionError: whether it was stored is unknown.
            WrongStreamError: another domain than the context's, or another stream than ``stream``, has stored
                it; whether the right one has stored it, too, is unknown.
        """
        self.client.connection.check_open()
        fields = Headers(headers or {})
        for key, value in (
            ("Nats-Expected-Stream", stream),
            ("Nats-Msg-Id", msg_id),
            ("Nats-Expected-Last-Sequence", expected_last_seq),
            ("Nats-Expected-Last-Subject-Sequence", expected_last_subject_seq),
        ):
            if value is not None:
                fields[key] = value if isinstance(value, str) else int.__repr__(value)
        block = encode_headers(fields) if fields else b""
        checked, data = check_publish_subject(subject), as_payload(payload)
        answer = (await self.publish_frame(checked, data, block, timeout)).payload
        ack = parse_pub_ack(answer)
        if stream is not None or self.domain is not None:
            AckCheck(stream or ack.stream, self.domain or ANY_DOMAIN).parse(answer)
        return ack

    async def publish_frame(
        self, subject: bytes, payload: Buffer, header: bytes, timeout: float | None = None
    ) -> WireMsg:
        """:meth:`publish` for layers above: checked subject, encoded header, unparsed answer."""
        client = self.client
        client.connection.check_size(len(header), len(payload))
        for attempt in range(PUBLISH_RETRIES + 1):
            try:
                return await client.request_frame(
                    subject, payload, header, self.timeout if timeout is None else timeout
                )
            except NoRespondersError:
                if attempt == PUBLISH_RETRIES:
                    raise
                await asyncio.sleep(PUBLISH_RETRY_WAIT)
        raise AssertionError("unreachable")

    def publish_window(
        self,
        subject: str,
        stream: str,
        *,
        max_bytes: int = DEFAULT_WINDOW,
        progress_timeout: float = DEFAULT_PROGRESS,
    ) -> PublishWindow:
        """Publish many messages to one subject without waiting for each acknowledgement; see the class.

        If the context has a ``domain``, acknowledgements of other domains do not count.
        """
        return PublishWindow(
            self.client,
            check_publish_subject(subject),
            AckCheck(check_name("stream", stream), self.domain or ANY_DOMAIN),
            max_bytes=max_bytes,
            progress_timeout=progress_timeout,
        )
