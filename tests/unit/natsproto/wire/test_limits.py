"""What a parser accepts: positive numbers of bytes, and each kind by itself."""

from __future__ import annotations

import pytest

from natsproto.errors import RemoteProtocolError
from natsproto.wire import Limits, Parser

NAMES = ("control_line", "info_line", "header_block", "message")


def test_defaults_take_what_servers_send() -> None:
    limits = Limits()
    assert limits.control_line >= 4096  # a server's own
    assert limits.message >= 64 * 1024 * 1024  # the largest max_payload
    assert limits.header_block >= 64 * 1024 - 1  # what JetStream can store
    assert limits.info_line >= limits.control_line
    assert all(f"{name}={getattr(limits, name)}" in repr(limits) for name in NAMES)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("value", [0, -1])
def test_none_is_zero(name: str, value: int) -> None:
    with pytest.raises(ValueError, match="positive"):
        Limits(**{name: value})
    assert getattr(Limits(**{name: 1}), name) == 1


@pytest.mark.parametrize(
    ("name", "limit", "fits", "too_long"),
    [
        ("control_line", 20, b"MSG aaaaaaaaaaa 1 0\r\n\r\n", b"MSG aaaaaaaaaaaaaa 1 0\r\n\r\n"),
        ("info_line", 20, b'INFO {"port":  1234}\r\n', b'INFO {"port":     1234}\r\n'),
        ("header_block", 12, b"HMSG a 1 12 12\r\nNATS/1.0\r\n\r\n\r\n", b"HMSG a 1 13 13\r\n"),
        ("message", 3, b"MSG a 1 3\r\nabc\r\n", b"MSG a 1 4\r\n"),
    ],
)
def test_each_holds_by_itself(name: str, limit: int, fits: bytes, too_long: bytes) -> None:
    """What is too long is refused as soon as that is known, before anything is kept for it."""
    assert len(Parser("client", limits=Limits(**{name: limit})).feed(fits)) == 1
    assert len(Parser("client").feed(fits)) == 1
    with pytest.raises(RemoteProtocolError):
        Parser("client", limits=Limits(**{name: limit})).feed(too_long)
    Parser("client").feed(too_long)


def test_nothing_can_be_added() -> None:
    with pytest.raises(AttributeError):
        Limits().lines = 3  # type: ignore[attr-defined]
