"""Control lines, one function per operation: tokens, numbers, JSON, and what breaks a rule."""

from __future__ import annotations

import pytest

from natsproto.wire import Connect, Err, Info, Msg, Ping, Pub, Sub, Unsub
from natsproto.wire.control_lines import (
    CLIENT_OPS,
    MAX_MAX_PAYLOAD,
    SERVER_OPS,
    LineError,
    could_be,
    may_begin,
    number,
    operation,
    split,
)


@pytest.mark.parametrize(
    ("line", "tokens"),
    [
        (b"", []),
        (b" \t ", []),
        (b"a b", [b"a", b"b"]),
        (b"\ta \t b\t", [b"a", b"b"]),
        (b"a\x0bb c\x0cd \re", [b"a\x0bb", b"c\x0cd", b"\re"]),  # legal in subjects
        (b"a\xc2\xa0b", [b"a\xc2\xa0b"]),
    ],
)
def test_tokens(line: bytes, tokens: list[bytes]) -> None:
    assert split(line) == tokens


@pytest.mark.parametrize(("token", "value"), [(b"0", 0), (b"007", 7), (b"9999999999", 9_999_999_999)])
def test_numbers(token: bytes, value: int) -> None:
    assert number(token) == value


@pytest.mark.parametrize(
    "token", [b"", b"+5", b"-5", b"1_0", b" 5", b"5 ", b"0x5", b"5.0", b"1" * 11, "٣".encode(), b"\xb2"]
)
def test_what_is_no_number(token: bytes) -> None:
    with pytest.raises(LineError, match="not a number"):
        number(token)


@pytest.mark.parametrize(
    ("op", "rest", "event", "header", "total"),
    [
        (b"MSG", b"a.b 7 12", Msg(b"a.b", b"7", None), -1, 12),
        (b"MSG", b"\ta.b\t 7 r.s  12 ", Msg(b"a.b", b"7", b"r.s"), -1, 12),
        (b"HMSG", b"a 7 12 40", Msg(b"a", b"7", None), 12, 40),
        (b"HMSG", b"a 7 r 12 12", Msg(b"a", b"7", b"r"), 12, 12),
        (b"-ERR", b"'Slow Consumer'", Err("Slow Consumer"), -1, -1),
        (b"-ERR", b" bare ", Err("bare"), -1, -1),
        (b"-ERR", b"'", Err("'"), -1, -1),
        (b"-ERR", b"", Err(""), -1, -1),
        (b"-ERR", b"'\xff'", Err("\\xff"), -1, -1),
        (b"PING", b" \t", Ping(), -1, -1),
    ],
)
def test_what_a_server_sends(op: bytes, rest: bytes, event: object, header: int, total: int) -> None:
    assert CLIENT_OPS[op](rest) == (event, header, total)


@pytest.mark.parametrize(
    ("op", "rest", "event", "header", "total"),
    [
        (b"PUB", b"a 0", Pub(b"a", None), -1, 0),
        (b"PUB", b"a r 5", Pub(b"a", b"r"), -1, 5),
        (b"HPUB", b"a 12 17", Pub(b"a", None), 12, 17),
        (b"HPUB", b"a r 12 17", Pub(b"a", b"r"), 12, 17),
        (b"SUB", b"a.* 1", Sub(b"a.*", None, b"1"), -1, -1),
        (b"SUB", b"a.* q 1", Sub(b"a.*", b"q", b"1"), -1, -1),
        (b"UNSUB", b"1", Unsub(b"1", None), -1, -1),
        (b"UNSUB", b"1 5", Unsub(b"1", 5), -1, -1),
        (b"CONNECT", b' {"a": 1} ', Connect({"a": 1}, b'{"a": 1}'), -1, -1),
    ],
)
def test_what_a_client_sends(op: bytes, rest: bytes, event: object, header: int, total: int) -> None:
    assert SERVER_OPS[op](rest) == (event, header, total)


@pytest.mark.parametrize(
    ("op", "rest", "why"),
    [
        (b"MSG", b"", "number of arguments"),
        (b"MSG", b"a 1", "number of arguments"),
        (b"MSG", b"a 1 r x 5", "number of arguments"),
        (b"MSG", b"a one 5", "not a number"),
        (b"MSG", b"a 1 r", "not a number"),
        (b"HMSG", b"a 1 5", "number of arguments"),
        (b"HMSG", b"a 1 6 5", "longer than the whole"),
        (b"PING", b"x", "arguments where none"),
        (b"INFO", b"", "not valid JSON"),
        (b"INFO", b"{", "not valid JSON"),
        (b"INFO", b"[]", "not a JSON object"),
        (b"INFO", b'{"port": NaN}', "not valid JSON"),
        (b"INFO", b'{"a": "\xff"}', "not valid JSON"),
        (b"INFO", b'{"a":' * 100_000, "not valid JSON"),
        (b"INFO", b'{"port": "1"}', "not of type int"),
        (b"INFO", b'{"port": true}', "not of type int"),
        (b"INFO", b'{"headers": 1}', "not of type bool"),
        (b"INFO", b'{"port": -1}', "negative"),
        (b"INFO", b'{"connect_urls": ["a", 1]}', "not a list of strings"),
        (b"INFO", b'{"max_payload": %d}' % (MAX_MAX_PAYLOAD + 1), "out of range"),
    ],
)
def test_a_server_that_breaks_a_rule(op: bytes, rest: bytes, why: str) -> None:
    with pytest.raises(LineError, match=why):
        CLIENT_OPS[op](rest)


@pytest.mark.parametrize(
    ("op", "rest"),
    [
        (b"PUB", b"5"),
        (b"PUB", b"a r x 5"),
        (b"HPUB", b"a 5"),
        (b"SUB", b"a"),
        (b"SUB", b"a q x 1"),
        (b"SUB", b"a x"),
        (b"UNSUB", b""),
        (b"UNSUB", b"1 2 3"),
        (b"UNSUB", b"1 -2"),
        (b"CONNECT", b"null"),
        (b"PONG", b"."),
    ],
)
def test_a_client_that_breaks_a_rule(op: bytes, rest: bytes) -> None:
    with pytest.raises(LineError):
        SERVER_OPS[op](rest)


def test_a_secret_in_broken_json_is_not_quoted() -> None:
    with pytest.raises(LineError) as told:
        SERVER_OPS[b"CONNECT"](b'{"pass": "CANARY"')
    assert "CANARY" not in str(told.value)
    assert told.value.__cause__ is None
    assert told.value.__suppress_context__


def test_null_means_absent() -> None:
    event, _, _ = CLIENT_OPS[b"INFO"](b'{"port": null, "headers": true, "unheard_of": null}')
    assert isinstance(event, Info)
    assert event.data == {"headers": True, "unheard_of": None}
    event, _, _ = CLIENT_OPS[b"INFO"](b'{"max_payload": %d}' % MAX_MAX_PAYLOAD)
    assert isinstance(event, Info)
    assert event.data["max_payload"] == MAX_MAX_PAYLOAD


@pytest.mark.parametrize(
    ("line", "op"),
    [(b"msg a 1 0", b"MSG"), (b"Ping", b"PING"), (b"-err\t'x'", b"-ERR"), (b"x" * 40, b"X" * 16), (b"", b"")],
)
def test_operations(line: bytes, op: bytes) -> None:
    assert operation(line) == op


def test_what_an_unfinished_line_can_become() -> None:
    assert could_be(b"", CLIENT_OPS)
    assert could_be(b"HM", CLIENT_OPS)
    assert not could_be(b"HX", CLIENT_OPS)
    for head, may in [
        (b"P", True),
        (b"ping", True),
        (b"PING\r", True),
        (b"PIN\r", False),
        (b"PIN ", False),
        (b"MSG ", True),
        (b"MSGS", False),
        (b"PUB ", False),
        (b" ", False),
    ]:
        assert may_begin(head, CLIENT_OPS) is may, head
