"""Acknowledgement subjects (ADR-15): both forms, and what only looks like one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

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


@given(st.binary(max_size=60))
def test_never_raises(tail: bytes) -> None:
    parse_ack_subject(b"$JS.ACK." + tail)
    parse_ack_subject(tail)
