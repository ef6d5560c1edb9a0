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

from ...errors import RemoteProtocolError
from .codec import from_ns, number, parse_time, to_ns


def _texts(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def _text_pairs(value: object) -> bool:
    return isinstance(value, dict) and all(isinstance(item, str) for item in value.values())


def _documents(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(item, dict) for item in value)


def _whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and -1 << 63 <= value < 1 << 64


_RIGHT: dict[str, Callable[[object], bool]] = {
    "str": lambda value: isinstance(value, str),
    "bool": lambda value: isinstance(value, bool),
    "int": _whole,
    "timedelta": _whole,
    "list[str]": _texts,
    "dict[str, str]": _text_pairs,
    "dict[str, object]": lambda value: isinstance(value, dict),
    "list[dict[str, object]]": _documents,
}
"""For each annotation of a field: whether a JSON value has that type."""


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
            known[key] = from_ns(value) if kind == "timedelta" else value
        try:
            return cls(**known, extra=extra)  # type: ignore[call-arg]
        except TypeError as exc:
            raise RemoteProtocolError(f"an API answer lacks a field of {cls.__name__}: {exc}") from None

    def to_json(self) -> dict[str, object]:
        """Return the API's JSON; ``None`` is left out."""
        document: dict[str, object] = dict(getattr(self, "extra", {}))
        for name in self.__dataclass_fields__:  # type: ignore[attr-defined]
            value = getattr(self, name)
            if name == "extra" or value is None:
                continue
            document[name] = to_ns(value) if isinstance(value, timedelta) else value
        return document


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamConfig(Document):
    """Configuration of a stream (ADR-8 and the server's ``StreamConfig``).

    Field names and meanings are the server's; ``None`` = its default.

    Attributes:
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
    storage: str | None = None
    num_replicas: int | None = None
    duplicate_window: timedelta | None = None
    placement: dict[str, object] | None = None
    mirror: dict[str, object] | None = None
    sources: list[dict[str, object]] | None = None
    sealed: bool | None = None
    deny_delete: bool | None = None
    deny_purge: bool | None = None
    allow_rollup_hdrs: bool | None = None
    allow_direct: bool | None = None
    mirror_direct: bool | None = None
    compression: str | None = None
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
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsumerConfig(Document):
    """Configuration of a consumer.

    Field names and meanings are the server's; ``None`` = its default.

    Attributes:
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
    filter_subject: str | None = None
    replay_policy: str | None = None
    max_ack_pending: int | None = None
    max_waiting: int | None = None
    deliver_subject: str | None = None
    deliver_group: str | None = None
    flow_control: bool | None = None
    idle_heartbeat: timedelta | None = None
    headers_only: bool | None = None
    inactive_threshold: timedelta | None = None
    num_replicas: int | None = None
    mem_storage: bool | None = None
    metadata: dict[str, str] | None = None
    extra: dict[str, object] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsumerInfo:
    """Configuration and state of a consumer: the answer to create and info.

    Attributes:
        stream: the stream's name.
        name: the consumer's name.
        config: the server's configuration, with its defaults.
        num_pending: how many matching messages have not been delivered yet.
        raw: the whole document.
    """

    stream: str
    name: str
    config: ConsumerConfig
    num_pending: int
    raw: dict[str, object] = field(repr=False)

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
        )


@dataclass(slots=True, eq=False, repr=False)
class PubAck:
    """The server's acknowledgement of a publish: the message is stored.

    Attributes:
        stream: the stream's name.
        seq: the message's sequence there.
        duplicate: whether the stream already had a message with that id; ``seq`` is then its sequence.
        domain: the JetStream domain of the stream, ``None`` when it has none.
    """

    stream: str
    seq: int
    duplicate: bool = False
    domain: str | None = None

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
