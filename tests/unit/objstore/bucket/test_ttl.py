"""What the header of a message says of its end: as the server reads it, and never as "never" by mistake."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from objstore.bucket.ttl import UNKNOWN, expired, expiry, outlasts, remaining
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
    assert remaining(end) is None, "it may be there for ever"
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
    assert remaining(None) is None
    assert remaining(now - HOUR) == timedelta(seconds=1)
