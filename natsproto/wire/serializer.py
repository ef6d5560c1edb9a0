"""The serializer: each protocol line as a list of buffers, to be written one after the other.

Payloads and header blocks are passed through uncopied. Whatever could inject a second protocol line is
refused before a line is built: subjects, reply subjects, queue names and sids of the client role with
:class:`~natsproto.errors.BadSubjectError`, the rest with :class:`~natsproto.errors.LocalProtocolError`.

The server-role functions (:func:`info`, :func:`msg`, :func:`ok`, :func:`err`) are for fake servers and
proxies, and emit whatever a :class:`~natsproto.wire.Parser` accepts; real servers deliver odd subjects, too.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from .. import _values
from ..errors import BadSubjectError, LocalProtocolError
from ..subjects import check_names, check_publish_subject, check_queue, check_subscribe_subject
from .events import Payload

Buffers = list[bytes | bytearray | memoryview]

_CRLF: Final = b"\r\n"


# --- client role ----------------------------------------------------------------------------------


def connect(data: Mapping[str, object]) -> Buffers:
    """``CONNECT {…}``. ``data`` is written as it is: the caller decides what may leave the process."""
    return [b"CONNECT " + _json(data) + _CRLF]


def pub(
    subject: bytes | str,
    payload: Payload = b"",
    *,
    reply: bytes | str | None = None,
    header: bytes | None = None,
) -> Buffers:
    """``PUB``, or ``HPUB`` when there is a ``header`` block (made by ``encode_headers``).

    Raises:
        BadSubjectError: ``subject`` or ``reply`` is empty, or has white space, control characters, empty
            tokens or wildcards; or together they have more than 4066 bytes.
        LocalProtocolError: ``header`` is not a header block.
    """
    checked = _checked(subject)
    checked_reply = None if reply is None else _checked(reply)
    check_names(checked, checked_reply or b"")
    payload = _flat(payload)
    header = None if header is None else _values.raw(header)
    if header is not None and not (header.startswith(b"NATS/1.0") and header.endswith(b"\r\n\r\n")):
        raise LocalProtocolError(
            "header must be a block that starts with NATS/1.0 and ends with an empty line"
        )
    line = pub_line(checked, checked_reply, len(header or b""), _length(payload))
    return [line, payload, _CRLF] if header is None else [line, header, payload, _CRLF]


def pub_line(subject: bytes, reply: bytes | None, header_len: int, payload_len: int) -> bytes:
    """Return the control line of a publish, CRLF included. Hot path: nothing is checked.

    It is ``HPUB`` when ``header_len`` is above 0, else ``PUB``; the caller writes the header block, the
    payload and a CRLF after it.
    """
    if header_len:
        if reply is None:
            return b"HPUB %b %d %d\r\n" % (subject, header_len, header_len + payload_len)
        return b"HPUB %b %b %d %d\r\n" % (subject, reply, header_len, header_len + payload_len)
    if reply is None:
        return b"PUB %b %d\r\n" % (subject, payload_len)
    return b"PUB %b %b %d\r\n" % (subject, reply, payload_len)


def pub_frame(subject: bytes, reply: bytes | None, header: bytes, payload: Any) -> bytes:
    """Return a whole publish in one piece. Hot path: nothing is checked; large ones use :func:`pub_line`.

    It is formatted in one step: joining the pieces takes twice as long. ``payload`` is any bytes-like object.
    """
    size = len(payload)
    if header:
        head = len(header)
        if reply is None:
            return b"HPUB %b %d %d\r\n%b%b\r\n" % (subject, head, head + size, header, payload)
        return b"HPUB %b %b %d %d\r\n%b%b\r\n" % (subject, reply, head, head + size, header, payload)
    if reply is None:
        return b"PUB %b %d\r\n%b\r\n" % (subject, size, payload)
    return b"PUB %b %b %d\r\n%b\r\n" % (subject, reply, size, payload)


def sub(subject: bytes | str, sid: bytes | int, *, queue: bytes | str | None = None) -> Buffers:
    """``SUB``.

    Raises:
        BadSubjectError: ``subject`` or ``queue`` cannot be sent, or together they have more than 4066 bytes;
            or ``sid`` is not 1 to 10 digits.
    """
    checked = check_subscribe_subject(_text(subject))
    group = None if queue is None else check_queue(_text(queue))
    if group is not None:
        check_names(checked, group)
    return [sub_line(checked, group, _sid(sid))]


def sub_line(subject: bytes, queue: bytes | None, sid: bytes) -> bytes:
    """``SUB`` of checked parts."""
    if queue is None:
        return b"SUB %b %b\r\n" % (subject, sid)
    return b"SUB %b %b %b\r\n" % (subject, queue, sid)


def unsub(sid: bytes | int, *, max_msgs: int | None = None) -> Buffers:
    """``UNSUB``; with ``max_msgs`` the subscription ends after that many messages in all.

    Raises:
        BadSubjectError: ``sid`` is not 1 to 10 digits.
        LocalProtocolError: ``max_msgs`` is negative or has more than 10 digits.
    """
    if max_msgs is None:
        return [unsub_line(_sid(sid))]
    if not 0 <= max_msgs < 10**10:
        raise LocalProtocolError(f"max_msgs is out of range: {max_msgs}")
    return [unsub_line(_sid(sid), max_msgs)]


def unsub_line(sid: bytes, max_msgs: int | None = None) -> bytes:
    """``UNSUB`` of checked parts."""
    return b"UNSUB %b\r\n" % sid if max_msgs is None else b"UNSUB %b %d\r\n" % (sid, max_msgs)


# --- both roles -----------------------------------------------------------------------------------


PING = b"PING\r\n"
PONG = b"PONG\r\n"


def ping() -> Buffers:
    """``PING``."""
    return [PING]


def pong() -> Buffers:
    """``PONG``."""
    return [PONG]


# --- server role ----------------------------------------------------------------------------------


def info(data: Mapping[str, object]) -> Buffers:
    """``INFO {…}``."""
    return [b"INFO " + _json(data) + _CRLF]


def msg(
    subject: bytes | str,
    sid: bytes | int,
    payload: Payload = b"",
    *,
    reply: bytes | str | None = None,
    header: bytes | None = None,
) -> Buffers:
    """``MSG``, or ``HMSG`` when ``header`` is not ``None`` (any bytes, even ``b""``).

    Raises:
        BadSubjectError: ``subject`` or ``reply`` is empty or has SPACE, TAB or LF; ``sid`` is not 1 to
            10 digits.
    """
    names = [_token(subject), _sid(sid)]
    if reply is not None:
        names.append(_token(reply))
    line = b" ".join(names)
    payload = _flat(payload)
    header = None if header is None else _values.raw(header)
    size = _length(payload)
    if header is None:
        return [b"MSG %b %d\r\n" % (line, size), payload, _CRLF]
    return [b"HMSG %b %d %d\r\n" % (line, len(header), len(header) + size), header, payload, _CRLF]


def ok() -> Buffers:
    """``+OK``."""
    return [b"+OK\r\n"]


def err(text: str) -> Buffers:
    """``-ERR 'text'``.

    Raises:
        LocalProtocolError: ``text`` has a line feed, or cannot be written as UTF-8.
    """
    text = _values.text(text)
    if "\n" in text:
        raise LocalProtocolError("an error text is one line")
    try:
        return [b"-ERR '%b'\r\n" % text.encode()]
    except UnicodeEncodeError:
        raise LocalProtocolError("an error text must be encodable as UTF-8") from None


# --- checks ---------------------------------------------------------------------------------------


def _json(data: Mapping[str, object]) -> bytes:
    try:
        return json.dumps(dict(data), separators=(",", ":"), allow_nan=False).encode()
    except (TypeError, ValueError, RecursionError):
        raise LocalProtocolError("not representable as JSON") from None  # the text may hold secrets


def _flat(payload: Payload) -> Payload:
    """Return ``bytes`` and ``bytearray`` as they are, other buffers as a contiguous view or copy."""
    if type(payload) is bytes or type(payload) is bytearray:
        return payload
    view = payload if isinstance(payload, memoryview) else memoryview(payload)
    return view if view.c_contiguous else view.tobytes()


def _length(payload: Payload) -> int:
    return payload.nbytes if isinstance(payload, memoryview) else len(payload)


def _text(name: bytes | str) -> str:
    """Return the name as ``str``. Users give ``str``, events ``bytes``; both pass the same checks."""
    if isinstance(name, str):
        return _values.text(name)
    name = _values.raw(name)
    try:
        return name.decode()
    except UnicodeDecodeError:
        raise BadSubjectError(f"not UTF-8: {name[:64]!r}") from None


def _checked(subject: bytes | str) -> bytes:
    return check_publish_subject(_text(subject))


def _token(name: bytes | str) -> bytes:
    """Check a name of the server role: whatever a parser takes for one token is good."""
    try:
        if isinstance(name, str):
            raw = _values.text(name).encode("utf-8", "surrogateescape")
        else:
            raw = _values.raw(name)
    except UnicodeEncodeError:
        raise BadSubjectError(f"not encodable as UTF-8: {name[:64]!r}") from None
    if not raw or b" " in raw or b"\t" in raw or b"\n" in raw:
        raise BadSubjectError(f"empty, or has SPACE, TAB or LF: {raw[:64]!r}")
    return raw


def _sid(sid: bytes | int) -> bytes:
    raw = b"%d" % sid if isinstance(sid, int) else _values.raw(sid)
    if len(raw) > 10 or not raw.isdigit():
        raise BadSubjectError(f"a sid is 1 to 10 digits, not {raw[:64]!r}")
    return raw
