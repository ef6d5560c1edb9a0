"""The JSON documents of the JetStream API as dataclasses.

Field names are the API's. Durations are ``timedelta``, sizes bytes, times aware UTC. Fields that this version
does not know are kept in ``extra`` and written back, so that reading, changing and writing a configuration
never drops anything. ``None`` is not sent: the server's default applies.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Self

from ..._values import cut
from ...errors import ConfigError, RemoteProtocolError
from .codec import from_ns, is_number, number, parse_time, to_ns


def _texts(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def _text_pairs(value: object) -> bool:
    return isinstance(value, dict) and all(isinstance(item, str) for item in value.values())


def _documents(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(item, dict) for item in value)


def _whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and -1 << 63 <= value < 1 << 64


def _durations(value: object) -> bool:
    return isinstance(value, list) and all(is_number(item) and item < 1 << 63 for item in value)


_RIGHT: dict[str, Callable[[object], bool]] = {
    "str": lambda value: isinstance(value, str),
    "bool": lambda value: isinstance(value, bool),
    "int": _whole,
    "timedelta": _whole,
    "list[str]": _texts,
    "dict[str, str]": _text_pairs,
    "dict[str, object]": lambda value: isinstance(value, dict),
    "list[dict[str, object]]": _documents,
    "list[timedelta]": _durations,
}
"""For each annotation of a field: whether a JSON value has that type."""


def _other(document: Mapping[str, object], key: str) -> RemoteProtocolError:
    kind = type(document[key]).__name__
    return RemoteProtocolError(f"an API answer has {key!r} of the wrong type: {kind}")


def _text(document: Mapping[str, object], key: str) -> str | None:
    value = document.get(key)
    if value is None or isinstance(value, str):
        return value
    raise _other(document, key)


def _object(document: Mapping[str, object], key: str) -> dict[str, object] | None:
    value = document.get(key)
    if value is None or isinstance(value, dict):
        return value
    raise _other(document, key)


def _objects(document: Mapping[str, object], key: str) -> list[dict[str, object]] | None:
    value = document.get(key)
    if value is None or (isinstance(value, list) and _documents(value)):
        return value
    raise _other(document, key)


def _time(document: Mapping[str, object], key: str) -> datetime | None:
    """Return the time under ``key``; ``None`` when it is absent, or Go's zero time: it never happened."""
    value = document.get(key)
    time = None if value is None else parse_time(value)
    return None if time is None or time.year == 1 else time


def _nanoseconds(value: object) -> int | None:
    """Return a duration as servers want it; ``None`` if it is none: they would take 5 for 5 ns."""
    return to_ns(value) if isinstance(value, timedelta) and value >= timedelta(0) else None


class Document:
    """Reads and writes JSON by the annotations of a subclass's fields."""

    __slots__ = ()

    @classmethod
    def from_json(cls, document: Mapping[str, object]) -> Self:
        """Build from the API's JSON; unknown keys go to ``extra``.

        Raises:
            RemoteProtocolError: a field is missing, or of another type.
        """
        known: dict[str, object] = {}
        extra: dict[str, object] = {}
        names = cls.__dataclass_fields__  # type: ignore[attr-defined]
        for key, value in document.items():
            if key not in names or key == "extra":
                extra[key] = value
                continue
            kind = names[key].type.removesuffix(" | None")
            if value is None and kind == names[key].type:
                continue  # null: treat it as absent
            if value is not None and not _RIGHT[kind](value):
                raise RemoteProtocolError(
                    f"an API answer has {key!r} of the wrong type in a {cls.__name__}: {type(value).__name__}"
                )
            if kind == "timedelta":
                value = from_ns(value)
            elif kind == "list[timedelta]" and isinstance(value, list):
                value = [from_ns(item) if item else timedelta(0) for item in value]
            known[key] = value
        try:
            return cls(**known, extra=extra)  # type: ignore[call-arg]
        except TypeError as exc:
            raise RemoteProtocolError(f"an API answer lacks a field of {cls.__name__}: {exc}") from None

    def to_json(self) -> dict[str, object]:
        """Return the API's JSON; ``None`` is left out.

        Raises:
            ConfigError: a field is of another type, or a duration is negative.
        """
        document: dict[str, object] = dict(getattr(self, "extra", {}))
        names = self.__dataclass_fields__  # type: ignore[attr-defined]
        for name in names:
            value = getattr(self, name)
            if name == "extra" or value is None:
                continue
            kind = names[name].type.removesuffix(" | None")
            if isinstance(value, tuple):
                value = list(value)
            written: object = value
            if kind == "timedelta":
                written = _nanoseconds(value)
            elif kind == "list[timedelta]" and isinstance(value, list):
                written = [_nanoseconds(item) for item in value]
            if not _RIGHT[kind](written):
                what = f"{name} of a {type(self).__name__}"
                raise ConfigError(f"{what} must be {kind}, not {cut(repr(value), 80)}")
            document[name] = written
        return document


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamConfig(Document):
    """Configuration of a stream: every field of the ``StreamConfig`` of nats-server 2.15.1.

    Field names and meanings are the server's; ``None`` = its default. An older server ignores a field that
    it does not know, or refuses the configuration: its answer, :attr:`StreamInfo.config`, has the fields
    that count.

    Attributes:
        retention: ``limits``, ``interest`` or ``workqueue``.
        discard: ``old`` or ``new``, when a limit is reached; with ``discard_new_per_subject`` also when
            ``max_msgs_per_subject`` is.
        storage: ``file`` or ``memory``.
        no_ack: the stream acknowledges no publish.
        first_seq: sequence of the first message (2.10).
        subject_transform: ``{"src": …, "dest": …}``, applied to incoming messages (2.10).
        republish: ``{"src": …, "dest": …, "headers_only": …}``: stored messages are published again (2.9).
        consumer_limits: defaults and limits of its consumers, ``{"inactive_threshold": ns, "max_ack_pending":
            …}`` (2.10).
        compression: ``none`` or ``s2`` (2.10).
        allow_msg_ttl: messages may have a time to live of their own (2.11, ADR-43).
        subject_delete_marker_ttl: limits that remove the last message of a subject leave a marker for this
            long (2.11, ADR-43).
        allow_msg_counter: subjects are counters (2.12, ADR-49).
        allow_atomic: batches are stored as a whole or not at all (2.12, ADR-50).
        allow_msg_schedules: messages may be published later (2.12, ADR-51).
        persist_mode: ``default`` or ``async`` (2.12): acknowledge before the disk has the message.
        allow_batched: fast-ingest batches (2.14, ADR-50): see :meth:`JetStreamContext.fast_publisher`.
        extra: fields that this version does not know, written back unchanged.
    """

    name: str
    description: str | None = None
    subjects: list[str] | None = None
    retention: str | None = None
    max_consumers: int | None = None
    max_msgs: int | None = None
    max_bytes: int | None = None
    max_age: timedelta | None = None
    max_msgs_per_subject: int | None = None
    max_msg_size: int | None = None
    discard: str | None = None
    discard_new_per_subject: bool | None = None
    storage: str | None = None
    num_replicas: int | None = None
    no_ack: bool | None = None
    duplicate_window: timedelta | None = None
    placement: dict[str, object] | None = None
    mirror: dict[str, object] | None = None
    sources: list[dict[str, object]] | None = None
    first_seq: int | None = None
    subject_transform: dict[str, object] | None = None
    republish: dict[str, object] | None = None
    consumer_limits: dict[str, object] | None = None
    sealed: bool | None = None
    deny_delete: bool | None = None
    deny_purge: bool | None = None
    allow_rollup_hdrs: bool | None = None
    allow_direct: bool | None = None
    mirror_direct: bool | None = None
    compression: str | None = None
    allow_msg_ttl: bool | None = None
    subject_delete_marker_ttl: timedelta | None = None
    allow_msg_counter: bool | None = None
    allow_atomic: bool | None = None
    allow_msg_schedules: bool | None = None
    persist_mode: str | None = None
    allow_batched: bool | None = None
    metadata: dict[str, str] | None = None
    extra: dict[str, object] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamInfo:
    """Configuration and state of a stream: the answer to create, update and info.

    Attributes:
        config: the server's configuration, with its defaults.
        created: when the stream was created.
        messages: how many messages it holds.
        bytes: how many bytes they take, with the server's overhead per message.
        first_seq: sequence of the first message, one more than ``last_seq`` when there is none.
        last_seq: sequence of the newest message that was ever stored, 0 for none.
        num_subjects: how many subjects have messages.
        consumer_count: how many consumers it has.
        raw: the whole document.
        first_time, last_time: when those messages were stored; ``None`` while there was none.
        num_deleted: how many messages between them were deleted.
        domain: its JetStream domain, ``None`` when it has none.
        cluster: in a cluster, its ``name``, ``leader`` and ``replicas``.
        mirror: of a mirror, the state of its origin: ``name``, ``lag``, ``active`` …
        sources: the same of its sources.
        alternates: the stream and its mirrors, the nearest first.
        timestamp: when the server collected this (2.10); ``None`` from older ones.
    """

    config: StreamConfig
    created: datetime
    messages: int
    bytes: int
    first_seq: int
    last_seq: int
    num_subjects: int
    consumer_count: int
    raw: dict[str, object] = field(repr=False)
    first_time: datetime | None = None
    last_time: datetime | None = None
    num_deleted: int = 0
    domain: str | None = None
    cluster: dict[str, object] | None = None
    mirror: dict[str, object] | None = None
    sources: list[dict[str, object]] | None = None
    alternates: list[dict[str, object]] | None = None
    timestamp: datetime | None = None

    @classmethod
    def from_json(cls, document: dict[str, object]) -> StreamInfo:
        """Build from the API's JSON.

        Raises:
            RemoteProtocolError: a field is missing, or of another type.
        """
        config, state = document.get("config"), document.get("state")
        if not isinstance(config, dict) or not isinstance(state, dict):
            raise RemoteProtocolError("a stream answer lacks its config or state")
        return cls(
            config=StreamConfig.from_json(config),
            created=parse_time(document.get("created")),
            messages=number(state, "messages"),
            bytes=number(state, "bytes"),
            first_seq=number(state, "first_seq"),
            last_seq=number(state, "last_seq"),
            num_subjects=number(state, "num_subjects"),
            consumer_count=number(state, "consumer_count"),
            raw=document,
            first_time=_time(state, "first_ts"),
            last_time=_time(state, "last_ts"),
            num_deleted=number(state, "num_deleted"),
            domain=_text(document, "domain"),
            cluster=_object(document, "cluster"),
            mirror=_object(document, "mirror"),
            sources=_objects(document, "sources"),
            alternates=_objects(document, "alternates"),
            timestamp=_time(document, "ts"),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsumerConfig(Document):
    """Configuration of a consumer: every field of the ``ConsumerConfig`` of nats-server 2.15.1 for clients.

    Field names and meanings are the server's; ``None`` = its default.

    Attributes:
        deliver_policy: ``all``, ``last``, ``new``, ``by_start_sequence``, ``by_start_time`` or
            ``last_per_subject``.
        opt_start_time: RFC 3339.
        ack_policy: ``explicit``, ``all``, ``none``, or ``flow_control`` (2.14).
        backoff: how long each delivery may take to be acknowledged, instead of ``ack_wait``; at most
            ``max_deliver`` of them.
        filter_subjects: several filters, instead of ``filter_subject`` (2.10).
        replay_policy: ``instant`` or ``original``.
        rate_limit_bps: bits per second; push consumers only.
        sample_freq: the share of acknowledgements that the server reports as events: ``"30%"``.
        max_batch, max_expires, max_bytes: limits of one pull request.
        pause_until: nothing is delivered until then (2.11); RFC 3339.
        priority_groups: names of the groups (2.11, ADR-42); with them ``priority_policy`` is ``overflow``,
            ``pinned_client`` or ``prioritized`` (2.12), and ``priority_timeout`` how long a pinned client may
            be silent.
        extra: fields that this version does not know, written back unchanged.
    """

    name: str | None = None
    durable_name: str | None = None
    description: str | None = None
    deliver_policy: str | None = None
    opt_start_seq: int | None = None
    opt_start_time: str | None = None
    ack_policy: str | None = None
    ack_wait: timedelta | None = None
    max_deliver: int | None = None
    backoff: list[timedelta] | None = None
    filter_subject: str | None = None
    filter_subjects: list[str] | None = None
    replay_policy: str | None = None
    rate_limit_bps: int | None = None
    sample_freq: str | None = None
    max_ack_pending: int | None = None
    max_waiting: int | None = None
    max_batch: int | None = None
    max_expires: timedelta | None = None
    max_bytes: int | None = None
    deliver_subject: str | None = None
    deliver_group: str | None = None
    flow_control: bool | None = None
    idle_heartbeat: timedelta | None = None
    headers_only: bool | None = None
    inactive_threshold: timedelta | None = None
    num_replicas: int | None = None
    mem_storage: bool | None = None
    pause_until: str | None = None
    priority_groups: list[str] | None = None
    priority_policy: str | None = None
    priority_timeout: timedelta | None = None
    metadata: dict[str, str] | None = None
    extra: dict[str, object] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True)
class SequenceInfo:
    """A position in a consumer.

    Attributes:
        consumer_seq: how many deliveries there were, repeated ones included.
        stream_seq: the stream's sequence.
        last_active: when it last changed, ``None`` when it never did.
    """

    consumer_seq: int = 0
    stream_seq: int = 0
    last_active: datetime | None = None

    @classmethod
    def from_json(cls, document: object) -> SequenceInfo:
        """Build from the API's JSON; absent is the beginning.

        Raises:
            RemoteProtocolError: a field is of another type.
        """
        if document is None:
            return cls()
        if not isinstance(document, dict):
            raise RemoteProtocolError("an API answer has a position in a consumer that is not an object")
        return cls(
            number(document, "consumer_seq"), number(document, "stream_seq"), _time(document, "last_active")
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsumerInfo:
    """Configuration and state of a consumer: the answer to create and info.

    Attributes:
        stream: the stream's name.
        name: the consumer's name.
        config: the server's configuration, with its defaults.
        num_pending: how many matching messages have not been delivered yet.
        raw: the whole document.
        created: when the consumer was created.
        delivered: the newest delivery.
        ack_floor: up to where everything is acknowledged.
        num_ack_pending: how many deliveries are not acknowledged.
        num_redelivered: how many of them were delivered more than once.
        num_waiting: how many pull requests wait.
        push_bound: somebody listens to the deliver subject.
        paused, pause_remaining: whether nothing is delivered for a while, and for how long (2.11).
        priority_groups: each group's name in ``group``, and its ``pinned_client_id`` (2.11).
        cluster: in a cluster, its ``name``, ``leader`` and ``replicas``.
        timestamp: when the server collected this (2.10); ``None`` from older ones.
    """

    stream: str
    name: str
    config: ConsumerConfig
    num_pending: int
    raw: dict[str, object] = field(repr=False)
    created: datetime | None = None
    delivered: SequenceInfo = SequenceInfo()
    ack_floor: SequenceInfo = SequenceInfo()
    num_ack_pending: int = 0
    num_redelivered: int = 0
    num_waiting: int = 0
    push_bound: bool = False
    paused: bool = False
    pause_remaining: timedelta | None = None
    priority_groups: list[dict[str, object]] | None = None
    cluster: dict[str, object] | None = None
    timestamp: datetime | None = None

    @classmethod
    def from_json(cls, document: dict[str, object]) -> ConsumerInfo:
        """Build from the API's JSON.

        Raises:
            RemoteProtocolError: a field is missing, or of another type.
        """
        stream, name = document.get("stream_name"), document.get("name")
        config = document.get("config")
        if not isinstance(stream, str) or not isinstance(name, str) or not isinstance(config, dict):
            raise RemoteProtocolError("a consumer answer lacks its stream, name or config")
        return cls(
            stream=stream,
            name=name,
            config=ConsumerConfig.from_json(config),
            num_pending=number(document, "num_pending"),
            raw=document,
            created=_time(document, "created"),
            delivered=SequenceInfo.from_json(document.get("delivered")),
            ack_floor=SequenceInfo.from_json(document.get("ack_floor")),
            num_ack_pending=number(document, "num_ack_pending"),
            num_redelivered=number(document, "num_redelivered"),
            num_waiting=number(document, "num_waiting"),
            push_bound=document.get("push_bound") is True,
            paused=document.get("paused") is True,
            pause_remaining=from_ns(document.get("pause_remaining")),
            priority_groups=_objects(document, "priority_groups"),
            cluster=_object(document, "cluster"),
            timestamp=_time(document, "ts"),
        )


@dataclass(slots=True, eq=False, repr=False)
class PubAck:
    """The server's acknowledgement of a publish: the message is stored.

    Attributes:
        stream: the stream's name.
        seq: the message's sequence there.
        duplicate: whether the stream already had a message with that id; ``seq`` is then its sequence.
        domain: the JetStream domain of the stream, ``None`` when it has none.
        value: the counter's new value, of a stream with ``allow_msg_counter``.
        batch, count: of the last message of a batch: its id, and how many messages were stored.
    """

    stream: str
    seq: int
    duplicate: bool = False
    domain: str | None = None
    value: str | None = None
    batch: str | None = None
    count: int | None = None

    def __repr__(self) -> str:
        return f"PubAck(stream={self.stream!r}, seq={self.seq}, duplicate={self.duplicate})"


@dataclass(slots=True, eq=False, repr=False)
class StoredMessage:
    """A message read from a stream.

    Attributes:
        subject: the subject it was published to.
        seq: its sequence.
        data: the payload.
        header: the stored header block, ``None`` without one.
        time: when it was stored, by the server's clock.
        num_pending: how many more messages match after it; ``None`` except in batch reads.
    """

    subject: str
    seq: int
    data: bytes
    header: bytes | None
    time: datetime
    num_pending: int | None = None

    def __repr__(self) -> str:
        return f"<StoredMessage {self.subject!r} seq={self.seq} {len(self.data)} bytes>"
