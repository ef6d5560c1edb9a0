"""Subclasses of ``str`` and ``bytes`` that answer everything with something else than what they hold."""

from __future__ import annotations

from enum import Enum
from typing import Any

EVIL = "\r\nPUB evil 4\r\nevil\r\n"


def _evil(*args: Any, **options: Any) -> str:
    return EVIL


def _evil_bytes(*args: Any, **options: Any) -> bytes:
    return EVIL.encode()


class HostileStr(str):
    """Only what is taken by value is what it holds."""

    __format__ = __str__ = __repr__ = _evil
    lower = upper = strip = replace = removeprefix = removesuffix = translate = casefold = _evil
    __getitem__ = __add__ = __mod__ = join = format = _evil
    encode = _evil_bytes

    def __len__(self) -> int:
        return 4

    def __iter__(self) -> Any:
        return iter(EVIL)

    def __contains__(self, part: object) -> bool:
        return False

    def split(self, *args: Any) -> list[str]:  # type: ignore[override]
        return [EVIL]

    def startswith(self, *args: Any) -> bool:
        return True

    endswith = isalnum = isdigit = isprintable = isidentifier = isascii = startswith


class HostileBytes(bytes):
    """The same for payloads and raw header blocks."""

    __bytes__ = __add__ = __getitem__ = strip = replace = translate = _evil_bytes
    decode = __str__ = __repr__ = __format__ = _evil

    def __len__(self) -> int:
        return 4

    def __iter__(self) -> Any:
        return iter(EVIL.encode())

    def startswith(self, *args: Any) -> bool:
        return True

    endswith = isdigit = startswith


class AnyCase(str):
    """Equal to what is spelled otherwise, as some frameworks' header names are."""

    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, str) and str(self).lower() == str(other).lower()

    def __hash__(self) -> int:
        return hash(str(self).lower())


def enum_of(value: str) -> str:
    """A member of ``class Name(str, Enum)`` with that value; its ``str()`` is ``Name.MEMBER``."""
    return Enum("Name", {"MEMBER": value}, type=str).MEMBER  # type: ignore[return-value]
