"""The data types as plain values, for JSON and other formats that know no classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import Field
from datetime import UTC, datetime, timedelta
from typing import ClassVar


def format_rfc3339(moment: datetime) -> str:
    """Return an aware time as RFC 3339 in UTC with microseconds, the form every client can parse."""
    if moment.tzinfo is not UTC:
        moment = moment.astimezone(UTC)
    return moment.isoformat("T", "microseconds")[: -len("+00:00")] + "Z"


class Record:
    """What the data types have in common."""

    __slots__ = ()
    __dataclass_fields__: ClassVar[dict[str, Field[object]]]

    def to_dict(self) -> dict[str, object]:
        """Return the fields under their names, as values that ``json.dumps`` takes.

        Times are RFC 3339 in UTC, durations are seconds, errors are their texts, and the data types inside
        are dicts. ``extra`` and ``raw`` are left out: others wrote them, of any size and depth.
        """
        fields = self.__dataclass_fields__.values()
        return {field.name: plain(getattr(self, field.name)) for field in fields if field.repr}


def plain(value: object) -> object:
    """Return a field's value as ``json.dumps`` takes it."""
    if value is None or isinstance(value, str | int | float):
        return value
    if hasattr(value, "to_dict"):
        return value.to_dict()
    if isinstance(value, datetime):
        return format_rfc3339(value)
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, Sequence):
        return [plain(item) for item in value]
    return str(value)
