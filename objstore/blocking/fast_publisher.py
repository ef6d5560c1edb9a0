"""Fast-ingest batches in the blocking API."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Unpack

    from natsproto.aio.client import HeadersLike
    from natsproto.errors import APIError
    from natsproto.jetstream import fast_publisher
    from natsproto.jetstream.api.models import PubAck
    from natsproto.jetstream.api.publish_headers import PublishOptions
    from natsproto.transport import Buffer

    from .loop_thread import Link


class FastPublisher:
    """One fast-ingest batch, from :meth:`JetStreamContext.fast_publisher`; use it with ``with``.

    The end of the block commits it; an exception leaves the messages that were stored.
    """

    def __init__(self, link: Link, twin: fast_publisher.FastPublisher) -> None:
        self._link = link
        self._batch = twin

    @property
    def sent(self) -> int:
        """How many messages were added so far."""
        return self._batch.sent

    @property
    def acknowledged(self) -> int:
        """The sequence in the batch up to which all messages are stored."""
        return self._batch.acknowledged

    @property
    def lost(self) -> int:
        """How many messages were lost on the way, with ``continue_on_gap``."""
        return self._batch.lost

    @property
    def refused(self) -> list[tuple[int, APIError]]:
        """The messages that the stream refused, with ``continue_on_gap``: their sequences in the batch."""
        return self._batch.refused

    def add(
        self,
        subject: str,
        payload: Buffer = b"",
        *,
        headers: HeadersLike | None = None,
        **options: Unpack[PublishOptions],
    ) -> int:
        """Send one message, and return its sequence in the batch: :meth:`FastPublisher.add` of asyncio."""
        return self._link.call(self._batch.add, subject, payload, headers=headers, **options)

    def commit(
        self,
        subject: str,
        payload: Buffer = b"",
        *,
        headers: HeadersLike | None = None,
        **options: Unpack[PublishOptions],
    ) -> PubAck:
        """Send the last message, and wait until all are stored."""
        return self._link.call(self._batch.commit, subject, payload, headers=headers, **options)

    def close(self) -> PubAck | None:
        """Wait until all messages are stored. Idempotent."""
        return self._link.call(self._batch.close)

    def __enter__(self) -> FastPublisher:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            self._link.settle(lambda: self._batch.__aexit__(kind, exc, trace))

    def __repr__(self) -> str:
        return repr(self._batch)
