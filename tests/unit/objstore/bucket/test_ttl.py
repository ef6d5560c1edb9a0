"""What the header of a message says of its end: as the server reads it, and never as "never" by mistake."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from objstore.bucket.ttl import LAST, UNKNOWN, end_line, expired, expiry, left_of, outlasts, ttl_line
from objstore.format.models import ObjectInfo, plain_info

STORED = datetime(2026, 11, 22, 14, 15, tzinfo=UTC)
HOUR = timedelta(hours=1)


def ends(value: str) -> datetime | None:
    return expiry(b"NATS/1.0\r\nNats-TTL: %b\r\n\r\n" % value.encode(), STORED)


def expiring(moment: datetime | None) -> ObjectInfo:
    info = plain_info("a", "b", None, STORED)
    object.__setattr__(info, "expires", moment)
    return info


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("2", 2),
        ("0000000000000002", 2),
        ("1s", 1),
        ("+2s", 2),
        ("1.5s", 1),
        ("1.s", 1),
        (".5m", 30),
        ("1500ms", 1),
        ("1000000us", 1),
        ("1000000\u00b5s", 1),
        ("1000000\u03bcs", 1),
        ("1000000000ns", 1),
        ("1h2m3.5s", 3723),
        ("1m1ms", 60),
        ("7000000000", 7_000_000_000),
    ],
)
def test_what_go_reads(value: str, seconds: int) -> None:
    assert ends(value) == STORED + timedelta(seconds=seconds)


@pytest.mark.parametrize("value", ["never", "NEVER", "", " ", "0", "00", "0s"])
def test_never(value: str) -> None:
    assert ends(value) is None
    assert expiry(None, STORED) is None
    assert expiry(b"NATS/1.0\r\nNats-Msg-Id: 1\r\n\r\n", STORED) is None


@pytest.mark.parametrize(
    "value",
    [
        "1d", "1e3s", "1_0s", "-5s", "1m1", ".s", "1.5", "+2", "0x2", "2 s", "\uff12", "\uff12s", "500ms",
        "forever", "1sNats-Stream: OBJ_b", "9999999999", "18446744073709551618", "9000000000s",
        "9" * 5000, "0" * 5000 + "1s",
    ],
    ids=lambda value: value[:24],
)  # fmt: skip
def test_what_is_not_understood_may_end_at_any_moment(value: str) -> None:
    """The server may read it in another way, or count beyond what it can count to."""
    end = ends(value)
    assert end == UNKNOWN
    assert left_of(UNKNOWN, STORED) is None, "it may be there for ever"
    assert not expired(expiring(end)), "that it is over would be a guess as well"


def test_what_can_take_the_place_of_what() -> None:
    soon = datetime.now(UTC) + 3 * HOUR
    later = soon + HOUR
    assert outlasts(None, None)
    assert outlasts(None, soon)
    assert outlasts(None, UNKNOWN)
    assert outlasts(later, later)
    assert outlasts(soon, later), "clocks differ"
    assert not outlasts(soon, later + HOUR)
    assert outlasts(STORED, STORED)
    minutes = datetime.now(UTC) + HOUR * 0.9
    assert outlasts(minutes - HOUR / 3, minutes)
    assert not outlasts(minutes - HOUR * 0.8, minutes), "clocks do not go wrong by most of what is left"
    assert not outlasts(later, None)
    assert not outlasts(UNKNOWN, None)
    assert not outlasts(UNKNOWN, soon)
    assert not outlasts(soon, UNKNOWN)


def test_over() -> None:
    now = datetime.now(UTC)
    assert expired(expiring(now - HOUR))
    assert not expired(expiring(now + HOUR))
    assert not expired(expiring(None))
    assert left_of(now - HOUR, now) == timedelta(seconds=1)
    assert left_of(now + HOUR, now) == HOUR


def test_a_change_keeps_the_end() -> None:
    """Its whole seconds begin anew, and are rounded up; what it says of the end does not move."""
    end = STORED + timedelta(hours=1, microseconds=5)
    now = STORED + timedelta(milliseconds=50)
    for _ in range(3):
        header = b"NATS/1.0\r\n" + ttl_line(left_of(end, now)) + end_line(end) + b"\r\n"
        assert expiry(header, now) == end
        now += timedelta(minutes=7, milliseconds=3)
    assert end_line(None) == end_line(UNKNOWN) == b""


@pytest.mark.parametrize(
    "told", ["", "x", "-5", "1e3", "9" * 30, "9" * 16, str((LAST - UNKNOWN) // timedelta(microseconds=1))]
)
def test_an_end_that_is_told_is_no_later_than_the_servers(told: str) -> None:
    """Anybody may write it; the server goes by the other line."""
    header = b"NATS/1.0\r\nNats-TTL: 2s\r\nNatsproto-End: %b\r\n\r\n" % told.encode()
    assert expiry(header, STORED) == STORED + timedelta(seconds=2)


def test_an_end_alone_is_none() -> None:
    assert expiry(b"NATS/1.0\r\nNatsproto-End: 5\r\n\r\n", STORED) is None
