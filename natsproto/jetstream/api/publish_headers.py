"""The headers of a publish: what the stream checks before it stores the message, and how long it keeps it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Literal, TypedDict

from ...errors import ConfigError
from ...headers import Headers, encode_headers
from ...subjects import check_subscribe_subject
from .codec import is_number

SECOND = timedelta(seconds=1)

LONGEST_TTL = timedelta(microseconds=(1 << 63) // 1000)
"""Servers count nanoseconds in 63 bits."""


class PublishOptions(TypedDict, total=False):
    """What to check, and more; for :meth:`JetStreamContext.publish` and each message of a fast-ingest batch.

    Attributes:
        stream: the server refuses the message if another stream is bound to the subject. Only this stream's
            answer counts.
        msg_id: the stream does not store a second message with this id within its duplicate window.
        expected_last_seq: the sequence of the stream's newest message; 0 = it never had any.
        expected_last_subject_seq: the same of the subject; 0 = it has no message.
        expected_last_subject_seq_subject: the subject meant by that, with wildcards, instead of the
            message's (2.11).
        expected_last_msg_id: the id of the stream's newest message.
        ttl: how long the message is kept, at least a second, rounded up to whole ones; ``"never"``: longer
            than the stream's ``max_age`` (2.11, ADR-43; the stream needs ``allow_msg_ttl``).
    """

    stream: str | None
    msg_id: str | None
    expected_last_seq: int | None
    expected_last_subject_seq: int | None
    expected_last_subject_seq_subject: str | None
    expected_last_msg_id: str | None
    ttl: timedelta | Literal["never"] | None


NEEDS_2_11 = frozenset({"expected_last_subject_seq_subject", "ttl"})
"""Options that an older server would ignore."""


def publish_header(
    headers: Headers | Mapping[str, str | Sequence[str]] | None,
    *,
    stream: str | None = None,
    msg_id: str | None = None,
    expected_last_seq: int | None = None,
    expected_last_subject_seq: int | None = None,
    expected_last_subject_seq_subject: str | None = None,
    expected_last_msg_id: str | None = None,
    ttl: timedelta | Literal["never"] | None = None,
) -> bytes:
    """Return the header block of a publish; empty without any header.

    Args:
        headers: the application's own. Options are written over them.
        stream, msg_id, expected_last_seq, expected_last_subject_seq, expected_last_subject_seq_subject,
            expected_last_msg_id, ttl: see :class:`PublishOptions`.

    Raises:
        ConfigError: an option makes no sense.
        BadSubjectError, LocalProtocolError: a subject or a header is not valid.
    """
    own: dict[str, str] = {}
    if stream is not None:
        own["Nats-Expected-Stream"] = _text("stream", stream)
    if msg_id is not None:
        own["Nats-Msg-Id"] = _text("msg_id", msg_id)
    if expected_last_msg_id is not None:
        own["Nats-Expected-Last-Msg-Id"] = _text("expected_last_msg_id", expected_last_msg_id)
    if expected_last_seq is not None:
        own["Nats-Expected-Last-Sequence"] = _sequence(expected_last_seq)
    if expected_last_subject_seq is not None:
        own["Nats-Expected-Last-Subject-Sequence"] = _sequence(expected_last_subject_seq)
    if expected_last_subject_seq_subject is not None:
        if expected_last_subject_seq is None:
            raise ConfigError("expected_last_subject_seq_subject needs expected_last_subject_seq")
        check_subscribe_subject(expected_last_subject_seq_subject)
        own["Nats-Expected-Last-Subject-Sequence-Subject"] = expected_last_subject_seq_subject
    if ttl is not None:
        own["Nats-TTL"] = _ttl(ttl)
    if not headers:
        return encode_headers(own) if own else b""
    fields = Headers(headers)
    fields.update(own)
    return encode_headers(fields)


def _text(what: str, text: str) -> str:
    if not isinstance(text, str) or not text:
        raise ConfigError(f"{what} is a non-empty str: servers ignore an empty one")
    return text


def _sequence(number: int) -> str:
    if not is_number(number):
        raise ConfigError(f"a sequence is a whole number from 0 on, not {number!r}")
    return int.__repr__(number)


def _ttl(ttl: timedelta | str) -> str:
    if ttl == "never":
        return "never"
    if not isinstance(ttl, timedelta) or not SECOND <= ttl <= LONGEST_TTL:
        raise ConfigError('ttl is a timedelta of at least a second, or "never"')
    return f"{-(-ttl // SECOND)}s"
