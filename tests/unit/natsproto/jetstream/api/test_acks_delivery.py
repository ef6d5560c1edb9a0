"""Acknowledgement subjects (ADR-15): both forms, and what only looks like one."""

from __future__ import annotations

from array import array

import pytest
from hypothesis import given
from hypothesis import strategies as st

from natsproto.jetstream.api import codec
from natsproto.jetstream.api.acks import Delivery, parse_ack_subject


def facts(delivery: Delivery | None) -> tuple[object, ...]:
    assert delivery is not None
    return tuple(
        getattr(delivery, name)
        for name in (
            "domain",
            "stream",
            "consumer",
            "delivered",
            "stream_seq",
            "consumer_seq",
            "time_ns",
            "num_pending",
        )
    )


def test_nine_tokens() -> None:
    found = parse_ack_subject(b"$JS.ACK.S.c.1.20.3.1700000000000000000.5")
    assert facts(found) == (None, "S", "c", 1, 20, 3, 1700000000000000000, 5)
    assert repr(found) == "<Delivery S/c stream_seq=20 consumer_seq=3 num_pending=5>"


@pytest.mark.parametrize("tail", [b"", b".token", b".token.more"])
@pytest.mark.parametrize(("domain", "wanted"), [(b"_", None), (b"hub", "hub")])
def test_eleven_and_more_tokens(domain: bytes, wanted: str | None, tail: bytes) -> None:
    found = parse_ack_subject(b"$JS.ACK." + domain + b".ACCHASH.S.c.1.20.3.1700000000000000000.5" + tail)
    assert facts(found) == (wanted, "S", "c", 1, 20, 3, 1700000000000000000, 5)


@pytest.mark.parametrize(
    "reply",
    [
        None,
        b"",
        b"_INBOX.x",
        b"$JS.ACK.",
        b"$JS.ACK",
        b"$JS.FC.S.c.x",
        b"$JS.ACK.S.c.1.20.3.17",  # 8
        b"$JS.ACK.x.S.c.1.20.3.17.5",  # 10
        b"$JS.ACK.S.c.one.20.3.17.5",
        b"$JS.ACK.S.c.1..3.17.5",
        b"$JS.ACK.S.c..20.3.17.5",
        b"$JS.ACK.S.c.1.20.3.17.-5",
        b"$JS.ACK.S.c.1.2_0.3.17.5",
        b"$JS.ACK.S.c.+1.20.3.17.5",
        b"$JS.ACK.\xff.c.1.20.3.17.5",
        b"$JS.ACK.S.c.1.20.3.17." + b"9" * 5000,
        b"$JS.ACK._.acc.S.c.1.20.3.17",  # 10 by leaving one out
        b"$js.ack.S.c.1.20.3.17.5",
    ],
    ids=repr,
)
def test_not_one(reply: bytes | None) -> None:
    assert parse_ack_subject(reply) is None


@pytest.mark.parametrize("at", range(5))
@pytest.mark.parametrize("number", [2**64, 10**19 * 2, 10**24, 10**39])
def test_numbers_no_server_counts_with(at: int, number: int) -> None:
    """They would fit nowhere: in no time, and in no array of sequences."""
    numbers = [1, 20, 3, 1700000000000000000, 5]
    numbers[at] = number
    tail = "".join(f".{each}" for each in numbers).encode()
    assert parse_ack_subject(b"$JS.ACK.S.c" + tail) is None
    assert parse_ack_subject(b"$JS.ACK._.acc.S.c" + tail + b".token") is None


@pytest.mark.parametrize("at", range(5))
def test_the_largest_numbers(at: int) -> None:
    numbers = [1, 20, 3, 1700000000000000000, 5]
    numbers[at] = 2**64 - 1
    found = parse_ack_subject(b"$JS.ACK.S.c" + "".join(f".{each}" for each in numbers).encode())
    assert facts(found) == (None, "S", "c", *numbers)
    assert found is not None
    assert codec.time_from_ns(found.time_ns)
    assert array("Q", [found.stream_seq])


@given(st.tuples(*[st.from_regex(rb"[0-9]{1,22}", fullmatch=True)] * 5))
def test_whatever_is_taken_has_64_bits(numbers: tuple[bytes, ...]) -> None:
    found = parse_ack_subject(b"$JS.ACK.S.c." + b".".join(numbers))
    assert (found is not None) == all(len(each) <= 20 and int(each) < 1 << 64 for each in numbers)


@given(st.binary(max_size=60))
def test_never_raises(tail: bytes) -> None:
    parse_ack_subject(b"$JS.ACK." + tail)
    parse_ack_subject(tail)
