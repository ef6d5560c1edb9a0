"""The JetStream API of one client: streams, messages, publishing, consumers, object stores."""

from __future__ import annotations

import asyncio
import base64
import binascii
from collections import deque
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from sys import getsizeof
from typing import TYPE_CHECKING, TypeVar

from .._values import brief, seconds
from ..aio.client import HeadersLike, as_payload
from ..errors import (
    APIError,
    ConfigError,
    MaxPayloadError,
    NatsError,
    NoRespondersError,
    RemoteProtocolError,
    RequestTimeoutError,
)
from ..headers import Headers, encode_headers
from ..subjects import check_publish_subject, check_subscribe_subject, secret_name
from .api.acks import ANY_DOMAIN, AckCheck, parse_pub_ack
from .api.codec import MAX_DOCUMENT, dumps, is_number, loads, number, parse_time
from .api.errors import JetStreamNotEnabledError, StreamConfigError, api_error, check_name
from .api.features import check_kept, refused_field
from .api.models import ConsumerConfig, ConsumerInfo, PubAck, StoredMessage, StreamConfig, StreamInfo
from .api.paging import MAX_SECONDS, Paging, memory_of
from .direct_get import BatchSlot, header_int, reply_status, status_error, stored_message
from .publisher import DEFAULT_PROGRESS, DEFAULT_WINDOW, PublishWindow

if TYPE_CHECKING:
    from typing import Unpack

    from objstore import ObjectStore
    from objstore.format.models import BucketFields, ObjectStoreConfig, ObjectStoreStatus

    from ..aio.client import Client
    from ..transport import Buffer
    from ..wire import Msg as WireMsg
    from .pull import PullConsumer

T = TypeVar("T")

PUBLISH_RETRIES = 2
"""Attempts after the first one, for a publish that found no responders (ADR-22)."""

PUBLISH_RETRY_WAIT = 0.25
"""Seconds between them."""

BATCH_BYTES = 4 * 1024 * 1024
"""Bytes of one batch read by default; without a limit the server would send 64 MiB unthrottled."""


class JetStreamContext:
    """JetStream as seen by one client. Cheap to create; its only state is the API prefix.

    Every API call raises the error of :mod:`natsproto.jetstream.api.errors` for the server's code,
    ``RequestTimeoutError`` when no answer comes within ``timeout``, and ``JetStreamNotEnabledError`` when
    JetStream is off.
    """

    def __init__(
        self, client: Client, *, domain: str | None = None, prefix: str | None = None, timeout: float = 5.0
    ) -> None:
        if domain is not None and prefix is not None:
            raise ConfigError("give a domain or an API prefix, not both")
        if domain is not None:
            prefix = f"$JS.{check_name('domain', domain)}.API"
        self.client = client
        self.domain = domain
        self.prefix: str = check_publish_subject("$JS.API" if prefix is None else prefix).decode()
        client.api_prefixes.add(f"{self.prefix}.")
        self.timeout = timeout

    # -- requests ---------------------------------------------------------------------------------

    def subject(self, suffix: str) -> bytes:
        """Return the API subject for ``suffix``, checked."""
        return check_publish_subject(f"{self.prefix}.{suffix}")

    async def request(
        self,
        suffix: str,
        document: Mapping[str, object] | None = None,
        *,
        timeout: float | None = None,
        limit: int | None = None,
    ) -> dict[str, object]:
        """Send an API request and return the answer's document.

        Args:
            suffix: the subject after the API prefix.
            document: the request.
            timeout: in seconds, instead of the context's.
            limit: bytes of the answer, instead of 4 MiB.

        Raises:
            APIError: the server refused; the class is that of its error code.
            RemoteProtocolError: the answer is not usable: too large, too many values, not JSON.
            JetStreamNotEnabledError: JetStream is off on this server.
            NoRespondersError: nobody answers: JetStream has no leader, or the API prefix or domain is wrong.
            RequestTimeoutError, StaleConnectionError: whether the request was carried out is unknown.
        """
        payload = b"" if document is None else dumps(document)
        client = self.client
        client.connection.check_open()
        if len(payload) > client.max_payload:
            raise MaxPayloadError(f"the API request {suffix!r} exceeds the server's max_payload")
        try:
            msg = await client.request_frame(
                self.subject(suffix), payload, b"", self.timeout if timeout is None else timeout, bare=True
            )
        except NoRespondersError as exc:
            raise no_answer_error(client, exc) from None
        answer = loads(msg.payload, limit)
        if "error" in answer:
            raise api_error(answer["error"])
        return answer

    async def account_info(self) -> dict[str, object]:
        """Limits and usage of the account (``$JS.API.INFO``)."""
        return await self.request("INFO")

    # -- streams ----------------------------------------------------------------------------------

    async def create_stream(self, config: StreamConfig | Mapping[str, object]) -> StreamInfo:
        """Create a stream; succeeds, too, if it exists with the same configuration.

        Raises:
            StreamNameInUseError: it exists with another configuration.
            StreamConfigError: the server refuses the configuration.
            UnsupportedFeatureError: the server is too old for a field of a :class:`StreamConfig`. If it has
                dropped the field, the stream stays as the server created it: others may already use it.
        """
        return await self._apply_stream("CREATE", config)

    async def update_stream(self, config: StreamConfig | Mapping[str, object]) -> StreamInfo:
        """Replace a stream's configuration; start from the one that :meth:`stream_info` returned.

        Raises:
            StreamConfigError: the server refuses the configuration, or the change.
            UnsupportedFeatureError: the server is too old for a field of a :class:`StreamConfig`.
        """
        return await self._apply_stream("UPDATE", config)

    async def _apply_stream(self, verb: str, config: StreamConfig | Mapping[str, object]) -> StreamInfo:
        document = config.to_json() if isinstance(config, StreamConfig) else dict(config)
        name = check_name("stream", document.get("name"))
        try:
            info = StreamInfo.from_json(await self.request(f"STREAM.{verb}.{name}", document))
        except StreamConfigError as exc:
            refused = refused_field(config, exc) if isinstance(config, StreamConfig) else None
            if refused is None:
                raise
            raise refused from None
        if isinstance(config, StreamConfig):
            check_kept(config, info.config)
        return info

    async def stream_info(self, name: str, *, timeout: float | None = None) -> StreamInfo:
        """Configuration and state.

        Args:
            timeout: in seconds, instead of the context's.

        Raises:
            StreamNotFoundError: no such stream.
        """
        return StreamInfo.from_json(
            await self.request(f"STREAM.INFO.{check_name('stream', name)}", timeout=timeout)
        )

    async def stream_subjects(self, name: str, subjects_filter: str = ">") -> dict[str, int]:
        """Subjects that have messages, with their counts: one round trip per 100 000 subjects.

        Raises:
            RemoteProtocolError: there are too many for memory (about two million).
        """

        def subjects(answer: dict[str, object]) -> tuple[dict[str, int], int, int]:
            state = answer.get("state")
            page = state.get("subjects") if isinstance(state, dict) else None
            if not isinstance(page, dict):
                return {}, 0, 0
            if not all(map(is_number, page.values())):
                raise RemoteProtocolError("an API answer counts subjects with something other than numbers")
            return page, len(page), sum(map(getsizeof, page))

        suffix = f"STREAM.INFO.{check_name('stream', name)}"
        return await self._pages(
            "the subjects of a stream", suffix, {"subjects_filter": subjects_filter}, subjects
        )

    async def delete_stream(self, name: str) -> None:
        """Delete a stream with all its messages and consumers."""
        await self.request(f"STREAM.DELETE.{check_name('stream', name)}")

    async def purge_stream(
        self, name: str, *, subject: str | None = None, seq: int | None = None, keep: int | None = None
    ) -> int:
        """Remove messages; return how many.

        Args:
            subject: only those whose subject matches.
            seq: only those below this sequence.
            keep: how many of the newest to keep.
        """
        document: dict[str, object] = {}
        if subject is not None:
            document["filter"] = subject
        if seq is not None:
            document["seq"] = seq
        if keep is not None:
            document["keep"] = keep
        answer = await self.request(f"STREAM.PURGE.{check_name('stream', name)}", document)
        return number(answer, "purged")

    async def _pages(
        self,
        what: str,
        suffix: str,
        document: Mapping[str, object],
        entries: Callable[[dict[str, object]], tuple[dict[str, T], int, int]],
    ) -> dict[str, T]:
        """Return all entries of a listing by their names.

        Args:
            what: the listing, for error texts.
            suffix, document: the request, without the offset.
            entries: returns an answer's entries, their number as the server counts it, and their bytes in
                memory.
        """
        found: dict[str, T] = {}
        paging = Paging(what)
        try:
            async with asyncio.timeout(MAX_SECONDS):
                while True:
                    request = {**document, "offset": paging.offset}
                    answer = await self.request(suffix, request, limit=MAX_DOCUMENT)
                    page, count, memory = entries(answer)
                    if not count:
                        return found
                    known = len(found)
                    found.update(page)
                    if not paging.add_page(answer, count, new=len(found) - known, memory=memory):
                        return found
        except RequestTimeoutError:
            raise
        except TimeoutError:
            raise RequestTimeoutError(f"{what} took more than {seconds(MAX_SECONDS)} s") from None

    async def _names(self, what: str, suffix: str, key: str, document: Mapping[str, object]) -> list[str]:
        def names(answer: dict[str, object]) -> tuple[dict[str, None], int, int]:
            page = _listed(answer, key)
            return dict.fromkeys(each for each in page if isinstance(each, str)), len(page), memory_of(page)

        return list(await self._pages(what, suffix, document, names))

    async def stream_names(self, subject: str | None = None) -> list[str]:
        """Names of all streams (1024 per round trip), or of those that listen on ``subject``."""
        document = {} if subject is None else {"subject": subject}
        return await self._names("the names of streams", "STREAM.NAMES", "streams", document)

    async def streams(self, subject: str | None = None) -> list[StreamInfo]:
        """Configuration and state of all streams (256 per round trip)."""

        def infos(answer: dict[str, object]) -> tuple[dict[str, StreamInfo], int, int]:
            page = _listed(answer, "streams")
            found = [StreamInfo.from_json(item) for item in page if isinstance(item, dict)]
            return {info.config.name: info for info in found}, len(page), memory_of(page)

        document = {} if subject is None else {"subject": subject}
        return list((await self._pages("the streams", "STREAM.LIST", document, infos)).values())

    # -- messages ---------------------------------------------------------------------------------

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

    # -- publishing -------------------------------------------------------------------------------

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

    # -- consumers --------------------------------------------------------------------------------

    async def create_consumer(
        self, stream: str, config: ConsumerConfig | Mapping[str, object], *, timeout: float | None = None
    ) -> ConsumerInfo:
        """Create a consumer; without a name it gets a random one.

        Args:
            timeout: seconds the answer may take (default: the context's). In a cluster, the server that the
                consumer is assigned to answers.

        Raises:
            ConsumerExistsError, MaxConsumersError, StreamNotFoundError, APIError: refused.
            UnsupportedFeatureError: the server is too old for a field of a :class:`ConsumerConfig`. If it has
                dropped the field, the consumer stays as the server created it.
        """
        document = config.to_json() if isinstance(config, ConsumerConfig) else dict(config)
        name = check_name("consumer", document.get("name") or document.get("durable_name") or secret_name())
        document["name"] = name
        suffix = f"CONSUMER.CREATE.{check_name('stream', stream)}.{name}"
        try:
            answer = await self.request(suffix, {"stream_name": stream, "config": document}, timeout=timeout)
        except APIError as exc:
            refused = refused_field(config, exc) if isinstance(config, ConsumerConfig) else None
            if refused is None:
                raise
            raise refused from None
        info = ConsumerInfo.from_json(answer)
        if isinstance(config, ConsumerConfig):
            check_kept(config, info.config)
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
        from .pull import PullConsumer

        if (consumer is None) == (config is None):
            raise ConfigError("give the name of a consumer or the configuration of a new one")
        if config is not None:
            info = await self.create_consumer(stream, config)
        else:
            info = await self.consumer_info(stream, consumer or "")
        if info.config.deliver_subject:
            raise ConfigError(f"consumer {brief(info.name)} is a push consumer: it cannot be pulled from")
        return PullConsumer(self, info)

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

        A configuration replaces the current one; with a name and keywords only those fields change.
        Fields of the stream's configuration that this library does not know stay as they are.

        Args:
            config: complete configuration, or the name of the bucket.
            **params: fields of :class:`objstore.ObjectStoreConfig`; they override those of ``config``.

        Raises:
            BucketNotFoundError: no such bucket.
            BadBucketError: the server refuses the change; the storage, for example, cannot change.
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


def _listed(answer: dict[str, object], key: str) -> list[object]:
    page = answer.get(key)
    return page if isinstance(page, list) else []


def no_answer_error(client: Client, exc: NoRespondersError) -> NatsError:
    """Return the error for an API subject without responders: JetStream is off, or has no leader now."""
    info = client.connection.info
    if info and info.get("jetstream") is not True:
        return JetStreamNotEnabledError(503, 10076, "JetStream is off on this server: start it with -js")
    return NoRespondersError(exc.subject, "JetStream has no leader, or the API prefix or domain is wrong")


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
