"""Control lines: bytes of one line in, an event (and the lengths of what follows it) out.

Pure functions, one per operation. The rules:

* Tokens are separated by SPACE and TAB only. VT, FF and a lone CR are legal in subjects, and real
  servers deliver them, so ``bytes.split()`` must not be used.
* Numbers are 1 to 10 ASCII digits; ``int()`` alone would take ``+5``, ``1_0`` and `` 5 ``.
* Operations are compared without regard to case.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection
from typing import Final

from .events import OK_EVENT, PING_EVENT, PONG_EVENT, Connect, Err, Event, Info, Msg, Pub, Sub, Unsub

MAX_DIGITS: Final = 10
MAX_MAX_PAYLOAD: Final = 2**31 - 1  # bytes; nats-server keeps max_payload in an int32

Head = tuple[Event, int, int]
"""An event, its header block's length (-1: none) and its total length (-1: no payload follows)."""


class LineError(Exception):
    """A control line breaks a rule; the parser turns it into ``RemoteProtocolError``."""


def split(line: bytes) -> list[bytes]:
    """Return the tokens of ``line``, which SPACE and TAB separate."""
    return [token for token in line.replace(b"\t", b" ").split(b" ") if token]


def number(token: bytes) -> int:
    """Return the value of a size or count: 1 to 10 ASCII digits."""
    if len(token) > MAX_DIGITS or not token.isdigit():
        raise LineError(f"not a number of 1 to {MAX_DIGITS} digits: {token[:24]!r}")
    return int(token)


def _sid(token: bytes) -> bytes:
    number(token)
    return token


# --- both roles -----------------------------------------------------------------------------------


def _bare(event: Event) -> Callable[[bytes], Head]:
    def parse(rest: bytes) -> Head:
        if rest.strip(b" \t"):
            raise LineError("arguments where none are allowed")
        return event, -1, -1

    return parse


def _payload_args(rest: bytes, names: int, with_header: bool) -> tuple[list[bytes], bytes | None, int, int]:
    """Split ``names… [reply] [header_length] total`` into names, reply, header length (or -1), total."""
    args = split(rest)
    lengths = 2 if with_header else 1
    extra = len(args) - names - lengths
    if extra not in (0, 1):
        raise LineError(f"wrong number of arguments ({len(args)})")
    total = number(args[-1])
    header = number(args[-2]) if with_header else -1
    if header > total:
        raise LineError(f"header block ({header} bytes) longer than the whole message ({total})")
    return args[:names], args[names] if extra else None, header, total


def _json_object(rest: bytes) -> tuple[dict[str, object], bytes]:
    """Parse the JSON object of an INFO or CONNECT (its size is already checked)."""
    raw = rest.strip(b" \t")
    try:
        data = json.loads(raw.decode(), parse_constant=_refuse_constant)
    except (ValueError, RecursionError):  # UnicodeDecodeError, JSONDecodeError, > 4300 digits, nesting
        raise LineError("argument is not valid JSON") from None  # its text may hold secrets
    if not isinstance(data, dict):
        raise LineError("argument is not a JSON object")
    return data, raw


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


# --- client role: what a server sends -------------------------------------------------------------


def _msg(rest: bytes) -> Head:  # MSG <subject> <sid> [reply] <#bytes>
    (subject, sid), reply, header, total = _payload_args(rest, 2, with_header=False)
    return Msg(subject, _sid(sid), reply), header, total


def _hmsg(rest: bytes) -> Head:  # HMSG <subject> <sid> [reply] <#header bytes> <#total bytes>
    (subject, sid), reply, header, total = _payload_args(rest, 2, with_header=True)
    return Msg(subject, _sid(sid), reply), header, total


def _err(rest: bytes) -> Head:  # -ERR '<text>'; the text may be missing
    text = rest.strip(b" \t")
    if len(text) >= 2 and text[:1] == text[-1:] == b"'":
        text = text[1:-1]
    return Err(text.decode("utf-8", "backslashreplace")), -1, -1


_INFO_FIELDS: Final[dict[str, type]] = {
    **dict.fromkeys(("server_id", "server_name", "version", "host", "nonce", "cluster", "domain"), str),
    **dict.fromkeys(("headers", "ldm", "jetstream", "auth_required"), bool),
    **dict.fromkeys(("tls_required", "tls_available", "tls_verify"), bool),
    **dict.fromkeys(("proto", "port", "max_payload", "client_id", "api_lvl"), int),
    **dict.fromkeys(("connect_urls", "ws_connect_urls"), list),
}


def _info(rest: bytes) -> Head:  # INFO {…}; 2.15 servers end it with a space
    data, raw = _json_object(rest)
    for name, kind in _INFO_FIELDS.items():
        value = data.get(name)
        if value is None:
            data.pop(name, None)  # null means absent
        elif type(value) is not kind:  # not isinstance: a bool is an int, too
            raise LineError(f"INFO field {name!r} is not of type {kind.__name__}")
        elif isinstance(value, int) and value < 0:
            raise LineError(f"INFO field {name!r} is negative")
        elif isinstance(value, list) and not all(type(item) is str for item in value):
            raise LineError(f"INFO field {name!r} is not a list of strings")
    most = data.get("max_payload")
    if isinstance(most, int) and most > MAX_MAX_PAYLOAD:
        raise LineError("INFO field 'max_payload' is out of range")
    return Info(data, raw), -1, -1


CLIENT_OPS: Final[dict[bytes, Callable[[bytes], Head]]] = {
    b"MSG": _msg,
    b"HMSG": _hmsg,
    b"PING": _bare(PING_EVENT),
    b"PONG": _bare(PONG_EVENT),
    b"+OK": _bare(OK_EVENT),
    b"-ERR": _err,
    b"INFO": _info,
}


# --- server role: what a client sends -------------------------------------------------------------


def _connect(rest: bytes) -> Head:  # CONNECT {…}
    return Connect(*_json_object(rest)), -1, -1


def _pub(rest: bytes) -> Head:  # PUB <subject> [reply] <#bytes>
    (subject,), reply, header, total = _payload_args(rest, 1, with_header=False)
    return Pub(subject, reply), header, total


def _hpub(rest: bytes) -> Head:  # HPUB <subject> [reply] <#header bytes> <#total bytes>
    (subject,), reply, header, total = _payload_args(rest, 1, with_header=True)
    return Pub(subject, reply), header, total


def _sub(rest: bytes) -> Head:  # SUB <subject> [queue] <sid>
    args = split(rest)
    if len(args) not in (2, 3):
        raise LineError(f"wrong number of arguments ({len(args)})")
    return Sub(args[0], args[1] if len(args) == 3 else None, _sid(args[-1])), -1, -1


def _unsub(rest: bytes) -> Head:  # UNSUB <sid> [max_msgs]
    args = split(rest)
    if len(args) not in (1, 2):
        raise LineError(f"wrong number of arguments ({len(args)})")
    return Unsub(_sid(args[0]), number(args[1]) if len(args) == 2 else None), -1, -1


SERVER_OPS: Final[dict[bytes, Callable[[bytes], Head]]] = {
    b"PUB": _pub,
    b"HPUB": _hpub,
    b"SUB": _sub,
    b"UNSUB": _unsub,
    b"PING": _bare(PING_EVENT),
    b"PONG": _bare(PONG_EVENT),
    b"CONNECT": _connect,
}


def operation(line: bytes) -> bytes:
    """Return the operation of a (possibly unfinished) line, in upper case."""
    return line[:16].replace(b"\t", b" ").partition(b" ")[0].upper()


def could_be(op: bytes, known: Collection[bytes]) -> bool:
    """Tell whether ``op``, the operation of an unfinished line, can still become one of ``known``."""
    return any(each.startswith(op) for each in known)


def may_begin(head: bytes, ops: Collection[bytes]) -> bool:
    """Tell whether a line with one of these operations can begin with ``head``, at most 16 bytes."""
    op = operation(head)
    if len(op) < len(head):  # a separator was seen
        return op in ops
    return op.removesuffix(b"\r") in ops or could_be(op, ops)
