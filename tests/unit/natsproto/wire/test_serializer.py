"""What is written, byte for byte, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from natsproto import wire
from natsproto.errors import BadSubjectError, LocalProtocolError
from natsproto.headers import encode_headers

BLOCK = encode_headers({"A": "1"})


@pytest.mark.parametrize(
    ("buffers", "expected"),
    [
        (wire.connect({"verbose": False, "name": "ü"}), b'CONNECT {"verbose":false,"name":"\\u00fc"}\r\n'),
        (wire.pub("a.b"), b"PUB a.b 0\r\n\r\n"),
        (wire.pub("a.b", b"hello", reply="r"), b"PUB a.b r 5\r\nhello\r\n"),
        (wire.pub(b"a", b"x", header=BLOCK), b"HPUB a 18 19\r\nNATS/1.0\r\nA: 1\r\n\r\nx\r\n"),
        (wire.pub("a", b"x", reply=b"r", header=BLOCK), b"HPUB a r 18 19\r\nNATS/1.0\r\nA: 1\r\n\r\nx\r\n"),
        (wire.pub("grün", b""), "PUB grün 0\r\n\r\n".encode()),
        (wire.pub("a", memoryview(bytearray(8)).cast("I")), b"PUB a 8\r\n" + bytes(8) + b"\r\n"),
        (wire.sub("a.>", 1), b"SUB a.> 1\r\n"),
        (wire.sub(b"a.*", b"22", queue="q"), b"SUB a.* q 22\r\n"),
        (wire.unsub(1), b"UNSUB 1\r\n"),
        (wire.unsub(b"1", max_msgs=5), b"UNSUB 1 5\r\n"),
        (wire.ping(), b"PING\r\n"),
        (wire.pong(), b"PONG\r\n"),
        (wire.info({"port": 4222}), b'INFO {"port":4222}\r\n'),
        (wire.msg("a", 1, b"x"), b"MSG a 1 1\r\nx\r\n"),
        (wire.msg(b"\xff\x0b", b"1", b"x", reply="r", header=b""), b"HMSG \xff\x0b 1 r 0 1\r\nx\r\n"),
        (wire.msg("\udcff", 1), b"MSG \xff 1 0\r\n\r\n"),
        (wire.ok(), b"+OK\r\n"),
        (wire.err("No"), b"-ERR 'No'\r\n"),
    ],
)
def test_bytes(buffers: list[Any], expected: bytes) -> None:
    assert b"".join(buffers) == expected


def test_payload_is_not_copied() -> None:
    payload = memoryview(bytearray(10))
    assert any(buffer is payload for buffer in wire.pub("a", payload))
    assert any(buffer is payload for buffer in wire.msg("a", 1, payload))
    assert any(buffer is BLOCK for buffer in wire.pub("a", payload, header=BLOCK))


BAD_NAMES = [
    "",
    " ",
    "a b",
    "a\tb",
    "a\r\nPUB x 0\r\n\r\n",
    "a\n",
    "\r",
    "a\x00",
    "a\x0b",
    "a\x0c",
    "a\x7f",
    "\ud800",
]


@pytest.mark.parametrize("name", BAD_NAMES)
@pytest.mark.parametrize(
    "call",
    [
        wire.pub,
        lambda name: wire.pub("a", reply=name),
        lambda name: wire.sub(name, 1),
        lambda name: wire.sub("a", 1, queue=name),
        lambda name: wire.sub("a", name.encode("utf-8", "replace")),
        lambda name: wire.unsub(name.encode("utf-8", "replace")),
    ],
)
def test_injection_is_refused(call: Callable[[str], Any], name: str) -> None:
    with pytest.raises(BadSubjectError):
        call(name)


@pytest.mark.parametrize("subject", [b"", b"a b", b"a\r\nb", b"\xff"])
def test_bytes_subjects_pass_the_same_check(subject: bytes) -> None:
    with pytest.raises(BadSubjectError):
        wire.pub(subject)


def test_lines_that_a_server_would_not_read() -> None:
    for call in (
        lambda: wire.pub("s" * 4067),
        lambda: wire.pub("s" * 67, reply="r" * 4000),
        lambda: wire.sub("s" * 67, 1, queue="q" * 4000),
    ):
        with pytest.raises(BadSubjectError, match="too long"):
            call()


@pytest.mark.parametrize("sid", [-1, 10**10, b"", b"x", b"+1", b"1_0", b"01234567890", b"\xb2"])
def test_sid(sid: Any) -> None:
    with pytest.raises(BadSubjectError):
        wire.sub("a", sid)
    with pytest.raises(BadSubjectError):
        wire.unsub(sid)
    with pytest.raises(BadSubjectError):
        wire.msg("a", sid)


@pytest.mark.parametrize("name", ["", " ", "a b", "a\tb", "a\nb", b"", b"a b", "\ud800"])
def test_server_role_refuses_what_is_not_one_token(name: Any) -> None:
    with pytest.raises(BadSubjectError):
        wire.msg(name, 1)
    with pytest.raises(BadSubjectError):
        wire.msg("a", 1, reply=name)


@pytest.mark.parametrize(
    "call",
    [
        lambda: wire.pub("a", header=b""),
        lambda: wire.pub("a", header=b"NATS/1.0\r\n"),
        lambda: wire.pub("a", header=b"XXXX\r\n\r\n"),
        lambda: wire.unsub(1, max_msgs=-1),
        lambda: wire.unsub(1, max_msgs=10**10),
        lambda: wire.err("a\nb"),
        lambda: wire.err("\ud800"),
        lambda: wire.connect({"a": float("nan")}),
        lambda: wire.info({"a": object()}),
    ],
)
def test_refused(call: Callable[[], Any]) -> None:
    with pytest.raises(LocalProtocolError):
        call()


def test_json_error_does_not_show_the_data() -> None:
    with pytest.raises(LocalProtocolError) as caught:
        wire.connect({"pass": "canary", "x": object()})
    assert "canary" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_pub_line() -> None:
    assert wire.pub_line(b"a", None, 0, 5) == b"PUB a 5\r\n"
    assert wire.pub_line(b"a", b"r", 0, 5) == b"PUB a r 5\r\n"
    assert wire.pub_line(b"a", None, 10, 5) == b"HPUB a 10 15\r\n"
    assert wire.pub_line(b"a", b"r", 10, 5) == b"HPUB a r 10 15\r\n"
