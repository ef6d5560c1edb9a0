"""JetStream in the blocking API: streams, messages, publishing, consumers, object stores."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from natsproto.jetstream.fast_publisher import OUTSTANDING_ACKS
from natsproto.jetstream.publishing import PUBLISH_RETRIES, PUBLISH_RETRY_WAIT
from natsproto.jetstream.reads import BATCH_BYTES, MOST_SUBJECTS

from .consumers import PullConsumer, PushConsumer
from .fast_publisher import FastPublisher
from .pieces import Pulled
from .store import ObjectStore

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime
    from typing import Unpack

    from natsproto.aio.client import HeadersLike
    from natsproto.jetstream import context
    from natsproto.jetstream.api.account import AccountInfo
    from natsproto.jetstream.api.models import (
        ConsumerConfig,
        ConsumerInfo,
        PubAck,
        StoredMessage,
        StreamConfig,
        StreamInfo,
    )
    from natsproto.jetstream.api.publish_headers import PublishOptions
    from natsproto.jetstream.consumers import ConsumerPause
    from natsproto.transport import Buffer

    from .. import store
    from ..format.models import BucketFields, ObjectStoreConfig, ObjectStoreStatus
    from .client import Client
    from .loop_thread import Link


class JetStreamContext:
    """JetStream as seen by one client: the twin of :class:`natsproto.JetStreamContext`.

    Each method waits for its namesake, with the same arguments, results and errors.
    """

    def __init__(self, link: Link, client: Client, twin: context.JetStreamContext) -> None:
        self._link = link
        self._js = twin
        self.client: Client = client
        self.domain: str | None = twin.domain
        self.prefix: str = twin.prefix
        self.timeout: float = twin.timeout

    def request(
        self,
        suffix: str,
        document: Mapping[str, object] | None = None,
        *,
        timeout: float | None = None,
        limit: int | None = None,
    ) -> dict[str, object]:
        """Send an API request, return its answer: :meth:`natsproto.JetStreamContext.request`."""
        return self._link.call(self._js.request, suffix, document, timeout=timeout, limit=limit)

    def account_info(self) -> AccountInfo:
        """Limits and usage of the account: :meth:`natsproto.JetStreamContext.account_info`."""
        return self._link.call(self._js.account_info)

    # -- streams ----------------------------------------------------------------------------------

    def create_stream(self, config: StreamConfig | Mapping[str, object]) -> StreamInfo:
        """Create a stream: :meth:`natsproto.JetStreamContext.create_stream`."""
        return self._link.call(self._js.create_stream, config)

    def update_stream(self, config: StreamConfig | Mapping[str, object]) -> StreamInfo:
        """Replace a stream's configuration: :meth:`natsproto.JetStreamContext.update_stream`."""
        return self._link.call(self._js.update_stream, config)

    def stream_info(self, name: str, *, timeout: float | None = None) -> StreamInfo:
        """Configuration and state: :meth:`natsproto.JetStreamContext.stream_info`."""
        return self._link.call(self._js.stream_info, name, timeout=timeout)

    def stream_subjects(self, name: str, subjects_filter: str = ">") -> dict[str, int]:
        """Subjects with their counts: :meth:`natsproto.JetStreamContext.stream_subjects`."""
        return self._link.call(self._js.stream_subjects, name, subjects_filter)

    def delete_stream(self, name: str) -> None:
        """Delete a stream: :meth:`natsproto.JetStreamContext.delete_stream`."""
        self._link.call(self._js.delete_stream, name)

    def purge_stream(
        self, name: str, *, subject: str | None = None, seq: int | None = None, keep: int | None = None
    ) -> int:
        """Remove messages; return how many: :meth:`natsproto.JetStreamContext.purge_stream`."""
        return self._link.call(self._js.purge_stream, name, subject=subject, seq=seq, keep=keep)

    def stream_names(self, subject: str | None = None) -> list[str]:
        """Names of streams: :meth:`natsproto.JetStreamContext.stream_names`."""
        return self._link.call(self._js.stream_names, subject)

    def streams(self, subject: str | None = None) -> list[StreamInfo]:
        """Configuration and state of streams: :meth:`natsproto.JetStreamContext.streams`."""
        return self._link.call(self._js.streams, subject)

    # -- messages ---------------------------------------------------------------------------------

    def get_message(
        self,
        stream: str,
        *,
        seq: int | None = None,
        last_by_subject: str | None = None,
        next_by_subject: str | None = None,
        start_time: datetime | None = None,
    ) -> StoredMessage:
        """Read one message from the leader: :meth:`natsproto.JetStreamContext.get_message`."""
        return self._link.call(
            self._js.get_message,
            stream,
            seq=seq,
            last_by_subject=last_by_subject,
            next_by_subject=next_by_subject,
            start_time=start_time,
        )

    def direct_get(
        self,
        stream: str,
        *,
        seq: int | None = None,
        last_by_subject: str | None = None,
        next_by_subject: str | None = None,
        start_time: datetime | None = None,
    ) -> StoredMessage:
        """Read one message from any replica: :meth:`natsproto.JetStreamContext.direct_get`."""
        return self._link.call(
            self._js.direct_get,
            stream,
            seq=seq,
            last_by_subject=last_by_subject,
            next_by_subject=next_by_subject,
            start_time=start_time,
        )

    def get_batch(
        self,
        stream: str,
        *,
        subject: str = ">",
        seq: int | None = None,
        start_time: datetime | None = None,
        batch: int = 256,
        max_bytes: int = BATCH_BYTES,
    ) -> Iterator[StoredMessage]:
        """Iterate over up to ``batch`` messages: :meth:`natsproto.JetStreamContext.get_batch`."""
        source = self._js.get_batch(
            stream, subject=subject, seq=seq, start_time=start_time, batch=batch, max_bytes=max_bytes
        )
        return Pulled(self._link, source)

    def get_last_messages(
        self,
        stream: str,
        subjects: Sequence[str],
        *,
        seq: int | None = None,
        up_to_seq: int | None = None,
        up_to_time: datetime | None = None,
        batch: int = MOST_SUBJECTS,
        max_bytes: int = BATCH_BYTES,
    ) -> Iterator[StoredMessage]:
        """Iterate over newest messages: :meth:`natsproto.JetStreamContext.get_last_messages`."""
        source = self._js.get_last_messages(
            stream,
            subjects,
            seq=seq,
            up_to_seq=up_to_seq,
            up_to_time=up_to_time,
            batch=batch,
            max_bytes=max_bytes,
        )
        return Pulled(self._link, source)

    def delete_message(self, stream: str, seq: int, *, erase: bool = False) -> None:
        """Delete one message: :meth:`natsproto.JetStreamContext.delete_message`."""
        self._link.call(self._js.delete_message, stream, seq, erase=erase)

    # -- publishing -------------------------------------------------------------------------------

    def publish(
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
        """Publish and wait until the message is stored: :meth:`natsproto.JetStreamContext.publish`."""
        return self._link.call(
            self._js.publish,
            subject,
            payload,
            headers=headers,
            timeout=timeout,
            retry_attempts=retry_attempts,
            retry_wait=retry_wait,
            **options,
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
        """Begin a fast-ingest batch: :meth:`natsproto.JetStreamContext.fast_publisher`."""
        twin = self._js.fast_publisher(
            stream,
            flow=flow,
            max_outstanding_acks=max_outstanding_acks,
            continue_on_gap=continue_on_gap,
            timeout=timeout,
        )
        return FastPublisher(self._link, twin)

    # -- consumers --------------------------------------------------------------------------------

    def create_consumer(
        self, stream: str, config: ConsumerConfig | Mapping[str, object], *, timeout: float | None = None
    ) -> ConsumerInfo:
        """Create a consumer: :meth:`natsproto.JetStreamContext.create_consumer`."""
        return self._link.call(self._js.create_consumer, stream, config, timeout=timeout)

    def consumer_info(self, stream: str, consumer: str) -> ConsumerInfo:
        """Configuration and state of a consumer: :meth:`natsproto.JetStreamContext.consumer_info`."""
        return self._link.call(self._js.consumer_info, stream, consumer)

    def delete_consumer(self, stream: str, consumer: str) -> None:
        """Delete a consumer: :meth:`natsproto.JetStreamContext.delete_consumer`."""
        self._link.call(self._js.delete_consumer, stream, consumer)

    def consumer_names(self, stream: str) -> list[str]:
        """Names of a stream's consumers: :meth:`natsproto.JetStreamContext.consumer_names`."""
        return self._link.call(self._js.consumer_names, stream)

    def pull_consumer(
        self,
        stream: str,
        consumer: str | None = None,
        *,
        config: ConsumerConfig | Mapping[str, object] | None = None,
    ) -> PullConsumer:
        """Bind to a pull consumer: :meth:`natsproto.JetStreamContext.pull_consumer`."""
        return PullConsumer(
            self._link, self._link.call(self._js.pull_consumer, stream, consumer, config=config)
        )

    def push_consumer(
        self,
        stream: str,
        consumer: str | None = None,
        *,
        config: ConsumerConfig | Mapping[str, object] | None = None,
        pending_msgs_limit: int | None = None,
        pending_bytes_limit: int | None = None,
    ) -> PushConsumer:
        """Bind to a push consumer: :meth:`natsproto.JetStreamContext.push_consumer`."""

        async def bind() -> PushConsumer:
            twin = await self._js.push_consumer(
                stream,
                consumer,
                config=config,
                pending_msgs_limit=pending_msgs_limit,
                pending_bytes_limit=pending_bytes_limit,
            )
            return PushConsumer(self._link, twin)  # here: if the caller is interrupted, it is dropped

        return self._link.call(bind)

    def pause_consumer(self, stream: str, consumer: str, until: datetime) -> ConsumerPause:
        """Let a consumer deliver nothing until a time: :meth:`natsproto.JetStreamContext.pause_consumer`."""
        return self._link.call(self._js.pause_consumer, stream, consumer, until)

    def resume_consumer(self, stream: str, consumer: str) -> ConsumerPause:
        """Let a paused consumer continue: :meth:`natsproto.JetStreamContext.resume_consumer`."""
        return self._link.call(self._js.resume_consumer, stream, consumer)

    def unpin_consumer(self, stream: str, consumer: str, group: str) -> None:
        """Let the server pin another client: :meth:`natsproto.JetStreamContext.unpin_consumer`."""
        self._link.call(self._js.unpin_consumer, stream, consumer, group)

    # -- object stores ----------------------------------------------------------------------------

    def _store(self, twin: store.ObjectStore) -> ObjectStore:
        return ObjectStore(self._link, self, twin)

    def object_store(self, bucket: str, *, create: bool = False) -> ObjectStore:
        """Open an object store: :meth:`natsproto.JetStreamContext.object_store`."""
        return self._store(self._link.call(self._js.object_store, bucket, create=create))

    def create_object_store(
        self, config: ObjectStoreConfig | str | None = None, **params: Unpack[BucketFields]
    ) -> ObjectStore:
        """Create an object store, or open it: :meth:`natsproto.JetStreamContext.create_object_store`."""
        return self._store(self._link.call(self._js.create_object_store, config, **params))

    def update_object_store(
        self, config: ObjectStoreConfig | str | None = None, **params: Unpack[BucketFields]
    ) -> ObjectStore:
        """Change an object store's configuration: :meth:`natsproto.JetStreamContext.update_object_store`."""
        return self._store(self._link.call(self._js.update_object_store, config, **params))

    def create_or_update_object_store(
        self, config: ObjectStoreConfig | str | None = None, **params: Unpack[BucketFields]
    ) -> ObjectStore:
        """Create or change a bucket: :meth:`natsproto.JetStreamContext.create_or_update_object_store`."""
        return self._store(self._link.call(self._js.create_or_update_object_store, config, **params))

    def object_store_names(self) -> list[str]:
        """Names of all object stores: :meth:`natsproto.JetStreamContext.object_store_names`."""
        return self._link.call(self._js.object_store_names)

    def object_store_statuses(self) -> list[ObjectStoreStatus]:
        """Status of all object stores: :meth:`natsproto.JetStreamContext.object_store_statuses`."""
        return self._link.call(self._js.object_store_statuses)

    def delete_object_store(self, bucket: str) -> bool:
        """Delete an object store: :meth:`natsproto.JetStreamContext.delete_object_store`."""
        return self._link.call(self._js.delete_object_store, bucket)
