"""The header codec, against nats.go's expectations, and the ``Headers`` mapping."""

from __future__ import annotations

import json
from typing import Any

import pytest

from natsproto.errors import LocalProtocolError, RemoteProtocolError
from natsproto.headers import Headers, encode_headers, header_value, parse_headers, status_of

# --- the mapping ----------------------------------------------------------------------------------


def test_look_up_ignores_case_and_keeps_it() -> None:
    headers = Headers({"Nats-Msg-Id": "1"})
    assert headers["nats-msg-id"] == "1"
    assert "NATS-MSG-ID" in headers
    assert 5 not in headers  # type: ignore[comparison-overlap]
    assert list(headers) == ["Nats-Msg-Id"]
    assert headers.get("other") is None
    with pytest.raises(KeyError):
        headers["other"]


def test_several_values_keep_their_order() -> None:
    headers = Headers([("a", "1"), ("b", "2"), ("A", "3"), ("c", ["4", "5"])])
    assert headers.get_all("a") == ["1", "3"]
    assert headers.get_all("none") == []
    assert headers.multi_items() == [("a", "1"), ("b", "2"), ("A", "3"), ("c", "4"), ("c", "5")]
    assert list(headers.items()) == [("a", "1"), ("b", "2"), ("c", "4")]
    assert len(headers) == 3
    assert repr(Headers({"a": ["1", "2"]})) == "Headers([('a', '1'), ('a', '2')])"


def test_setting_replaces_all_values_in_place() -> None:
    headers = Headers([("a", "1"), ("b", "2"), ("A", "3")])
    headers["A"] = "9"
    assert headers.multi_items() == [("A", "9"), ("b", "2")]
    headers["new"] = ["x", "y"]
    assert headers.get_all("NEW") == ["x", "y"]
    del headers["new"]
    assert "new" not in headers
    with pytest.raises(KeyError):
        del headers["new"]


def test_equality_ignores_the_case_of_names_and_the_order_between_them() -> None:
    assert Headers({"a": "1", "b": "2"}) == Headers([("B", "2"), ("A", "1")])
    assert Headers({"a": ["1", "2"]}) != Headers({"a": ["2", "1"]})
    assert Headers({"a": "1"}) == {"A": "1"}
    assert Headers({"a": "1"}) != {"A": 1}
    assert Headers() != "x"


def test_copies_are_independent() -> None:
    headers = Headers({"a": "1"})
    for copy in (headers.copy(), Headers(headers)):
        copy.add("a", "2")
    assert headers.get_all("a") == ["1"]


@pytest.mark.parametrize("source", [{"a": 1}, {"a": b"1"}, {"a": [1]}, {1: "a"}, [(b"a", "1")]])
def test_other_types_are_refused(source: Any) -> None:
    with pytest.raises(TypeError):
        Headers(source)
    with pytest.raises(TypeError):
        Headers()["a"] = 1  # type: ignore[assignment]


# --- writing --------------------------------------------------------------------------------------


def test_encode() -> None:
    assert encode_headers({}) == b"NATS/1.0\r\n\r\n"
    assert encode_headers({"A": "1", "b": ["2", ""]}) == b"NATS/1.0\r\nA: 1\r\nb: 2\r\nb: \r\n\r\n"
    assert encode_headers({"k": "grün"}) == "NATS/1.0\r\nk: grün\r\n\r\n".encode()
    assert encode_headers({}, status=503) == b"NATS/1.0 503\r\n\r\n"
    assert encode_headers({"a": "1"}, status=404, description="No Messages") == (
        b"NATS/1.0 404 No Messages\r\na: 1\r\n\r\n"
    )


@pytest.mark.parametrize(
    "name", ["", " ", "a b", "a:", ":", "a\r", "a\n", "a\r\nb", "a\0", "a\t", "\x7f", "ü"]
)
def test_bad_names(name: str) -> None:
    with pytest.raises(LocalProtocolError):
        encode_headers({name: "x"})


@pytest.mark.parametrize("value", ["\r", "\n", "a\r\nInjected: 1", "\0", "\ud800"])
def test_bad_values(value: str) -> None:
    with pytest.raises(LocalProtocolError):
        encode_headers({"a": value})
    with pytest.raises(LocalProtocolError):
        encode_headers({}, status=100, description=value)


def test_bad_status() -> None:
    for status in (0, 99, 1000, -1):
        with pytest.raises(LocalProtocolError):
            encode_headers({}, status=status)
    with pytest.raises(LocalProtocolError):
        encode_headers({}, description="alone")


# --- reading --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "status", "description"),
    [
        (b"NATS/1.0", None, ""),
        (b"NATS/1.0 503", 503, ""),
        (b"NATS/1.0 503 No Responders", 503, "No Responders"),
        (b"NATS/1.0  404   No Messages", 404, "No Messages"),
        (b"NATS/1.0\t100\tIdle Heartbeat \t", 100, "Idle Heartbeat"),
        (b"NATS/1.0 409 \xff", 409, "\udcff"),
        (b"NATS/1.0 409 a\tb  c", 409, "a\tb  c"),
    ],
)
def test_status(line: bytes, status: int | None, description: str) -> None:
    for rest in (b"\r\n\r\n", b"\r\nNats-Subject: x\r\n\r\n"):  # 2.15 servers add the header to a 503
        parsed = parse_headers(line + rest)
        assert (parsed.status, parsed.description) == (status, description)
        assert status_of(line + rest) == status
        assert parsed.headers.get("Nats-Subject") == ("x" if len(rest) > 4 else None)


@pytest.mark.parametrize(
    "line",
    [
        b"NATS/1.0503",
        b"NATS/1.0 5",
        b"NATS/1.0 41",
        b"NATS/1.0 ",
        b"NATS/1.0 5031",
        b"NATS/1.0 abc",
        b"NATS/1.0 +50",
    ],
)
def test_malformed_status_is_flagged(line: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        parse_headers(line + b"\r\n\r\n")
    assert status_of(line + b"\r\n\r\n") is None


@pytest.mark.parametrize(
    "block",
    [
        b"",
        b"XXXX",
        b"NATS/1.0",
        b"NATS/1.0\r\n",
        b"NATS/1.0\r\nk1:v1",
        b"NATS/1.0\r\nk1:v1\r\n",
        b"NATS/1.0\r\nno colon\r\n\r\n",
        b"HTTP/1.0 200 OK\r\n\r\n",
        b"nats/1.0\r\n\r\n",
    ],
)
def test_malformed_block(block: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        parse_headers(block)


@pytest.mark.parametrize("block", [b"", b"XXXX", b"NATS/1.0", b"NATS/1.0 503", b"HTTP/1.0 200\r\n\r\n"])
def test_status_of_a_malformed_block_is_none(block: bytes) -> None:
    assert status_of(block) is None


def test_values() -> None:
    lines = [b"A:1", b"a: 2 ", b"A:\t3:x", b"E:", b":skipped", b"k k: v", b"U: gr\xc3\xbcn", b"X: \xff"]
    block = b"\r\n".join([b"NATS/1.0", *lines, b"", b""])
    assert parse_headers(block).headers.multi_items() == [
        ("A", "1"),
        ("a", "2"),
        ("A", "3:x"),
        ("E", ""),
        ("k k", "v"),
        ("U", "grün"),
        ("X", "\udcff"),
    ]
    assert "status=None" in repr(parse_headers(block))


def test_bytes_that_are_not_utf8_go_back_to_the_same_bytes() -> None:
    block = b"NATS/1.0 503 \xfe\r\nX: \xff\r\n\r\n"
    parsed = parse_headers(block)
    assert encode_headers(parsed.headers, status=parsed.status, description=parsed.description) == block


def test_header_value() -> None:
    block = b"NATS/1.0\r\nKeys: 0\r\nKey: \t1 \r\nKey: 2\r\nEmpty:\r\n\r\n"
    assert header_value(block, b"Key") == b"1"
    assert header_value(block, b"Empty") == b""
    assert header_value(block, b"key") is None
    assert header_value(b"NATS/1.0\r\nKey: cut", b"Key") == b"cut"


def test_json_takes_them_as_lists() -> None:
    headers = Headers([("Tag", "1"), ("Type", "text"), ("tag", "2"), ("X", "\udcff")])
    shown = headers.to_dict()
    assert shown == {"Tag": ["1", "2"], "Type": ["text"], "X": ["\udcff"]}
    assert json.loads(json.dumps(shown)) == shown
    headers["type"] = ["a", "b"]
    del headers["tag"]
    assert headers.to_dict() == {"type": ["a", "b"], "X": ["\udcff"]}
    assert Headers().to_dict() == {}
