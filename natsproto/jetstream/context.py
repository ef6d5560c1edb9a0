"""The JetStream API of one client: streams, messages, publishing, consumers, object stores."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from ..errors import APIError, PermissionsViolationError
from ..subjects import secret_name
from . import consumers
from .api.errors import check_name, check_new_name
from .api.features import check_kept, refused
from .api.models import ConsumerConfig, ConsumerInfo
from .publishing import Publishing
from .reads import MessageReads
from .streams import StreamManagement

if TYPE_CHECKING:
    from datetime import datetime
    from typing import Unpack

    from objstore import ObjectStore
    from objstore.format.models import BucketFields, ObjectStoreConfig, ObjectStoreStatus

    from .consumers import ConsumerPause
    from .pull import PullConsumer
    from .push import PushConsumer


class JetStreamContext(StreamManagement, MessageReads, Publishing):
    """JetStream as seen by one client. Cheap to create; its only state is the API prefix.

    Every API call raises the error of :mod:`natsproto.jetstream.api.errors` for the server's code,
    ``RequestTimeoutError`` when no answer comes within ``timeout``, and ``JetStreamNotEnabledError`` when
    JetStream is off.
    """

    # -- consumers --------------------------------------------------------------------------------

    async def create_consumer(
        self, stream: str, config: ConsumerConfig | Mapping[str, object], *, timeout: float | None = None
    ) -> ConsumerInfo:
        """Create a consumer; without a name it gets a random one.

        A single filter is appended to the API subject, so that a user may have the right to consumers of some
        subjects only; who has no such right asks without it.

        Args:
            timeout: seconds the answer may take (default: the context's). In a cluster, the server that the
                consumer is assigned to answers.

        Raises:
            ConsumerExistsError, MaxConsumersError, StreamNotFoundError, APIError: refused.
            UnsupportedFeatureError: the server is too old for a field. If it has dropped the field, the
                consumer stays as the server created it.
        """
        document = config.to_json() if isinstance(config, ConsumerConfig) else dict(config)
        name = check_new_name(
            "consumer", document.get("name") or document.get("durable_name") or secret_name()
        )
        document["name"] = name
        suffix = f"CONSUMER.CREATE.{check_name('stream', stream)}.{name}"
        request = {"stream_name": stream, "config": document}
        wanted = document.get("filter_subject")
        appended = self._appended(suffix, wanted) if isinstance(wanted, str) and wanted else None
        try:
            try:
                answer = await self._ask(appended or self.subject(suffix), request, timeout)
            except PermissionsViolationError:
                if appended is None:
                    raise
                answer = await self.request(suffix, request, timeout=timeout)
        except APIError as exc:
            raise refused(document, exc) from None
        info = ConsumerInfo.from_json(answer)
        check_kept("consumer", document, answer)
        return info

    async def consumer_info(self, stream: str, consumer: str) -> ConsumerInfo:
        """Configuration and state of a consumer."""
        suffix = f"CONSUMER.INFO.{check_name('stream', stream)}.{check_name('consumer', consumer)}"
        return ConsumerInfo.from_json(await self.request(suffix))

    async def delete_consumer(self, stream: str, consumer: str) -> None:
        """Delete a consumer."""
        await self.request(
            f"CONSUMER.DELETE.{check_name('stream', stream)}.{check_name('consumer', consumer)}"
        )

    async def consumer_names(self, stream: str) -> list[str]:
        """Names of a stream's consumers."""
        suffix = f"CONSUMER.NAMES.{check_name('stream', stream)}"
        return await self._names("the names of consumers", suffix, "consumers", {})

    async def pull_consumer(
        self,
        stream: str,
        consumer: str | None = None,
        *,
        config: ConsumerConfig | Mapping[str, object] | None = None,
    ) -> PullConsumer:
        """Bind to a pull consumer: an existing one by name, or one created from ``config``."""
        from .pull import bind

        return await bind(self, stream, consumer, config)

    async def push_consumer(
        self,
        stream: str,
        consumer: str | None = None,
        *,
        config: ConsumerConfig | Mapping[str, object] | None = None,
        pending_msgs_limit: int | None = None,
        pending_bytes_limit: int | None = None,
    ) -> PushConsumer:
        """Bind to a push consumer: an existing one by name, or one created from ``config``.

        Without a ``deliver_subject``, a named consumer that exists keeps its own, and a new one gets an inbox
        of this client. With a ``deliver_group``, each message goes to one of those that bind to the consumer.

        Set ``flow_control`` and ``idle_heartbeat`` in the configuration where messages may be large or many.
        Without them the server sends as fast as it can, and ends a connection that does not keep up: when
        more than its ``max_pending`` waits, 64 MiB. What was under way counts as delivered: with the ack
        policy ``none`` it is lost, else it comes again after ``ack_wait``, until ``max_deliver`` is reached.
        Flow control takes the right to publish to ``$JS.FC.STREAM.>``.

        Args:
            pending_msgs_limit, pending_bytes_limit: limits of the queue (default: 524288 messages, and the
                client's bytes).

        Raises:
            ConfigError: refused, nothing was sent; or it is a pull consumer.
            ConsumerInUseError: it has no ``deliver_group``, and somebody else receives its messages.
            ConsumerNotFoundError, StreamNotFoundError, APIError: as :meth:`create_consumer`.
        """
        from .push import bind

        return await bind(self, stream, consumer, config, pending_msgs_limit, pending_bytes_limit)

    async def pause_consumer(self, stream: str, consumer: str, until: datetime) -> ConsumerPause:
        """Let a consumer deliver nothing until a time (nats-server 2.11); a time in the past resumes it.

        Args:
            until: with a time zone.

        Raises:
            UnsupportedFeatureError: the server is older.
            ConsumerNotFoundError: no such consumer.
        """
        return await consumers.pause(self, stream, consumer, until)

    async def resume_consumer(self, stream: str, consumer: str) -> ConsumerPause:
        """Let a paused consumer continue (nats-server 2.11); errors are those of :meth:`pause_consumer`."""
        return await consumers.pause(self, stream, consumer, None)

    async def unpin_consumer(self, stream: str, consumer: str, group: str) -> None:
        """Let the server pin another client of a priority group (ADR-42, nats-server 2.11).

        Raises:
            UnsupportedFeatureError: the server is older.
            ConsumerNotFoundError, APIError: no such consumer, or it has no such group.
        """
        await consumers.unpin(self, stream, consumer, group)

    # -- object stores ----------------------------------------------------------------------------

    async def object_store(self, bucket: str, *, create: bool = False) -> ObjectStore:
        """Open an object store: one round trip if it exists.

        A stream whose configuration does not keep objects can be opened and read; writes are refused with a
        ``BadBucketError`` before a byte is sent.

        Args:
            create: create it, with the default configuration, if it does not exist.

        Raises:
            BucketNotFoundError: no such bucket, and ``create`` is false.
            BadBucketError: not a valid bucket name; or a stream ``OBJ_…`` of that name is no bucket, by its
                subjects.
        """
        from . import object_stores

        return await object_stores.open_bucket(self, bucket, create)

    async def create_object_store(
        self, config: ObjectStoreConfig | str | None = None, **params: Unpack[BucketFields]
    ) -> ObjectStore:
        """Create an object store, or open it if it exists with the same configuration.

        Args:
            config: complete configuration, or the name of the bucket.
            **params: fields of :class:`objstore.ObjectStoreConfig`; they override those of ``config``.

        Raises:
            BadBucketError: the configuration cannot work, or the server refuses it.
            BucketAlreadyExistsError: it exists with another configuration.
            StoreFullError: the server or account does not have enough space.
            UnsupportedFeatureError: the server does not support a requested feature. If that is known in
                advance, nothing is created; else the bucket stays as the server created it.
        """
        from . import object_stores

        return await object_stores.create_bucket(self, config, params)

    async def update_object_store(
        self, config: ObjectStoreConfig | str | None = None, **params: Unpack[BucketFields]
    ) -> ObjectStore:
        """Change an object store's configuration.

        A configuration replaces the current one; with a name and keywords only those fields change. With the
        name alone the stream gets what it lacks to keep objects. The rest of the stream's configuration stays
        as it is, and so does a mirror or source that is there already.

        Args:
            config: complete configuration, or the name of the bucket.
            **params: fields of :class:`objstore.ObjectStoreConfig`; they override those of ``config``.

        Raises:
            BucketNotFoundError: no such bucket.
            BadBucketError: the server refuses the change; the storage, for example, cannot change.
            BucketSealedError: the bucket is sealed.
            UnsupportedFeatureError: the server is too old for a requested feature.
        """
        from . import object_stores

        return await object_stores.update_bucket(self, config, params)

    async def create_or_update_object_store(
        self, config: ObjectStoreConfig | str | None = None, **params: Unpack[BucketFields]
    ) -> ObjectStore:
        """Create an object store, or change the existing one to that configuration.

        Args:
            config: complete configuration, or the name of the bucket.
            **params: fields of :class:`objstore.ObjectStoreConfig`; they override those of ``config``.

        Raises:
            BadBucketError: the configuration cannot work, or the change cannot be made.
            StoreFullError: the server or account does not have enough space.
            UnsupportedFeatureError: the server is too old for a requested feature.
        """
        from . import object_stores

        return await object_stores.create_or_update_bucket(self, config, params)

    async def object_store_names(self) -> list[str]:
        """Names of all object stores, mirrors included; two round trips per 1024 streams.

        Other streams called ``OBJ_…`` are left out. Each mirror costs one more request.
        """
        from . import object_stores

        return await object_stores.bucket_names(self)

    async def object_store_statuses(self) -> list[ObjectStoreStatus]:
        """Status of all object stores; one round trip per 256 streams. ``count`` is -1: not counted."""
        from . import object_stores

        return await object_stores.bucket_statuses(self)

    async def delete_object_store(self, bucket: str) -> bool:
        """Delete an object store and all its objects; returns ``True``.

        Raises:
            BucketNotFoundError: no such bucket.
        """
        from . import object_stores

        return await object_stores.delete_bucket(self, bucket)
