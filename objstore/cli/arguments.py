"""Values of options: sizes, durations, pairs. A bad value is an ``ArgumentTypeError``, so exit code 2."""

from __future__ import annotations

import re
from argparse import ArgumentTypeError
from datetime import UTC, datetime, timedelta

from natsproto._values import brief

_SIZE = re.compile(r"(\d+)\s*(?:([kmgt])(?:i?b)?|b)?", re.IGNORECASE)
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d|w)")
_RANGE = re.compile(r"(\d*)-(\d*)", re.ASCII)
_POWERS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4}
_SECONDS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}


def _shown(text: str) -> str:
    """Quote a bad value for its error, unless it looks like a seed or credentials: a terminal, or a log."""
    from natsproto.aio.auth import looks_secret

    return "what looks like a seed or credentials" if looks_secret(text) else brief(text)


def size(text: str) -> int:
    """Parse ``10GiB``, ``10G``, ``512k`` or ``1000`` to bytes; as in ``nats``, units are powers of 1024."""
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise ArgumentTypeError(f"{_shown(text)} is not a valid size: write 512KiB, 10G or a number of bytes")
    factor: int = 1024 ** _POWERS[(match[2] or "").lower()]
    return int(match[1]) * factor


def duration(text: str) -> timedelta:
    """Parse ``90s``, ``1h30m``, ``7d`` or ``500ms``; only ``0`` needs no unit."""
    given = text.strip().lower()
    if given == "0":
        return timedelta(0)
    if re.fullmatch(r"\d+(?:\.\d+)?", given):
        raise ArgumentTypeError(f"{_shown(text)} has no unit: write {given}s, {given}m, {given}h or {given}d")
    parts = _DURATION.findall(given)
    if not parts or "".join(number + unit for number, unit in parts) != given:
        raise ArgumentTypeError(f"{_shown(text)} is not a valid duration: write 30s, 1h, 1h30m or 7d")
    try:
        return timedelta(seconds=sum(float(number) * _SECONDS[unit] for number, unit in parts))
    except OverflowError:
        raise ArgumentTypeError(f"the duration {_shown(text)} is too long") from None


def timeout(text: str) -> float:
    """Parse a duration above zero to seconds."""
    seconds = duration(text).total_seconds()
    if seconds <= 0:
        raise ArgumentTypeError("the time must be above 0")
    return seconds


def header(text: str) -> tuple[str, str]:
    """Parse ``K:V``; white space around both is dropped."""
    key, colon, value = text.partition(":")
    if not colon or not key.strip():
        raise ArgumentTypeError(f"{_shown(text)} is not a header: write NAME:VALUE")
    return key.strip(), value.strip()


def pair(text: str) -> tuple[str, str]:
    """Parse ``K=V``."""
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise ArgumentTypeError(f"{_shown(text)} is not a pair: write KEY=VALUE")
    return key, value


def count(text: str) -> int:
    """Parse a whole number above zero."""
    if not text.isascii() or not text.isdigit() or int(text) == 0:
        raise ArgumentTypeError(f"{_shown(text)} is not a whole number above 0")
    return int(text)


def source(text: str) -> tuple[str, str | None]:
    """Parse ``BUCKET`` or ``BUCKET@DOMAIN``."""
    bucket, at, domain = text.partition("@")
    if not bucket or (at and not domain):
        raise ArgumentTypeError(f"{_shown(text)} is not a bucket: write BUCKET or BUCKET@DOMAIN")
    return bucket, domain or None


def port(text: str) -> int:
    """Parse the number of a port."""
    number = count(text)
    if number > 65535:
        raise ArgumentTypeError(f"{_shown(text)} is not a port: the highest is 65535")
    return number


def revision(text: str) -> int:
    """Parse a revision; 0 means that there must be no object."""
    if not text.isascii() or not text.isdigit():
        raise ArgumentTypeError(f"{_shown(text)} is not a revision: write a number, as ls -l shows it")
    return int(text)


def moment(text: str) -> datetime:
    """Parse ``2026-01-31``, ``2026-01-31T12:00:00Z`` (without a zone: UTC), or an age such as ``7d``."""
    try:
        found = datetime.fromisoformat(text.strip())
    except ValueError:
        try:
            return datetime.now(UTC) - duration(text)
        except (ArgumentTypeError, OverflowError):
            raise ArgumentTypeError(
                f"{_shown(text)} is not a time: write 2026-01-31, 2026-01-31T12:00:00Z, or an age such as 7d"
            ) from None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def byte_range(text: str) -> tuple[int | None, int | None]:
    """Parse ``0-99``, ``100-`` or ``-100`` (the last 100 bytes), as in HTTP: both ends are included."""
    match = _RANGE.fullmatch(text.strip())
    if match is None or match[0] == "-":
        raise ArgumentTypeError(
            f"{_shown(text)} is not a range: write 0-99, 100- or -100 for the last 100 bytes"
        )
    first, last = (int(end) if end else None for end in match.groups())
    if first is not None and last is not None and last < first:
        raise ArgumentTypeError(f"the range {_shown(text)} ends before it begins")
    return first, last
