"""JSON of the JetStream API: times, durations, and answers that are none."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from natsproto.errors import LocalProtocolError, RemoteProtocolError
from natsproto.jetstream.api import codec


def test_dumps_is_compact_utf8() -> None:
    assert codec.dumps({"a": 1, "b": ["é"]}) == '{"a":1,"b":["é"]}'.encode()


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"no",
        b"[1]",
        b'"text"',
        b"1",
        b"null",
        b'{"a":',
        b"\xff\xfe\x00",
        b'{"a":"\xff"}',
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b'{"seq":' + b"9" * 5000 + b"}",
        *(
            b'{"a":%b}' % value
            for value in (rb'"\ud800"', rb'{"\uDfff":1}', rb'[["x\udabcy"]]', rb'"\ude00\ud83d"')
        ),
    ],
    ids=lambda value: repr(value[:12]),
)
def test_loads_refuses(payload: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        codec.loads(payload)


@pytest.mark.parametrize("text", [r"\\ud800", r"\ud83d\ude00", r"\u00e9", r"\\\ud83d\ude00"])
def test_loads_takes_what_can_be_written_again(text: str) -> None:
    document = codec.loads(b'{"a":"%b"}' % text.encode())
    assert codec.loads(codec.dumps(document)) == document


@pytest.mark.parametrize("text", ["\ud800", "a\udfff", "\ude00\ud83d"])
def test_dumps_refuses_what_is_no_unicode(text: str) -> None:
    for document in ({"a": text}, {text: 1}, {"a": [{"b": text}]}):
        with pytest.raises(LocalProtocolError, match="JSON"):
            codec.dumps(document)
    with pytest.raises(LocalProtocolError, match="JSON"):
        codec.dumps_str(text)


@pytest.mark.parametrize("value", [0, 1, 2**64 - 1])
def test_numbers(value: int) -> None:
    assert codec.number({"a": value}, "a") == value
    assert codec.number({}, "a") == 0


@pytest.mark.parametrize("value", ["1", [1], None, True, 1.0, -1, 2**64, 10**40])
def test_no_numbers(value: object) -> None:
    with pytest.raises(RemoteProtocolError, match="'a'"):
        codec.number({"a": value}, "a")


def test_loads_refuses_what_is_too_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(codec, "MAX_ANSWER", 10)
    assert codec.loads(b'{"a":1}') == {"a": 1}
    with pytest.raises(RemoteProtocolError, match="11 bytes"):
        codec.loads(b'{"a":10000}')
    assert codec.loads(b'{"a":10000}', 11) == {"a": 10000}
    with pytest.raises(RemoteProtocolError, match="12 bytes"):
        codec.loads(b'{"a":100000}', 11)


@pytest.mark.parametrize("value", ["[]", "{}", "0", '""', '{"a":0}', "[[[0]]]", '"\\\\"', '"\\"",0'])
def test_loads_counts_values(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also behind strings that look like the end of one."""
    monkeypatch.setattr(codec, "FEW", 0)
    monkeypatch.setattr(codec, "MAX_VALUES", 1000)
    few, many = (f'{{"a":[{",".join([value] * count)}]}}'.encode() for count in (200, 1000))
    assert codec.loads(few)["a"]
    with pytest.raises(RemoteProtocolError, match="too many values"):
        codec.loads(many)


def test_loads_takes_a_page_of_any_subjects() -> None:
    subjects = {f'{number},,,{{{{[["\\",[{{' * 5: 1 for number in range(100_000)}
    document = {"state": {"subjects": subjects}}
    assert codec.loads(codec.dumps(document), codec.MAX_DOCUMENT) == document


VALUES = st.recursive(
    st.none() | st.integers() | st.text('\\",[{a'),
    lambda inner: st.lists(inner) | st.dictionaries(st.text('\\",[{a'), inner),
    max_leaves=15,
)


@given(st.dictionaries(st.text('\\",[{a'), VALUES, max_size=6))
def test_no_value_is_missed(document: dict[str, Any]) -> None:
    def count(value: Any) -> int:
        inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
        return 1 + sum(map(count, inner))

    text = codec.dumps(document)
    assert count(document) - 1 <= codec._values(text) <= 2 * count(document)


@pytest.mark.parametrize("wrap", [bytes, bytearray, memoryview])
def test_loads_takes_any_buffer(wrap: type) -> None:
    assert codec.loads(wrap(b'{"a":1}')) == {"a": 1}


@given(st.timedeltas(min_value=timedelta(microseconds=1), max_value=timedelta(days=100_000)))
def test_durations_round_trip(value: timedelta) -> None:
    assert codec.from_ns(codec.to_ns(value)) == value


@pytest.mark.parametrize("value", [0, -1, None, "5", True, 1.5, 10**40, []])
def test_no_duration(value: object) -> None:
    assert codec.from_ns(value) is None


@pytest.mark.parametrize(
    ("text", "microsecond"),
    [
        ("2024-02-03T04:05:06Z", 0),
        ("2024-02-03T04:05:06.5Z", 500_000),
        ("2024-02-03T04:05:06.123456789Z", 123_456),
        ("2024-02-03T05:05:06.000001+01:00", 1),
        (b"2024-02-03T04:05:06.999999999Z", 999_999),
    ],
)
def test_times(text: object, microsecond: int) -> None:
    assert codec.parse_time(text) == datetime(2024, 2, 3, 4, 5, 6, microsecond, UTC)
    assert codec.parse_time(text).tzinfo is UTC


def test_the_zero_time_of_go() -> None:
    assert codec.parse_time("0001-01-01T00:00:00Z").year == 1


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x",
        None,
        5,
        "2024-02-03T04:05:06.Zx",
        "9999-12-31T23:59:59-01:00",
        b"\xff",
        "2024-13-01T00:00:00Z",
    ],
)
def test_no_time(text: object) -> None:
    with pytest.raises(RemoteProtocolError, match="not a time"):
        codec.parse_time(text)


@pytest.mark.parametrize("text", ["x" * 1_000_000, b"\xff" * 1_000_000, ["x" * 1_000_000]])
def test_no_time_of_megabytes(text: object) -> None:
    with pytest.raises(RemoteProtocolError, match="not a time") as caught:
        codec.parse_time(text)
    assert len(str(caught.value)) < 200


def test_a_time_without_zone_is_utc() -> None:
    assert codec.parse_time("2024-02-03T04:05:06") == datetime(2024, 2, 3, 4, 5, 6, tzinfo=UTC)


def test_time_from_ns() -> None:
    assert codec.time_from_ns(1_700_000_000_123_456_789) == datetime(2023, 11, 14, 22, 13, 20, 123_456, UTC)
    assert codec.time_from_ns(999) == datetime(1970, 1, 1, tzinfo=UTC)
    assert codec.time_from_ns(2**63 - 1) == datetime(2262, 4, 11, 23, 47, 16, 854_775, UTC)
    assert codec.time_from_ns(1).tzinfo is UTC


@pytest.mark.parametrize("ns", [10**40, 253402300800 * 10**9])
def test_no_time_from_ns(ns: int) -> None:
    with pytest.raises(RemoteProtocolError, match="9999"):
        codec.time_from_ns(ns)


@given(ns=st.integers(0, 2**63 - 1) | st.integers(codec._EXACT - 10**9, codec._EXACT + 10**9))
@example(ns=codec._EXACT - 1)
@example(ns=codec._EXACT)
def test_time_from_ns_is_exact(ns: int) -> None:
    assert codec.time_from_ns(ns) == datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=ns // 1000)
