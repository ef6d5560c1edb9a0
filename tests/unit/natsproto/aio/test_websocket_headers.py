"""Headers for the handshake of a WebSocket: what may be sent, and that nothing of it shows."""

from __future__ import annotations

import traceback
from types import MappingProxyType
from typing import Any

import pytest

import natsproto
from natsproto.aio.websocket_headers import headers_of
from natsproto.errors import ConfigError

URL = "ws://h"


def test_one_value_or_several_in_their_order() -> None:
    wanted = [
        ("Authorization", "Bearer CANARY"),
        ("X-A", "1"),
        ("X-A", "2"),
        ("x-a", ""),
        ("Origin", "http://h"),
    ]
    given: dict[str, Any] = {
        "Authorization": "Bearer CANARY",
        "X-A": ["1", "2"],
        "x-a": "",
        "Origin": ("http://h",),
    }
    assert headers_of(given) == wanted
    assert headers_of(MappingProxyType(given)) == wanted
    assert headers_of(lambda: given) == wanted
    assert headers_of(None) == headers_of({}) == headers_of({"X": []}) == []
    natsproto.connect(URL, ws_connection_headers=given)


def test_a_value_is_what_it_contains() -> None:
    class Odd(str):
        def __str__(self) -> str:
            return "\r\nInjected: yes"

        __format__ = __repr__ = __str__  # type: ignore[assignment]

    ((name, value),) = headers_of({Odd("X"): Odd("v")})
    assert (type(name), type(value)) == (str, str)
    assert (name, value) == ("X", "v")


WRONG: list[Any] = [
    {"": "v"},
    {"X Y": "v"},
    {"X:": "v"},
    {"Bearer CANARY": "Authorization"},
    {"X\r\nY": "v"},
    {"Ü": "v"},
    {b"X": "v"},
    {"Host": "h"},
    {"upgrade": "h2c"},
    {"Connection": "close"},
    {"Content-Length": "5"},
    {"Transfer-Encoding": "chunked"},
    {"Sec-WebSocket-Key": "k"},
    {"sec-websocket-protocol": "mqtt"},
    {"X": "CANARY\r\nY: z"},
    {"X": "CANARY\n"},
    {"X": "CANARY\x00"},
    {"X": "CANARÝ"},
    {"X": b"CANARY"},
    {"X": None},
    {"X": ["a", "CANARY\r\n"]},
    {"X": ["a", 5]},
    [("X", "CANARY")],
    "CANARY",
]


@pytest.mark.parametrize("wrong", WRONG, ids=repr)
def test_what_cannot_be_sent(wrong: Any) -> None:
    """It is refused before a byte is sent, and nobody reads a value in the message."""
    with pytest.raises(ConfigError, match="ws_connection_headers") as info:
        natsproto.connect(URL, ws_connection_headers=wrong)
    assert "CANAR" not in str(info.value)
    with pytest.raises(ConfigError, match="ws_connection_headers") as info:
        headers_of(lambda: wrong)
    assert "CANAR" not in str(info.value)


class Spilled(Exception):
    """Tells a secret."""


def test_a_callable_that_fails() -> None:
    def spill() -> dict[str, str]:
        raise Spilled("CANARY")

    async def later() -> dict[str, str]:
        return {"X": "CANARY"}

    for source, reason in (
        (spill, "raised Spilled"),
        (later, "returned coroutine, not a mapping"),
        (int, "int"),
    ):
        call: Any = source
        natsproto.connect(URL, ws_connection_headers=call)  # it is asked when a connection is tried
        with pytest.raises(ConfigError, match=reason) as info:
            headers_of(call)
        assert "CANARY" not in "".join(traceback.format_exception(info.value))


def test_they_are_for_websockets() -> None:
    for servers in ("nats://h", "tls://h", ["h", "nats://i"]):
        with pytest.raises(ConfigError, match="ws:// and wss://"):
            natsproto.connect(servers, ws_connection_headers={"X": "v"})
    natsproto.connect(["wss://h", "ws://i"], ws_connection_headers={"X": "v"})
