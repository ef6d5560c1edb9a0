"""Publish to streams and wait until the messages are stored."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from math import inf
from typing import TYPE_CHECKING

from ..aio.client import HeadersLike, as_payload
from ..errors import ConfigError, NoRespondersError, RequestTimeoutError
from ..subjects import check_publish_subject
from .api.acks import ANY_DOMAIN, AckCheck, OwnAnswer, parse_pub_ack
from .api.errors import check_name
from .api.models import PubAck
from .api.publish_headers import NEEDS_2_11, PublishOptions, publish_header
from .fast_batch import LEVEL, MINIMUM
from .fast_publisher import OUTSTANDING_ACKS, FastPublisher
from .publisher import DEFAULT_PROGRESS, DEFAULT_WINDOW, PublishWindow
from .requests import ApiRequests

if TYPE_CHECKING:
    from typing import Unpack

    from ..transport import Buffer
    from ..wire import Msg as WireMsg

PUBLISH_RETRIES = 2
"""Attempts after the first one, for a publish that found no responders, by default (ADR-22)."""

PUBLISH_RETRY_WAIT = 0.25
"""Seconds between them, by default."""


class Publishing(ApiRequests):
    """The part of :class:`natsproto.JetStreamContext` that publishes."""

    async def publish(
        self,
        subject: str,
        payload: Buffer = b"",
        *,
        headers: HeadersLike | None = None,
        timeout: float | None = None,
        retry_attempts: int = PUBLISH_RETRIES,
        retry_wait: float = PUBLISH_RETRY_WAIT,
        **options: Unpack[PublishOptions],
    ) -> PubAck:
        """Publish and wait until the message is stored.

        After "no responders" (no stream there, or no leader at the moment) it is tried again (ADR-22);
        nothing else is retried, because the first attempt may have been stored.

        Without ``stream`` nothing tells whose answer it is: a fellow client of the account that sees the
        message, and may publish to a stream of its own, can have that one acknowledge or refuse it. So give
        ``stream`` where others may publish: only its answer counts. Who may publish to the same stream, too,
        can still have its answer to a message of theirs taken for the one to ours; but not a refusal that
        needs a header which ours does not have, nor one that is not known.

        Args:
            subject: no wildcards, no white space.
            payload: any bytes-like object.
            headers: maps names to one value or several.
            timeout: seconds that each attempt's answer may take (default: the context's).
            retry_attempts: how many attempts may follow the first one; -1 = as many as ``timeout`` seconds
                allow, all in all.
            retry_wait: seconds between them.
            **options: what the stream checks, and more: see
                :class:`natsproto.jetstream.api.publish_headers.PublishOptions`.

        Raises:
            ConfigError: an option makes no sense; nothing was sent.
            WrongLastSequenceError, StorageFullError, StreamSealedError, APIError: refused.
            NoRespondersError: no stream is bound to the subject, or it has no leader.
            RequestTimeoutError, StaleConnectionError: whether it was stored is unknown. A refusal that this
                message cannot have caused is the reason of the former.
            RemoteProtocolError: what answers is no stream; or, with ``stream``, it does not say which.
            UnsupportedFeatureError: the server is too old for an option; nothing was sent. To find out, a
                server older than 2.12, or a context with ``domain`` or ``prefix``, is asked for
                :meth:`account_info` once.
            WrongStreamError: another domain than the context's has stored it; or, with ``stream``, only
                another one has answered in time. Whether the right one has stored it, too, is unknown.
        """
        self.client.connection.check_open()
        block = publish_header(headers, **options) if headers or options else b""
        checked, data = check_publish_subject(subject), as_payload(payload)
        _check_retries(retry_attempts, retry_wait)
        if not NEEDS_2_11.isdisjoint(options):
            await self._check_options(options)
        retries, stream = (timeout, retry_attempts, retry_wait), options.get("stream")
        if stream is None:
            answer = (await self.publish_frame(checked, data, block, *retries)).payload
            ack = parse_pub_ack(answer)
            if self.domain is not None:
                AckCheck(ack.stream, self.domain).parse(answer)
            return ack
        own = OwnAnswer(AckCheck(stream, self.domain or ANY_DOMAIN), block)
        try:
            await self.publish_frame(checked, data, block, *retries, counts=own)
        except RequestTimeoutError as exc:
            raise own.missing(exc) from own.passed
        return own.result()

    async def _check_options(self, options: PublishOptions) -> None:
        """Make sure that the server does not ignore one of them."""
        for name in NEEDS_2_11:
            if options.get(name) is not None:
                await self._require_level(1, f"{name} of a publish", "2.11.0")

    async def publish_frame(
        self,
        subject: bytes,
        payload: Buffer,
        header: bytes,
        timeout: float | None = None,
        retry_attempts: int = PUBLISH_RETRIES,
        retry_wait: float = PUBLISH_RETRY_WAIT,
        *,
        counts: Callable[[WireMsg], bool] | None = None,
    ) -> WireMsg:
        """:meth:`publish` for layers above: checked subject, encoded header, unparsed answer.

        ``counts``: as for :meth:`natsproto.Client.request_frame`.
        """
        client = self.client
        client.connection.check_size(len(header), len(payload))
        limit = self.timeout if timeout is None else timeout
        if retry_attempts < 0:
            return await self._retrying(subject, payload, header, limit, retry_wait, counts)
        while True:
            try:
                return await client.request_frame(subject, payload, header, limit, begins=b"", counts=counts)
            except NoRespondersError:
                if not retry_attempts:
                    raise
            retry_attempts -= 1
            await asyncio.sleep(retry_wait)

    async def _retrying(
        self,
        subject: bytes,
        payload: Buffer,
        header: bytes,
        limit: float,
        retry_wait: float,
        counts: Callable[[WireMsg], bool] | None,
    ) -> WireMsg:
        """:meth:`publish_frame` with as many attempts as ``limit`` seconds allow."""
        loop = asyncio.get_running_loop()
        end = loop.time() + limit
        while True:
            try:
                left = end - loop.time()
                return await self.client.request_frame(
                    subject, payload, header, left, begins=b"", counts=counts
                )
            except NoRespondersError:
                if loop.time() + retry_wait >= end:
                    raise
            await asyncio.sleep(retry_wait)

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

    def fast_publisher(
        self,
        stream: str,
        *,
        flow: int | None = None,
        max_outstanding_acks: int = OUTSTANDING_ACKS,
        continue_on_gap: bool = False,
        timeout: float | None = None,
    ) -> FastPublisher:
        """Publish many messages to the subjects of one stream at the pace that the server sets (ADR-50).

        Needs nats-server 2.14 and a stream with ``allow_batched``. All messages come in order, without gaps,
        but others may be between them; and the batch is not atomic: what ends it early leaves the first
        messages stored.

        Args:
            stream: the stream's name; only its answers count.
            flow: messages per acknowledgement, at most; the server may choose fewer. Default: 100, or fewer
                when the first message is large.
            max_outstanding_acks: how many acknowledgements may be due before it waits: 1 to 3.
            continue_on_gap: go on after messages that were lost or refused, which
                :attr:`FastPublisher.lost` and :attr:`FastPublisher.refused` count; else the batch ends.
            timeout: seconds without a due acknowledgement before it fails (default: the context's).

        Example::

            async with js.fast_publisher("EVENTS") as batch:
                for line in lines:
                    await batch.add("events.log", line)
        """
        return FastPublisher(
            self.client,
            AckCheck(check_name("stream", stream), self.domain or ANY_DOMAIN),
            partial(self._require_level, LEVEL, "fast-ingest publishing", MINIMUM),
            self.request,
            flow=flow,
            max_outstanding_acks=max_outstanding_acks,
            continue_on_gap=continue_on_gap,
            timeout=self.timeout if timeout is None else timeout,
        )


def _check_retries(attempts: int, wait: float) -> None:
    if type(attempts) is not int or attempts < -1:
        raise ConfigError(f"retry_attempts is a whole number from -1 on, not {attempts!r}")
    if not isinstance(wait, int | float) or not 0 <= wait < inf:
        raise ConfigError(f"retry_wait is a number of seconds, not {wait!r}")
