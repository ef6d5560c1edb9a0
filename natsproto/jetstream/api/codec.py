"""JSON of the JetStream API, with limits that keep a hostile peer harmless."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from json.encoder import encode_basestring
from typing import TypeGuard

from ..._values import brief
from ...errors import LocalProtocolError, RemoteProtocolError

MAX_DOCUMENT = 64 * 1024 * 1024
"""Bytes of a message, or of one page of a listing; a page of 100 000 subjects is far smaller."""

MAX_ANSWER = 4 * 1024 * 1024
"""Bytes of any other answer. Most of them are a configuration, with its subjects and metadata."""

MAX_VALUES = 500_000
"""Values in one answer. A page has at most 100 000 subjects; two bytes of JSON can become 64 of memory."""

FEW = 256 * 1024
"""Bytes up to which the values of an answer are not counted: so few bytes cannot hold many."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_EXACT = 4_000_000_000_000_000_000  # nanoseconds (the year 2096) up to which float seconds keep microseconds
_encode = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False, check_circular=False).encode
_decode = json.JSONDecoder().decode
_escaped_surrogate = re.compile(r"\\u[dD][89a-fA-F]").search


def dumps(document: Mapping[str, object]) -> bytes:
    """Return compact UTF-8 JSON.

    Raises:
        LocalProtocolError: a text in it is not valid Unicode, or it is nested too deeply.
    """
    try:
        return _encode(document).encode()
    except (UnicodeEncodeError, RecursionError) as exc:
        raise _unwritable(exc) from None


def dumps_str(text: str) -> bytes:
    """Return ``text`` as a JSON string, spelled as by :func:`dumps`, but ten times faster than a document."""
    try:
        return encode_basestring(text).encode()
    except UnicodeEncodeError as exc:
        raise _unwritable(exc) from None


def _unwritable(exc: Exception) -> LocalProtocolError:
    return LocalProtocolError(f"a request cannot be written as JSON: {type(exc).__name__}")


def loads(payload: bytes | bytearray | memoryview, limit: int | None = None) -> dict[str, object]:
    """Parse an API answer of at most ``limit`` bytes, by default :data:`MAX_ANSWER`.

    Raises:
        RemoteProtocolError: it is not JSON, not an object, too large, too deep, or has too many values; or a
            text has half a surrogate pair: no server sends that, and no request could carry it.
    """
    size = len(payload)
    if size > (MAX_ANSWER if limit is None else limit):
        raise RemoteProtocolError(f"an API answer of {size} bytes is refused")
    if size > FEW and _values(bytes(payload)) > MAX_VALUES:
        raise RemoteProtocolError(f"an API answer of {size} bytes has too many values")
    try:
        text = str(payload, "utf-8")
        document = _decode(text)
        if "\\" in text and _escaped_surrogate(text) is not None:
            _encode(document).encode()
    except (ValueError, RecursionError) as exc:
        raise RemoteProtocolError(f"an API answer is not JSON in Unicode: {type(exc).__name__}") from None
    if not isinstance(document, dict):
        raise RemoteProtocolError("an API answer is not a JSON object")
    return document


def _values(text: bytes) -> int:
    """Return an upper bound for the values of a document: all but the first follow ``,``, ``[`` or ``{``.

    Strings are left out, because subjects may have these characters, too.
    """
    text = text.replace(b"\\\\", b"").replace(b'\\"', b"")  # every quote left begins or ends a string
    strings = text.count(b'"') // 2
    if strings > 2 * MAX_VALUES:  # names and values
        return strings
    rest = b"".join(text.split(b'"')[::2])
    return rest.count(b",") + rest.count(b"[") + rest.count(b"{")


def is_number(value: object) -> TypeGuard[int]:
    """Whether a value is an unsigned 64-bit number, as servers use for counts and sequences."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 64


def number(document: Mapping[str, object], key: str) -> int:
    """Return the number under ``key``; 0 when it is absent, as in some server versions.

    Raises:
        RemoteProtocolError: it is not an unsigned 64-bit number.
    """
    value = document.get(key, 0)
    if not is_number(value):
        raise RemoteProtocolError(f"an API answer has {key!r} that is not an unsigned 64-bit number")
    return value


class ExactDuration(timedelta):
    """A server's duration that is no whole number of microseconds: ``ns`` has all of it.

    So a configuration that is read and written back stays as it is: Go programs make such durations
    (``time.Second / 3``).
    """

    ns: int

    def __reduce__(self) -> tuple[Callable[[int], timedelta | None], tuple[int]]:
        return from_ns, (self.ns,)


def to_ns(value: timedelta) -> int:
    """Return a ``timedelta`` in nanoseconds, exactly."""
    if isinstance(value, ExactDuration):
        return value.ns
    return (value.days * 86_400 + value.seconds) * 1_000_000_000 + value.microseconds * 1000


def from_ns(value: object) -> timedelta | None:
    """Return a ``timedelta`` from nanoseconds, cut to microseconds; ``None`` if not a positive int64.

    What was cut off is kept, for :func:`to_ns`.
    """
    if isinstance(value, bool) or not isinstance(value, int) or not 0 < value < 1 << 63:
        return None
    if value % 1000 == 0:
        return timedelta(microseconds=value // 1000)
    exact = ExactDuration(microseconds=value // 1000)
    exact.ns = value
    return exact


def parse_time(text: object) -> datetime:
    """Return an aware UTC ``datetime`` from the server's RFC 3339 text (nanoseconds are cut to microseconds).

    Raises:
        RemoteProtocolError: not such a text.
    """
    if isinstance(text, bytes):
        text = text.decode("ascii", "replace")
    if isinstance(text, str):
        try:
            time = datetime.fromisoformat(text)  # parses the usual form
            if time.tzinfo is UTC:
                return time
        except ValueError:
            pass
        head, dot, tail = text.partition(".")
        if dot:
            digits = tail[: len(tail) - len(tail.lstrip("0123456789"))]
            text = f"{head}.{digits[:6].ljust(6, '0')}{tail[len(digits) :]}"
        try:
            time = datetime.fromisoformat(text)
            return time.astimezone(UTC) if time.tzinfo else time.replace(tzinfo=UTC)
        except (ValueError, OverflowError):
            pass
    raise RemoteProtocolError(f"not a time: {brief(text) if isinstance(text, str) else type(text).__name__}")


def time_from_ns(ns: int) -> datetime:
    """Return an aware UTC ``datetime`` from nanoseconds since the epoch, cut to microseconds.

    Raises:
        RemoteProtocolError: a ``datetime`` cannot hold it.
    """
    if 0 <= ns < _EXACT:
        return datetime.fromtimestamp(ns // 1000 / 1e6, UTC)
    try:
        return _EPOCH + timedelta(0, 0, ns // 1000)
    except OverflowError:
        raise RemoteProtocolError("a time lies beyond the year 9999") from None
